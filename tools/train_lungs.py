"""Train the lung segmenter that the program ships, and write it to lib/network/lung_model.

1. Learn from children's films with masks, generated films and pictures without lungs.
2. Let the network segment the films of adults, and keep those where two looks agree.
3. Learn on with those films added, at last on films that are augmented less.
4. Export the averaged weights as OpenVINO IR with fp16 weights, and score the held-out children.

The same seed on the same machine gives the same weights. It takes a quarter of an hour on a core.

Examples:
    python -m tools.train_lungs --shared ../shared
    python -m tools.train_lungs --shared ../shared --steps 60 --output /tmp/lungs
"""

import argparse
import copy
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.network import lungs as shipped
from tools import lung_films
from tools.lung_augmentation import LUNGLESS, batch_of, upright_views
from tools.lung_export import export
from tools.lung_films import HELD_OUT_ADULTS, Films, held_out
from tools.lung_net import LungNet

RECIPE = 3  # raised with every change that changes the weights


@dataclass(frozen=True)
class Plan:
    """What decides the weights besides the films."""

    seed: int = 0
    steps: int = 4200
    first_stage: float = 0.4  # share of the steps before the adults' films join
    batch: int = 32
    learning_rate: float = 5e-3  # peak of one cycle
    average: float = 0.995  # of the weights, per step
    gentler: float = 0.4  # share of the steps after which the augmentation weakens
    gentlest: float = 0.05  # strength of the augmentation at the end
    generated: int = 24
    lungless: int = 1400
    agreement: float = 0.93  # Dice between two views of an adult's film, above which it is kept
    shares: tuple[float, ...] = (0.50, 0.28, 0.02, 0.20)  # children, adults, generated, lungless

    def strength(self, step: int) -> float:
        """Strength of the augmentation in a step: whole at first, weaker to the end."""
        passed = max(0.0, step / self.steps - self.gentler) / (1 - self.gentler)
        return 1 - passed * (1 - self.gentlest)


@dataclass
class Learner:
    """The network in training and the running average of its weights."""

    network: LungNet
    averaged: LungNet
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    step: int = 0

    @staticmethod
    def fresh(plan: Plan) -> "Learner":
        torch.manual_seed(plan.seed)
        network = LungNet()
        optimizer = torch.optim.AdamW(network.parameters(), plan.learning_rate, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, plan.learning_rate, total_steps=plan.steps + 1, pct_start=0.15
        )
        return Learner(network, copy.deepcopy(network).eval(), optimizer, schedule)

    def learn(self, films: Tensor, target: Tensor, known: Tensor, orientation: Tensor) -> float:
        masks, turns = self.network(films)
        loss = mask_loss(masks, target, known) + 0.2 * functional.cross_entropy(turns, orientation)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 2.0)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        return float(loss.detach())

    @torch.no_grad()
    def average(self, decay: float) -> None:
        decay = min(decay, (1 + self.step) / (10 + self.step))
        new = self.network.state_dict()
        for name, value in self.averaged.state_dict().items():
            if value.is_floating_point():
                value.lerp_(new[name], 1 - decay)
            else:
                value.copy_(new[name])


def mask_loss(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy, soft Dice and the error at the box's edges per mask, `(B, 2, h, w)` each, over
    those that are known.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability = logits.sigmoid()
    overlap = 2 * (probability * target).sum((2, 3)) + 50
    dice = 1 - overlap / (probability.sum((2, 3)) + target.sum((2, 3)) + 50)
    loss = 2 * entropy.mean((2, 3)) + dice + 0.5 * _edge_loss(logits, target)
    return (loss * known).sum() / known.sum().clamp(min=1)


def _edge_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy `(B, 2)` of the masks' shadows on both axes, which end where the box does."""
    shadows = [
        functional.binary_cross_entropy_with_logits(
            logits.amax(axis), target.amax(axis), reduction="none"
        ).mean(2)
        for axis in (2, 3)
    ]
    return shadows[0] + shadows[1]


def draw_rows(
    groups: list[np.ndarray], shares: tuple[float, ...], count: int, rng: np.random.Generator
) -> np.ndarray:
    """Row numbers of a batch: a group by its share, a film of it by chance."""
    weights = np.array(
        [share * bool(len(group)) for group, share in zip(groups, shares, strict=True)]
    )
    chosen = rng.choice(len(groups), count, p=weights / weights.sum())
    return np.array([rng.choice(groups[index]) for index in chosen])


def train(learner: Learner, parts: list[Films], plan: Plan, until: int) -> list[float]:
    """Learn up to step `until` from children, adults, generated films and lungless pictures;
    return the losses.
    """
    films = Films.joined(part for part in parts if len(part))
    groups, first = [], 0
    for part in parts:
        groups.append(np.arange(first, first + len(part)))
        first += len(part)
    rng, torch_rng = np.random.default_rng([plan.seed, until]), torch.Generator().manual_seed(until)
    learner.network.train()
    started, losses = time.monotonic(), []
    while learner.step < until:
        rows = draw_rows(groups, plan.shares, plan.batch, rng)
        strength = plan.strength(learner.step)
        grey, target, orientation = batch_of(films, rows, torch_rng, strength)
        losses.append(learner.learn(grey, target, torch.from_numpy(films.known[rows]), orientation))
        learner.average(plan.average)
        if learner.step % 50 == 0:
            seconds = time.monotonic() - started
            print(
                f"step {learner.step} loss {np.mean(losses[-50:]):.4f} {seconds:.0f} s", flush=True
            )
    return losses


@torch.no_grad()
def segment(network: LungNet, grey: Tensor) -> tuple[Tensor, Tensor]:
    """Mask probabilities `(N, 2, 128, 128)` and orientation probabilities `(N, 5)`."""
    masks, turns = zip(*(network(part) for part in grey.split(64)), strict=True)
    return torch.cat(masks).sigmoid(), torch.cat(turns).softmax(1)


def dice(one: Tensor, other: Tensor) -> Tensor:
    """Dice per film of masks `(N, ..., h, w) bool`."""
    both, total = (one & other).sum((-2, -1)), one.sum((-2, -1)) + other.sum((-2, -1))
    return 2 * both / total.clamp(min=1)


def agreed_adults(network: LungNet, grey: np.ndarray, plan: Plan) -> Films:
    """Adults' films whose masks agree between two views, with the mean of both as target.

    Masks that the network does not take for lungs, or of one lung alone, are left out too.
    """
    plain, back, other = upright_views(grey)
    first, turns = segment(network, plain)
    second = back(segment(network, other)[0])
    mean = (first + second) / 2
    agree = dice(first[:, 0] > 0.5, second[:, 0] > 0.5) >= plan.agreement
    plausible = torch.tensor(
        [shipped.plausible_lungs(mask.numpy()) is not None for mask in mean[:, 0]]
    )
    keep = (agree & plausible & (turns[:, LUNGLESS] < 0.5)).numpy()
    stored = functional.interpolate(mean, (lung_films.STORED, lung_films.STORED), mode="bilinear")
    target = ((stored > 0.5).byte() * 255).numpy()[keep]
    count = int(keep.sum())
    return Films(grey[keep], target, np.ones((count, 2), bool), np.zeros(count, bool))


def main(shared: Path, output: Path, plan: Plan) -> None:
    """Run the recipe on the films below `shared` and write the model to `output`."""
    torch.set_num_threads(1)  # a second thread saves a quarter of the time
    children, kept, _ = lung_films.read_children(shared / "lungs")
    paths, every = lung_films.read_adults([shared / "xrays", shared / "sources"])
    adults = every[[not held_out(path.name, HELD_OUT_ADULTS) for path in paths]]
    generated = lung_films.generated_films(plan.generated, plan.seed)
    lungless = lung_films.lungless_pictures(children, plan.lungless, plan.seed)
    print(f"{len(children)} children, {len(kept)} kept, {len(adults)} adults", flush=True)
    learner, none = Learner.fresh(plan), children.rows(np.arange(0))
    train(learner, [children, none, generated, lungless], plan, int(plan.steps * plan.first_stage))
    agreed = agreed_adults(learner.averaged, adults, plan)
    print(f"{len(agreed)} of {len(adults)} adults agreed", flush=True)
    train(learner, [children, agreed, generated, lungless], plan, plan.steps)
    masks, _ = segment(learner.averaged, upright_views(kept.grey)[0])
    truth = torch.from_numpy(kept.at_side() > 127)
    scores = dice(masks > 0.5, truth)
    counts = {
        "children_with_masks": len(children), "children_held_out": len(kept),
        "adults_unlabelled": len(adults), "adults_agreed": len(agreed),
        "generated": len(generated), "lungless": len(lungless),
    }  # fmt: skip
    record = {
        "recipe": RECIPE, "plan": asdict(plan), "films": counts,
        "dice_lungs_held_out_children": round(float(scores[:, 0].mean()), 4),
        "dice_fields_held_out_normals": round(float(scores[kept.known[:, 1], 1].mean()), 4),
    }  # fmt: skip
    export(learner.averaged, output, record)
    print(record)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--shared", type=Path, required=True, help="folder with lungs, xrays and sources"
    )
    parser.add_argument("--output", type=Path, default=shipped.FOLDER)
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    options = parser.parse_args()
    main(options.shared, options.output, Plan(seed=options.seed, steps=options.steps))
