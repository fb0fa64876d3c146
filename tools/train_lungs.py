"""Train the lung segmenter that the program ships, and write it to lib/network/lung_model.

1. A large network, the teacher, learns from children's films with masks, generated films and
   pictures without lungs.
2. The teacher segments the films of adults; those where two looks agree are kept.
3. The small network that ships learns from the masks mixed with what the teacher sees, and from
   the adults' films as the teacher sees them.
4. Export the averaged weights as OpenVINO IR with fp16 weights, and score the held-out children.

The same seed on the same machine gives the same weights. It takes half an hour of a core with
bfloat16 instructions.

Examples:
    python -m tools.train_lungs --shared ../shared
    python -m tools.train_lungs --shared ../shared --steps 60 --teacher_steps 20 --output /tmp/lungs
"""

import argparse
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.network import lungs as shipped
from tools import lung_films
from tools.lung_augmentation import LUNGLESS, upright_views
from tools.lung_export import export
from tools.lung_films import HELD_OUT_ADULTS, Films, held_out
from tools.lung_learner import Course, Learner, train
from tools.lung_net import LungNet
from tools.lung_teacher import Teacher

RECIPE = 4  # raised with every change that changes the weights
TEACHER = Course(
    steps=1500,
    batch=16,
    learning_rate=3e-3,
    pretrained_rate=1e-3,
    shares=(0.83, 0.0, 0.02, 0.15),
    average=0.99,
    strongest=0.8,
    gentler=0.0,
    gentlest=0.1,
)
PUPIL = Course(
    steps=4000,
    batch=32,
    learning_rate=5e-3,
    shares=(0.50, 0.28, 0.02, 0.20),
)


@dataclass(frozen=True)
class Plan:
    """What decides the weights besides the films."""

    seed: int = 0
    teacher: Course = TEACHER
    pupil: Course = PUPIL
    generated: int = 24
    lungless: int = 1400
    agreement: float = 0.93  # Dice between two views of an adult's film, above which it is kept
    taught: float = 0.5  # weight of the teacher's probabilities beside a mask


@torch.no_grad()
def segment(network: nn.Module, grey: Tensor) -> tuple[Tensor, Tensor]:
    """Mask probabilities `(N, 2, 128, 128)` and orientation probabilities `(N, 5)`."""
    masks, turns = zip(*(network(part) for part in grey.split(64)), strict=True)
    return torch.cat(masks).sigmoid(), torch.cat(turns).softmax(1)


def dice(one: Tensor, other: Tensor) -> Tensor:
    """Dice per film of masks `(N, ..., h, w) bool`."""
    both, total = (one & other).sum((-2, -1)), one.sum((-2, -1)) + other.sum((-2, -1))
    return 2 * both / total.clamp(min=1)


def two_looks(teacher: nn.Module, grey: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Mask probabilities `(N, 2, 128, 128)` from two views of each film, both as the first has it,
    and the orientation probabilities of the first.
    """
    plain, back, other = upright_views(grey)
    first, turns = segment(teacher, plain)
    return first, back(segment(teacher, other)[0]), turns


def taught_children(teacher: nn.Module, children: Films, plan: Plan) -> Films:
    """The children's films with their masks mixed with the teacher's probabilities.

    A mask that a film lacks becomes the teacher's.
    """
    first, second, _ = two_looks(teacher, children.grey)
    seen = _as_target((first + second) / 2)
    mixed = plan.taught * seen + (1 - plan.taught) * children.target
    target = np.where(children.known[:, :, None, None], mixed, seen).round().astype(np.uint8)
    return replace(children, target=target, known=np.ones_like(children.known))


def agreed_adults(teacher: nn.Module, grey: np.ndarray, plan: Plan) -> Films:
    """Adults' films whose masks agree between two views, with the mean of both as target.

    Masks that the teacher does not take for lungs, or of one lung alone, are left out too.
    """
    first, second, turns = two_looks(teacher, grey)
    mean = (first + second) / 2
    agree = dice(first[:, 0] > 0.5, second[:, 0] > 0.5) >= plan.agreement
    plausible = torch.tensor(
        [shipped.plausible_lungs(mask.numpy()) is not None for mask in mean[:, 0]]
    )
    keep = (agree & plausible & (turns[:, LUNGLESS] < 0.5)).numpy()
    count = int(keep.sum())
    target = _as_target(mean[torch.from_numpy(keep)])
    return Films(grey[keep], target, np.ones((count, 2), bool), np.zeros(count, bool))


def _as_target(probability: Tensor) -> np.ndarray:
    """Probabilities `(N, 2, 128, 128)` as targets of `Films`, `(N, 2, 160, 160) uint8`."""
    size = (lung_films.STORED, lung_films.STORED)
    stored = functional.interpolate(probability, size, mode="bilinear")
    return (255 * stored).round().byte().numpy()


def trained_teacher(children: Films, others: list[Films], plan: Plan) -> nn.Module:
    """The teacher, averaged, after its course on children and on films that `others` has."""
    torch.manual_seed(plan.seed)
    teacher, none = Teacher(), children.rows(np.arange(0))
    learner = Learner(teacher, plan.teacher, teacher.encoder_parameters())
    train(learner, [children, none, *others], plan.seed)
    return learner.averaged


def trained_pupil(
    teacher: nn.Module, children: Films, adults: Films, others: list[Films], plan: Plan
) -> nn.Module:
    """The network that ships, averaged, after its course on what the teacher sees."""
    torch.manual_seed(plan.seed + 1)
    learner = Learner(LungNet(), plan.pupil)
    train(learner, [taught_children(teacher, children, plan), adults, *others], plan.seed + 1)
    return learner.averaged


@torch.no_grad()
def scores(network: nn.Module, kept: Films) -> tuple[float, float]:
    """Mean Dice of the lungs, and of the fields on the films where they are known."""
    masks, _ = segment(network, upright_views(kept.grey)[0])
    both = dice(masks > 0.5, torch.from_numpy(kept.at_side() > 127))
    lungs, fields = both[:, 0].mean(), both[kept.known[:, 1], 1].mean()
    return round(float(lungs), 4), round(float(fields), 4)


def main(shared: Path, output: Path, plan: Plan) -> None:
    """Run the recipe on the films below `shared` and write the model to `output`."""
    torch.set_num_threads(1)  # a second thread saves a quarter of the time
    children, kept, _ = lung_films.read_children(shared / "lungs")
    paths, every = lung_films.read_adults([shared / "xrays", shared / "sources"])
    adults = every[[not held_out(path.name, HELD_OUT_ADULTS) for path in paths]]
    generated = lung_films.generated_films(plan.generated, plan.seed)
    lungless = lung_films.lungless_pictures(children, plan.lungless, plan.seed)
    print(f"{len(children)} children, {len(kept)} kept, {len(adults)} adults", flush=True)
    teacher = trained_teacher(children, [generated, lungless], plan)
    agreed = agreed_adults(teacher, adults, plan)
    print(f"{len(agreed)} of {len(adults)} adults agreed", flush=True)
    pupil = trained_pupil(teacher, children, agreed, [generated, lungless], plan)
    counts = {
        "children_with_masks": len(children), "children_held_out": len(kept),
        "adults_unlabelled": len(adults), "adults_agreed": len(agreed),
        "generated": len(generated), "lungless": len(lungless),
    }  # fmt: skip
    names = ("dice_lungs_held_out_children", "dice_fields_held_out_normals")
    record = {
        "recipe": RECIPE, "plan": asdict(plan), "films": counts,
        **dict(zip(names, scores(pupil, kept), strict=True)),
        "teacher": dict(zip(names, scores(teacher, kept), strict=True)),
    }  # fmt: skip
    export(pupil, output, record)
    print(record)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--shared", type=Path, required=True, help="folder with lungs, xrays and sources"
    )
    parser.add_argument("--output", type=Path, default=shipped.FOLDER)
    parser.add_argument("--steps", type=int, default=PUPIL.steps)
    parser.add_argument("--teacher_steps", type=int, default=TEACHER.steps)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    options = parser.parse_args()
    plan = Plan(
        options.seed,
        replace(TEACHER, steps=options.teacher_steps),
        replace(PUPIL, steps=options.steps),
    )
    main(options.shared, options.output, plan)
