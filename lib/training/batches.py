"""Batches of training and validation films: live from PyTorch, or from the feature cache."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from lib.network.backbones import Backbone, to_input
from lib.training.augmentation import Film, augment, read_film
from lib.training.feature_cache import CHUNK, FrozenFeatures
from lib.training.plan import Augmentation, Plan
from lib.workers.threads import map_ordered


def freeze(network: nn.Sequential, plan: Plan) -> tuple[nn.Module, nn.Module]:
    """Split a network into (frozen, trained) by the plan. Frozen means whole: parameters and
    BatchNorm statistics.
    """
    names = ["trunk", "last_block", "head"]
    first_trained = 2 if plan.freeze_backbone else 0
    if plan.freeze_backbone and plan.fine_tune_last_block:
        first_trained = 1
    parts = [network.get_submodule(name) for name in names]
    frozen, trained = nn.Sequential(*parts[:first_trained]), nn.Sequential(*parts[first_trained:])
    frozen.requires_grad_(False)
    frozen.eval()
    trained.requires_grad_(True)
    return frozen, trained


class Source(Protocol):
    """Where the batches come from: what the trained layers are given, `(B, C, h, w) float32`, and
    `(B,)` targets.
    """

    def train(self, order: Sequence[int], size: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The training films in `order`, as `epoch` sees them."""

    def val(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All validation films as they are."""


@dataclass(frozen=True)
class LiveBatches:
    """The plain way: every film is read, augmented and sent through the frozen layers in every
    epoch, by PyTorch.
    """

    films: Mapping[str, Sequence[Film]]  # parts "train" and "val"
    backbone: Backbone
    frozen: nn.Module
    augmentation: Augmentation
    seed: int
    readers: int

    def train(self, order: Sequence[int], size: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Source`."""
        return self._batches("train", order, size, epoch)

    def val(self) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Source`."""
        return self._batches("val", range(len(self.films["val"])), 64, None)

    def _batches(
        self, part: str, order: Sequence[int], size: int, epoch: int | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        def view(index: int) -> np.ndarray:
            grey = read_film(self.films[part][index], self.backbone.input_side)
            return (
                grey if epoch is None else augment(grey, self.augmentation, self.seed, epoch, index)
            )

        greys = map_ordered(view, order, self.readers, lookahead=2 * size)
        for begin in range(0, len(order), size):
            members = order[begin : begin + size]
            images = to_input([next(greys) for _ in members], self.backbone)
            with torch.no_grad():
                features = self.frozen(images)
            yield features, torch.tensor([self.films[part][index].target for index in members])


@dataclass(frozen=True)
class CachedBatches:
    """What a training gets of `FrozenFeatures`: epoch e sees view 1 + (e - 1) mod `views`; with 0
    views a fresh one.
    """

    features: FrozenFeatures
    tap: str
    views: int

    def train(self, order: Sequence[int], size: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Activations and targets of the training films in `order`."""
        view = 1 + (epoch - 1) % self.views if self.views else epoch
        return self.features.batches("train", order, size, view, self.tap)

    def val(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Activations and targets of all validation films."""
        return self.features.batches(
            "val", range(len(self.features.films["val"])), CHUNK, 0, self.tap
        )
