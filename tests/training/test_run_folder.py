"""The identity of a run: what makes two runs the same; and what is known of an interrupted one."""

from pathlib import Path

import pytest
import torch

from lib.network import checkpoints
from lib.network.artifact import ModelManifest
from lib.network.checkpoints import Checkpoint
from lib.network.choices import Phase
from lib.training.plan import Overrides, plan_of
from lib.training.run_folder import RunFolder, RunIdentity
from lib.training.starting_weights import StartingWeights
from tests.training.plans import SETTINGS


def test_a_run_without_a_cache_is_not_one_whose_cache_has_no_room() -> None:
    fingerprints = {
        RunIdentity(
            plan_of("a", Overrides(), cache=cache, **SETTINGS), "fp32", ("A", "B"), "split", "start"
        ).fingerprint(views=0)
        for cache in (True, False)
    }
    assert len(fingerprints) == 2


def _run_folder(runs_dir: Path) -> RunFolder:
    plan = plan_of("a", Overrides(), **SETTINGS)
    return RunFolder(runs_dir, RunIdentity(plan, "fp32", ("A", "B"), "split", "start"))


@pytest.mark.parametrize("views", [0, 3])
def test_an_interrupted_run_keeps_its_number_of_views_unless_it_is_given_up(
    tmp_path: Path, views: int
) -> None:
    assert _run_folder(tmp_path).views() is None
    _run_folder(tmp_path).begin(views, StartingWeights(), False, 1)
    assert _run_folder(tmp_path).views() == views
    assert _run_folder(tmp_path).views(restart=True) is None


def _checkpoint(value: float, parent: str = "start") -> Checkpoint:
    phase: Phase = "a" if parent == "start" else "b"
    state = {"weight": torch.tensor(value)}
    return Checkpoint("resnet18", ("A", "B"), phase, 1, 0.5, 0.7, state, "split", parent)


def _write_model(folder: Path, weights_sha256: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    manifest = ModelManifest(
        "resnet18", ("A", "B"), 224, "a", 1, weights_sha256, "split", None, {}, {}
    )
    manifest.write(folder)


def _published(runs_dir: Path) -> list[str]:
    """Digests of the weights in the published checkpoint and in the published model."""
    checkpoint = checkpoints.load(runs_dir / "best_resnet18.pt")
    return [checkpoint.digest, ModelManifest.read(runs_dir / "model").weights_sha256]


def test_a_finished_run_is_published_again_where_the_model_is_another_one(tmp_path: Path) -> None:
    run, own = _run_folder(tmp_path), _checkpoint(1.0)
    checkpoints.save(run.best_path, own)
    _write_model(run.folder / "model", own.digest)
    run.publish_again()
    assert _published(tmp_path) == [own.digest] * 2
    _write_model(tmp_path / "model", "another")
    run.publish_again()
    assert _published(tmp_path) == [own.digest] * 2
    (tmp_path / "model" / "model.json").unlink()
    run.publish_again()
    assert _published(tmp_path) == [own.digest] * 2


def test_a_finished_phase_a_does_not_replace_the_phase_b_that_began_with_it(tmp_path: Path) -> None:
    run, own = _run_folder(tmp_path), _checkpoint(1.0)
    tuned = _checkpoint(2.0, own.digest)
    checkpoints.save(run.best_path, own)
    checkpoints.save(run.published_checkpoint, tuned)
    _write_model(tmp_path / "model", tuned.digest)
    run.publish_again()
    assert _published(tmp_path) == [tuned.digest] * 2
