"""Batches of training and validation films: computed by PyTorch, or from the feature cache."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from lib.network import taps
from lib.network.backbones import BACKBONES, Backbone, to_input
from lib.network.checkpoints import digest_of_weights
from lib.network.choices import Precision, Tap
from lib.network.numerics import Grey
from lib.training.augmentation import VIEW_SEED, augment
from lib.training.cache_room import fill_cache
from lib.training.feature_cache import CacheKey, FrozenFeatures
from lib.training.films import FilmReader, Part, SplitFilms, TrainingFilm
from lib.training.machines import Machines
from lib.training.plan import Plan
from lib.workers.threads import map_ordered

Batches = Iterator[tuple[Tensor, Tensor]]
VALIDATION_BATCH = 64


def freeze(network: nn.Sequential, plan: Plan) -> tuple[nn.Module, nn.Module]:
    """Split a network into (frozen, trained) layers.

    Frozen layers keep their parameters and their BatchNorm statistics.
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


class BatchSource(Protocol):
    """Where the trained layers' inputs come from: `(B, C, h, w) float32` and `(B,)` targets."""

    @property
    def views(self) -> int:
        """Augmented views per film that are used in turn; 0: a fresh one in every epoch."""

    @property
    def precision(self) -> Precision:
        """The precision of the frozen layers, which the trained layers compute in as well."""

    @property
    def targets(self) -> Sequence[int]:
        """Class indices of the training films, in the order that `train` numbers them."""

    @property
    def frozen_graphs(self) -> tuple[Path, Tap] | None:
        """Folder of the compiled frozen layers, and the output that is trained on."""

    def train(self, order: Sequence[int], size: int, epoch: int) -> Batches:
        """The training films in `order`, as `epoch` sees them."""

    def val(self) -> Batches:
        """All validation films, without augmentation."""


def batches_of(
    plan: Plan,
    network: nn.Sequential,
    split: SplitFilms,
    machines: Machines,
    views: int | None = None,
    cache_gb: float = 0,
) -> BatchSource:
    """The batches of a plan. With a cache, what it lacks is computed first.

    `views` None chooses as many views as fit into `cache_gb` (0: half of the free disk).

    Raises:
        JobError: a film cannot be read, or there is no room for `views`.
    """
    if not plan.cached:
        reader, backbone = FilmReader.of(plan), BACKBONES[plan.backbone]
        frozen = freeze(network, plan)[0]
        return LiveBatches(split.films, reader, backbone, frozen, plan, machines.readers)
    features = features_of(plan, network, split, machines, [split.cache_dir / "features"])
    return CachedBatches(features, plan.tap, fill_cache(features, plan, views, cache_gb))


def features_of(
    plan: Plan,
    network: nn.Sequential,
    split: SplitFilms,
    machines: Machines,
    caches: Sequence[Path],
) -> FrozenFeatures:
    """The frozen layers of a plan's network, applied to the films of `split`; nothing is computed.

    `caches` are parents of all keys' folders: the first is written to, all are read.
    """
    reader, backbone = FilmReader.of(plan), BACKBONES[plan.backbone]

    def write_graphs(folder: Path) -> None:
        taps.write_taps(folder, network, backbone)

    state = network.state_dict().items()
    key = CacheKey(
        backbone=plan.backbone,
        reader=reader,
        augmentation=plan.augmentation,
        seed=VIEW_SEED,
        weights_sha256=digest_of_weights({k: v for k, v in state if not k.startswith("head.")}),
        precision=machines.precision(plan.precision),
        setup=f"{machines.runtime[0]} pillow {version('pillow')}",
    )
    return FrozenFeatures(caches, key, split.films, write_graphs, machines)


@dataclass(frozen=True)
class LiveBatches:
    """Every film is read, augmented and passed through the frozen layers in every epoch."""

    films: Mapping[Part, Sequence[TrainingFilm]]
    reader: FilmReader
    backbone: Backbone
    frozen: nn.Module
    plan: Plan
    readers: int  # threads

    @property
    def views(self) -> int:
        """See `BatchSource`."""
        return 0

    @property
    def precision(self) -> Precision:
        """See `BatchSource`."""
        return "fp32"

    @property
    def frozen_graphs(self) -> None:
        """See `BatchSource`."""
        return None

    @property
    def targets(self) -> list[int]:
        """See `BatchSource`."""
        return [film.target for film in self.films["train"]]

    def train(self, order: Sequence[int], size: int, epoch: int) -> Batches:
        """See `BatchSource`."""
        return self._batches("train", order, size, epoch)

    def val(self) -> Batches:
        """See `BatchSource`."""
        return self._batches("val", range(len(self.films["val"])), VALIDATION_BATCH, None)

    def _batches(self, part: Part, order: Sequence[int], size: int, epoch: int | None) -> Batches:
        films, plan = self.films[part], self.plan

        def view(index: int) -> Grey:
            film = films[index]
            grey = self.reader.read(film)
            if epoch is None:
                return grey
            return augment(grey, plan.augmentation, VIEW_SEED, epoch, film.number)

        greys = map_ordered(view, order, self.readers, lookahead=2 * size)
        for begin in range(0, len(order), size):
            members = order[begin : begin + size]
            images = to_input([next(greys) for _ in members], self.backbone)
            with torch.no_grad():
                features = self.frozen(images)
            yield features, torch.tensor([films[index].target for index in members])


@dataclass(frozen=True)
class CachedBatches:
    """Cached activations: epoch e sees view 1 + (e - 1) mod `views`; with 0 views, view e."""

    features: FrozenFeatures
    tap: Tap
    views: int

    @property
    def precision(self) -> Precision:
        """See `BatchSource`."""
        return self.features.key.precision

    @property
    def targets(self) -> list[int]:
        """See `BatchSource`."""
        return [film.target for film in self.features.films["train"]]

    @property
    def frozen_graphs(self) -> tuple[Path, Tap]:
        """See `BatchSource`."""
        return self.features.graphs, self.tap

    def train(self, order: Sequence[int], size: int, epoch: int) -> Batches:
        """See `BatchSource`."""
        view = 1 + (epoch - 1) % self.views if self.views else epoch
        return self.features.batches("train", order, size, view, self.tap)

    def val(self) -> Batches:
        """See `BatchSource`."""
        films = range(len(self.features.films["val"]))
        return self.features.batches("val", films, VALIDATION_BATCH, 0, self.tap)
