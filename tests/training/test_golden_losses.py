"""The losses of a small seeded training, epoch by epoch, against recorded values.

The films, the weights and every draw are seeded. Views do not vary the acquisition, whose
compression is that of the JPEG library at hand. Other processors and library versions differ in
the fifth digit; a changed augmentation, schedule, loss or order of films differs in the second.
"""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from lib.network import backbones, weights
from lib.network.backbones import BACKBONES
from lib.network.choices import Precision
from lib.run.errors import StoppedBySignal
from lib.training import loop
from lib.training.batches import batches_of
from lib.training.films import SplitFilms, TrainingFilm
from lib.training.loop import Trainer
from lib.training.machines import Machines
from lib.training.plan import Overrides, Plan, plan_of
from lib.training.run_folder import EpochScores, RunFolder, RunIdentity
from lib.training.starting_weights import StartingWeights
from tests.conftest import film
from tests.training.plans import SETTINGS

FP32: Precision = "fp32"
LITE0 = BACKBONES["efficientnet_lite0"]
SMALL = {**SETTINGS, "backbone": LITE0.name, "batch_size": 6}
TOLERANCE = 2e-3
# (train loss, validation loss) of epochs 1 to 3, of both ways to compute the frozen layers
GOLDEN = [(1.1143, 1.2224), (1.0920, 1.2178), (0.9694, 1.2310)]


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> SplitFilms:
    """18 training and 6 validation films of three classes that differ in brightness."""
    folder = tmp_path_factory.mktemp("data")
    films = [
        TrainingFilm(film(folder / f"{seed}.png", seed=seed, side=64), seed % 3, f"{seed:064x}")
        for seed in range(24)
    ]
    parts = {"train": films[:18], "val": films[18:]}
    return SplitFilms(folder, "digest", ("A", "B", "C"), parts)  # type: ignore[arg-type]


def _plan(cache: bool) -> Plan:
    overrides = Overrides(epochs=3, lr=3e-4, fine_tune_last_block=True)
    return plan_of(
        "a",
        overrides,
        cache=cache,
        views=3 if cache else None,
        precision=FP32,
        vary_acquisition=False,
        **SMALL,
    )


def _network() -> nn.Sequential:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = backbones.build(LITE0, 3, weights._packaged_file(LITE0))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _train(runs: Path, split: SplitFilms, cache: bool) -> list[EpochScores]:
    plan, network, machines = _plan(cache), _network(), Machines(cpus=1)
    start = StartingWeights(imagenet=weights._packaged_file(LITE0))
    run = RunFolder(runs, RunIdentity.of(plan, FP32, split, start))
    batches = batches_of(plan, network, split, machines, run.views())
    run.begin(batches.views, start, restart=False, cores=1)
    return Trainer(plan, network, batches, run).resume_or_start()


def _losses(history: list[EpochScores]) -> list[tuple[float, float]]:
    return [(scores.train_loss, scores.val_loss) for scores in history]


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory, split: SplitFilms) -> list[EpochScores]:
    return _train(tmp_path_factory.mktemp("runs"), split, cache=True)


def test_a_cached_training_has_the_recorded_losses(cached: list[EpochScores]) -> None:
    for losses, golden in zip(_losses(cached), GOLDEN, strict=True):
        assert losses == pytest.approx(golden, abs=TOLERANCE)


def test_a_training_without_a_cache_has_the_recorded_losses(
    tmp_path: Path, split: SplitFilms
) -> None:
    for losses, golden in zip(_losses(_train(tmp_path, split, cache=False)), GOLDEN, strict=True):
        assert losses == pytest.approx(golden, abs=TOLERANCE)


def test_a_run_stopped_in_its_second_epoch_reproduces_the_other_losses_exactly(
    tmp_path: Path, split: SplitFilms, cached: list[EpochScores], monkeypatch: pytest.MonkeyPatch
) -> None:
    step, steps = Trainer._step, []

    def stop_in_epoch_2(self: Trainer, *batch: torch.Tensor) -> tuple[float, torch.Tensor]:
        steps.append(1)
        if len(steps) == 5:  # epochs have three batches
            raise StoppedBySignal(signal.SIGTERM)
        return step(self, *batch)

    monkeypatch.setattr(loop, "SECONDS_BETWEEN_SAVES", 0.0)
    with monkeypatch.context() as patch, pytest.raises(StoppedBySignal):
        patch.setattr(Trainer, "_step", stop_in_epoch_2)
        _train(tmp_path, split, cache=True)
    resumed = _train(tmp_path, split, cache=True)
    assert [replace(scores, seconds=0) for scores in resumed] == [
        replace(scores, seconds=0) for scores in cached
    ]
