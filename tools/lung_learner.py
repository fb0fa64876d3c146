"""How a network learns lungs: courses, the loss, and the running average of the weights.

The teacher and the network that ships learn by the same code, on courses of their own. Both
compute in bfloat16 where autocast does.
"""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tools.lung_augmentation import batch_of
from tools.lung_films import Films


@dataclass(frozen=True)
class Course:
    """What decides the weights of a network besides its films."""

    steps: int
    batch: int
    learning_rate: float  # peak of one cycle
    shares: tuple[float, ...]  # children, adults, generated, lungless
    pretrained_rate: float = 0.0  # of the weights that come from ImageNet
    average: float = 0.995  # of the weights, per step
    strongest: float = 1.0  # strength of the augmentation at first
    gentler: float = 0.4  # share of the steps after which the augmentation weakens
    gentlest: float = 0.05  # strength of the augmentation at the end

    def strength(self, step: int) -> float:
        """Strength of the augmentation in a step: whole at first, weaker to the end."""
        passed = max(0.0, step / self.steps - self.gentler) / (1 - self.gentler)
        return self.strongest + passed * (self.gentlest - self.strongest)


class Learner:
    """A network in training and the running average of its weights, `averaged`."""

    def __init__(
        self, network: nn.Module, course: Course, pretrained: Sequence[nn.Parameter] = ()
    ) -> None:
        """`pretrained` are the parameters that learn at the course's rate for them."""
        known = {id(parameter) for parameter in pretrained}
        new = [parameter for parameter in network.parameters() if id(parameter) not in known]
        groups = [(new, course.learning_rate)]
        groups += [(list(pretrained), course.pretrained_rate)] if pretrained else []
        self.course = course
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = copy.deepcopy(self.network).eval()
        self.optimizer = torch.optim.AdamW(
            [{"params": parameters, "lr": rate} for parameters, rate in groups], weight_decay=0.01
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            [rate for _, rate in groups],
            total_steps=course.steps + 1,
            pct_start=0.15,
        )
        self.step = 0

    def learn(self, films: Tensor, target: Tensor, known: Tensor, orientation: Tensor) -> float:
        with torch.autocast("cpu", torch.bfloat16):
            masks, turns = self.network(films.contiguous(memory_format=torch.channels_last))
        loss = mask_loss(masks.float(), target, known)
        loss = loss + 0.2 * functional.cross_entropy(turns.float(), orientation)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 2.0)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        self._average()
        return float(loss.detach())

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.course.average, (1 + self.step) / (10 + self.step))
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


def train(learner: Learner, parts: list[Films], seed: int) -> list[float]:
    """Learn from children, adults, generated films and lungless pictures to the end of the course;
    return the losses.
    """
    films, course = Films.joined(part for part in parts if len(part)), learner.course
    groups, first = [], 0
    for part in parts:
        groups.append(np.arange(first, first + len(part)))
        first += len(part)
    rng, torch_rng = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    learner.network.train()
    started, losses = time.monotonic(), []
    while learner.step < course.steps:
        rows = draw_rows(groups, course.shares, course.batch, rng)
        grey, target, orientation = batch_of(films, rows, torch_rng, course.strength(learner.step))
        losses.append(learner.learn(grey, target, torch.from_numpy(films.known[rows]), orientation))
        if learner.step % 50 == 0:
            seconds = time.monotonic() - started
            print(
                f"step {learner.step} loss {np.mean(losses[-50:]):.4f} {seconds:.0f} s", flush=True
            )
    return losses
