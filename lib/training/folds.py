"""A recorded training repeated on a part of its films, from the cached outputs of frozen layers."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lib.network.backbones import BACKBONES
from lib.network.choices import Precision, Tap
from lib.network.weights import weights_file
from lib.training.batches import VALIDATION_BATCH, Batches, CachedBatches, features_of, freeze
from lib.training.cache_room import AUTO_VIEWS, make_room
from lib.training.feature_cache import FrozenFeatures, Wanted
from lib.training.films import Part, SplitFilms, TrainingFilm
from lib.training.loop import Trainer
from lib.training.machines import Machines
from lib.training.plan import Plan
from lib.training.recipe import NotRepeatableError, Recipe
from lib.training.run_folder import EpochScores
from lib.training.starting_weights import StartingWeights

LARGEST_LAST_BLOCK = 4000  # training films up to which a fold trains the last block too

Probabilities = NDArray[np.float64]
Rows = Mapping[Part, Sequence[int]]  # numbers of the chosen films in each part


@dataclass(frozen=True)
class SelectedBatches:
    """Some films of a cache. See `BatchSource`."""

    every: CachedBatches
    rows: Rows

    @property
    def views(self) -> int:
        """See `BatchSource`."""
        return self.every.views

    @property
    def precision(self) -> Precision:
        """See `BatchSource`."""
        return self.every.precision

    @property
    def targets(self) -> list[int]:
        """See `BatchSource`."""
        targets = self.every.targets
        return [targets[row] for row in self.rows["train"]]

    @property
    def frozen_graphs(self) -> tuple[Path, Tap]:
        """See `BatchSource`."""
        return self.every.frozen_graphs

    def train(self, order: Sequence[int], size: int, epoch: int) -> Batches:
        """See `BatchSource`."""
        return self.every.train([self.rows["train"][number] for number in order], size, epoch)

    def val(self) -> Batches:
        """See `BatchSource`."""
        features, tap = self.every.features, self.every.tap
        return features.batches("val", self.rows["val"], VALIDATION_BATCH, 0, tap)


@dataclass
class InMemory:
    """A run that leaves nothing on the disk. See `Run`."""

    classes: tuple[str, ...]
    title: None = None
    best_path: None = None
    best: dict[str, Tensor] = field(default_factory=dict)  # of the trained layers

    def load_state(self) -> None:
        """See `Run`."""

    def save_state(self, state: Mapping[str, Any]) -> None:
        """See `Run`."""

    def write_history(self, history: Sequence[EpochScores]) -> None:
        """See `Run`."""

    def save_best(self, scores: EpochScores, state: Mapping[str, Tensor]) -> None:
        """See `Run`."""
        del scores
        trained = ("head.", "last_block.")
        self.best = {
            name: t.detach().clone() for name, t in state.items() if name.startswith(trained)
        }


class Folds:
    """Trainings of one recipe on parts of the same films."""

    def __init__(self, recipe: Recipe, split: SplitFilms, machines: Machines) -> None:
        """Find the first weights of the network.

        Raises:
            NotRepeatableError: the first weights are others than those of the model.
            JobError: there are no ImageNet weights.
        """
        self.recipe, self.split, self.machines = recipe, split, machines
        plan = recipe.head
        start = StartingWeights(imagenet=weights_file(BACKBONES[plan.backbone], split.cache_dir))
        if start.digest != recipe.start_sha256:
            raise NotRepeatableError("the ImageNet weights are not those that the model began with")
        self._start = start
        self.features: FrozenFeatures  # set by `fill`

    def fill(self, wanted: Sequence[Wanted], runs_dir: Path, cache_gb: float) -> None:
        """Compute what the cache lacks.

        It lies in the data folder; where that is read-only, what it lacks lies in `runs_dir`.

        Raises:
            NotRepeatableError: there is no room.
        """
        root, own = self.split.cache_dir / "features", runs_dir / "cache" / "features"
        is_writable = os.access(root if root.exists() else self.split.data_dir, os.W_OK)
        features = self._features([root] if is_writable else [own, root])
        needed = features.lacking_bytes(*wanted)
        if needed and needed > (room := make_room(features, wanted, cache_gb)):
            raise NotRepeatableError(
                f"the cache may take {max(room, 0) / 1e6:.0f} MB more in "
                f"{features.folder.parent}, and {needed / 1e6:.0f} MB are needed"
            )
        for one in wanted:
            features.fill(one, "films through the frozen layers")
        self.features = features

    def train(self, rows: Rows, recipe: Recipe) -> "Trained":
        """Train the head, and the last block if the recipe has one, on the films `rows`."""
        run = InMemory(self.split.classes)
        for plan in (recipe.head, recipe.last_block):
            if plan is None:
                continue
            network = self._network(plan.seed)
            network.load_state_dict(run.best, strict=False)
            every = CachedBatches(self.features, plan.tap, views_of(plan))
            Trainer(plan, network, SelectedBatches(every, rows), run).resume_or_start()
            network.load_state_dict(run.best, strict=False)
            last = plan
        network.eval()
        return Trained(self.features, freeze(network, last)[1], last.tap)

    def _network(self, seed: int) -> nn.Sequential:
        """The network before Phase A: the seed decides its head."""
        plan = replace(self.recipe.head, seed=seed)
        return self._start.build_network(plan, len(self.split.classes), self.machines.cores)

    def _features(self, caches: Sequence[Path]) -> FrozenFeatures:
        plan = self.recipe.head
        return features_of(plan, self._network(plan.seed), self.split, self.machines, caches)


@dataclass(frozen=True)
class Trained:
    """The layers that were trained behind the frozen ones."""

    features: FrozenFeatures
    layers: nn.Module
    tap: Tap

    def of_films(self, films: Sequence[TrainingFilm]) -> Probabilities:
        """`(films, classes)` probabilities, not calibrated, of films in the cache."""
        stored = self.features.locate(films, (0, self.tap))
        return self._of(stored.read([number])[0] for number in range(len(films)))

    @torch.inference_mode()
    def _of(self, activations: Iterator[NDArray[Any]]) -> Probabilities:
        found = []
        while batch := list(islice(activations, VALIDATION_BATCH)):
            rows = torch.from_numpy(np.stack(batch).astype(np.float16)).to(torch.float32)
            found.append(self.layers(rows).softmax(1).double().numpy())
        return np.concatenate(found)


def views_of(plan: Plan) -> int:
    """Views per film that a fold trains on: those of the recorded run, or as many as are usual."""
    return plan.views or min(plan.epochs, AUTO_VIEWS)


def wanted_by(recipe: Recipe, split: SplitFilms) -> list[Wanted]:
    """The activations that the plans of a recipe train on and choose an epoch by."""
    plans = [plan for plan in (recipe.head, recipe.last_block) if plan]
    views = [(view, plan.tap) for plan in plans for view in range(1, views_of(plan) + 1)]
    return [
        Wanted(split.films["val"], [(0, plan.tap) for plan in plans]),
        Wanted(split.films["train"], views),
    ]


def last_tap(recipe: Recipe) -> Tap:
    """The output that the finished layers of a recipe start from."""
    return (recipe.last_block or recipe.head).tap
