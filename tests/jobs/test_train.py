"""The train job: phases, interruptions that leave no trace, and what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from jobs import split, train
from lib.dataset.manifest import read_split
from lib.network import checkpoints
from lib.run.errors import StoppedBySignal
from lib.training import loop
from lib.training.loop import Trainer
from lib.training.run_folder import EpochScores
from tests.conftest import LITE0, dirs, environment, run

BEST = "best_efficientnet_lite0.pt"


@pytest.fixture
def root(tmp_path: Path, ready: Path) -> Path:
    """A project folder of this test's own, on the shared split."""
    (tmp_path / "data").symlink_to(ready / "data")
    return tmp_path


@pytest.fixture
def after_a(tmp_path: Path, chain: Path) -> Path:
    """The same after Phase A: a copy of the finished one."""
    (tmp_path / "data").symlink_to((chain / "data").resolve())
    shutil.copytree(chain / "runs" / "phase_a", tmp_path / "runs" / "phase_a")
    shutil.copy(chain / "runs" / "phase_a" / BEST, tmp_path / "runs" / BEST)
    return tmp_path


def _summary(root: Path, phase: str) -> dict[str, object]:
    content: dict[str, object] = json.loads(
        (root / "runs" / f"phase_{phase}" / "summary.json").read_text()
    )
    return content


def _train(root: Path, phase: str, *more: object) -> int:
    return run(train, "--phase", phase, "--epochs", "2", *LITE0, *dirs(root), *more)


def test_each_phase_leaves_its_files(chain: Path) -> None:
    for phase, epochs in (("a", [1, 2]), ("b", [0, 1, 2])):
        folder = chain / "runs" / f"phase_{phase}"
        expected = {
            "config.json",
            "history.csv",
            "curves.png",
            BEST,
            "summary.json",
            "model",
        }
        expected |= {"start.pt"} if phase == "b" else set()
        assert {path.name for path in folder.iterdir()} == expected
        assert pd.read_csv(folder / "history.csv")["epoch"].tolist() == epochs
        config = json.loads((folder / "config.json").read_text())
        assert config["plan"]["phase"] == phase
        assert {"torch", "numpy", "python"} <= set(config["versions"])


def test_phase_a_changes_the_head_alone_and_phase_b_the_last_block_too(chain: Path) -> None:
    from lib.network import backbones, weights

    row = backbones.BACKBONES["efficientnet_lite0"]
    imagenet = backbones.build(
        row, 3, weights.weights_file(row, chain / "data" / "cache")
    ).state_dict()
    a = checkpoints.load(chain / "runs/phase_a" / BEST).state
    b = checkpoints.load(chain / "runs" / BEST).state

    def changed(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> set[str]:
        return {name.split(".")[0] for name in first if not torch.equal(first[name], second[name])}

    assert changed(imagenet, a) == {"head"}
    assert changed(a, b) <= {"last_block", "head"}


def test_phase_b_counts_phase_a_as_epoch_0_and_is_never_worse(chain: Path) -> None:
    history = pd.read_csv(chain / "runs/phase_b/history.csv")
    assert history["val_accuracy"][0] == pytest.approx(_summary(chain, "a")["val_accuracy"])
    assert _summary(chain, "b")["val_accuracy"] == history["val_accuracy"].max()
    published = checkpoints.load(chain / "runs" / BEST)
    assert published.phase == "b"
    assert published.parent_digest == _summary(chain, "a")["weights_sha256"]


def test_a_phase_b_that_only_harms_publishes_phase_a_again(after_a: Path) -> None:
    longer = ["--phase", "a", "--epochs", "6", *LITE0, *dirs(after_a)]
    assert run(train, *longer) == 0  # as good as one class for all films, which is what harm leaves
    argv = ["--phase", "b", "--epochs", "1", "--lr", "0.5", *LITE0, *dirs(after_a)]
    assert run(train, *argv) == 0
    assert _summary(after_a, "b")["best_epoch"] == 0
    assert _summary(after_a, "b")["weights_sha256"] == _summary(after_a, "a")["weights_sha256"]


def test_the_same_seed_gives_the_same_weights_with_any_number_of_workers(
    root: Path, chain: Path
) -> None:
    assert _train(root, "a", "--workers", "5") == 0
    assert _summary(root, "a")["weights_sha256"] == _summary(chain, "a")["weights_sha256"]


def test_another_seed_gives_other_weights(root: Path, chain: Path) -> None:
    assert _train(root, "a", "--seed", "1") == 0
    assert _summary(root, "a")["weights_sha256"] != _summary(chain, "a")["weights_sha256"]


@pytest.mark.parametrize("phase", ["a", "b"])
@pytest.mark.parametrize("after_batches", [1, 3])
def test_stopped_inside_an_epoch_it_goes_on_from_the_saved_batch_to_the_same_weights(
    request: pytest.FixtureRequest,
    chain: Path,
    monkeypatch: pytest.MonkeyPatch,
    phase: str,
    after_batches: int,
) -> None:
    folder: Path = request.getfixturevalue("root" if phase == "a" else "after_a")
    real_step = Trainer._step
    done: list[int] = []

    def step(self: Trainer, *batch: torch.Tensor) -> tuple[float, torch.Tensor]:
        if len(done) == after_batches:
            raise StoppedBySignal(signal.SIGTERM)
        done.append(1)
        return real_step(self, *batch)

    monkeypatch.setattr(Trainer, "_step", step)
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_SAVES", 0.0)
    assert _train(folder, phase) == 143
    monkeypatch.undo()
    steps: list[int] = []

    def count_step(self: Trainer, *batch: torch.Tensor) -> tuple[float, torch.Tensor]:
        steps.append(1)
        return real_step(self, *batch)

    monkeypatch.setattr(Trainer, "_step", count_step)
    assert _train(folder, phase) == 0
    total = len(pd.read_csv(chain / "runs/phase_a/history.csv")) * -(-_films(chain, "train") // 32)
    assert len(steps) == total - after_batches
    assert _summary(folder, phase)["weights_sha256"] == _summary(chain, phase)["weights_sha256"]
    histories = [
        pd.read_csv(where / f"runs/phase_{phase}/history.csv") for where in (folder, chain)
    ]
    ours, wanted = (history.drop(columns="seconds") for history in histories)
    pd.testing.assert_frame_equal(ours, wanted, check_exact=True)


def _films(root: Path, name: str) -> int:
    return sum(row.split == name for row in read_split(root / "data"))


@pytest.mark.parametrize("phase", ["a", "b"])
def test_killed_with_kill_9_and_run_again_it_ends_with_the_same_weights(
    request: pytest.FixtureRequest, chain: Path, phase: str
) -> None:
    folder: Path = request.getfixturevalue("root" if phase == "a" else "after_a")
    argv = ["--phase", phase, "--epochs", "2", *LITE0, *dirs(folder)]
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs.train", *argv], env=environment(), cwd=folder
    )
    deadline = time.monotonic() + 120
    while (
        not _has_a_trained_epoch(folder / f"runs/phase_{phase}/history.csv")
        and time.monotonic() < deadline
    ):
        time.sleep(0.01)
    process.kill()
    assert process.wait(30) == -signal.SIGKILL
    assert not (folder / f"runs/phase_{phase}/summary.json").exists()
    assert _train(folder, phase) == 0
    assert _summary(folder, phase)["weights_sha256"] == _summary(chain, phase)["weights_sha256"]


def _has_a_trained_epoch(history: Path) -> bool:
    return history.exists() and pd.read_csv(history)["epoch"].max() >= 1


def test_a_finished_run_is_not_run_again_unless_asked(
    after_a: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (after_a / "runs/phase_a/history.csv").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "resume_or_start", lambda *_: pytest.fail("trained"))
        assert _train(after_a, "a") == 0
    assert _train(after_a, "a", "--restart") == 0
    assert (after_a / "runs/phase_a.previous/history.csv").read_bytes() == before


def test_changed_settings_start_anew_and_keep_the_earlier_run_aside(after_a: Path) -> None:
    earlier = _summary(after_a, "a")
    assert _train(after_a, "a", "--lr", "1e-3") == 0
    assert _summary(after_a, "a") != earlier
    assert json.loads((after_a / "runs/phase_a.previous/summary.json").read_text()) == earlier


def test_a_second_phase_b_starts_from_phase_a_not_from_the_first(after_a: Path) -> None:
    assert _train(after_a, "b") == 0
    first = _summary(after_a, "b")["weights_sha256"]
    assert _train(after_a, "b", "--restart") == 0
    assert _summary(after_a, "b")["weights_sha256"] == first


def test_phase_b_goes_on_from_a_checkpoint_that_came_alone_and_repeats_itself(
    chain: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").symlink_to((chain / "data").resolve())
    (tmp_path / "runs").mkdir()
    shutil.copy(chain / "runs/phase_a" / BEST, tmp_path / "runs" / BEST)
    assert _train(tmp_path, "b") == 0
    assert _summary(tmp_path, "b")["weights_sha256"] == _summary(chain, "b")["weights_sha256"]
    assert _train(tmp_path, "b", "--restart") == 0
    assert _summary(tmp_path, "b")["weights_sha256"] == _summary(chain, "b")["weights_sha256"]


def test_a_checkpoint_of_another_split_is_refused(
    tmp_path: Path, chain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree((chain / "data").resolve(), tmp_path / "data")
    shutil.copytree(chain / "runs" / "phase_a", tmp_path / "runs" / "phase_a")
    shutil.copy(chain / "runs/phase_a" / BEST, tmp_path / "runs" / BEST)
    run(
        split,
        "--seed",
        "5",
        "--val_fraction",
        "0.15",
        "--test_fraction",
        "0.15",
        "--data_dir",
        tmp_path / "data",
    )
    assert _train(tmp_path, "b") == 1
    assert "another split" in capsys.readouterr().err


def test_a_split_that_changes_during_the_training_stops_the_publication(
    tmp_path: Path, ready: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ready / "data", tmp_path / "data")
    real_run = Trainer.resume_or_start

    def change_and_run(self: Trainer) -> list[EpochScores]:
        with open(tmp_path / "data/split.csv", "a") as file:
            file.write("\n")
        return real_run(self)

    monkeypatch.setattr(Trainer, "resume_or_start", change_and_run)
    assert _train(tmp_path, "a") == 1
    assert "changed during the training" in capsys.readouterr().err
    assert not (tmp_path / "runs" / BEST).exists()


def test_failed_attempts_do_not_cost_a_finished_run(
    after_a: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = _summary(after_a, "a")
    monkeypatch.setattr(loop, "class_weights", lambda *_: torch.full((3,), float("nan")))
    for lr in ("0.01", "0.02", "0.03"):
        assert _train(after_a, "a", "--lr", lr) == 1
    assert json.loads((after_a / "runs/phase_a.previous/summary.json").read_text()) == finished


def test_sigterm_between_batches_saves_the_batch(
    root: Path, chain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real signal, sent by the process to itself inside the second batch."""
    real_step, done = Trainer._step, []

    def step(self: Trainer, *batch: torch.Tensor) -> tuple[float, torch.Tensor]:
        done.append(1)
        if len(done) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real_step(self, *batch)

    monkeypatch.setattr(Trainer, "_step", step)
    assert _train(root, "a") == 143
    assert checkpoints.load_state(root / "runs/phase_a/last.pt")["progress"]["step"] == 2
    monkeypatch.undo()
    assert _train(root, "a") == 0
    assert _summary(root, "a")["weights_sha256"] == _summary(chain, "a")["weights_sha256"]


def test_a_loss_that_is_no_number_stops_with_the_reason_and_keeps_the_best(
    after_a: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "class_weights", lambda *_: torch.full((3,), float("nan")))
    assert _train(after_a, "b") == 1
    assert "try --lr" in capsys.readouterr().err
    assert checkpoints.load(after_a / "runs" / BEST).phase == "a"


def _delete_class(data: Path) -> None:
    shutil.rmtree(data / "train" / "NORMAL")


def _delete_film(data: Path) -> None:
    next((data / "train" / "NORMAL").iterdir()).unlink()


def _add_film(data: Path) -> None:
    (data / "val" / "NORMAL" / "extra.png").touch()


def _delete_split(data: Path) -> None:
    (data / "split.csv").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_delete_class, "disagree"),
        (_delete_film, "disagree"),
        (_add_film, "extra.png"),
        (_delete_split, "make split"),
    ],
)
def test_data_that_do_not_match_the_split_are_refused(
    tmp_path: Path,
    ready: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    message: str,
) -> None:
    shutil.copytree(ready / "data", tmp_path / "data")
    damage(tmp_path / "data")
    assert _train(tmp_path, "a") == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs" / BEST).exists()


def test_a_class_missing_from_the_training_set_is_refused_by_name(
    tmp_path: Path, ready: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ready / "data", tmp_path / "data")
    table = pd.read_csv(tmp_path / "data/split.csv", keep_default_na=False)
    table = table[~((table["label"] == "NORMAL") & (table["split"] == "train"))]
    table.to_csv(tmp_path / "data/split.csv", index=False)
    assert _train(tmp_path, "a") == 1
    assert "no film of NORMAL" in capsys.readouterr().err


def test_phase_b_without_phase_a_says_what_to_run(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(root, "b") == 1
    assert "make train-a" in capsys.readouterr().err


def test_a_checkpoint_of_another_backbone_or_of_other_classes_is_refused(
    after_a: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = after_a / "runs" / BEST
    argv = ["--phase", "b", "--checkpoint_path", given, *dirs(after_a)]
    assert run(train, *argv, "--backbone", "resnet18") == 1
    assert "holds efficientnet_lite0" in capsys.readouterr().err


def test_contradicting_flags_are_wrong_usage(root: Path) -> None:
    assert _train(root, "a", "--checkpoint_path", "x.pt") == 2
    assert _train(root, "b", "--nofreeze_backbone", "--fine_tune_last_block") == 2
    assert _train(root, "a", "--cache", "off", "--precision", "bf16") == 2
    assert _train(root, "a", "--nofreeze_backbone", "--precision", "bf16") == 2
    assert not (root / "runs").exists()


def test_bf16_in_the_environment_is_refused_without_a_cache_and_a_flag_overrides_it(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRECISION", "bf16")
    assert _train(root, "a", "--cache", "off") == 2
    assert "PRECISION=bf16 in the environment" in capsys.readouterr().err
    assert (
        run(
            train,
            "--phase",
            "a",
            "--epochs",
            "1",
            "--cache",
            "off",
            "--precision",
            "fp32",
            *LITE0,
            *dirs(root),
        )
        == 0
    )
    config = json.loads((root / "runs/phase_a/config.json").read_text())
    assert config["plan"]["precision"] == "fp32"


def test_a_new_split_makes_a_new_run(tmp_path: Path, chain: Path) -> None:
    shutil.copytree((chain / "data").resolve(), tmp_path / "data")
    shutil.copytree(chain / "runs", tmp_path / "runs")
    assert (
        run(
            split,
            "--seed",
            "5",
            "--val_fraction",
            "0.15",
            "--test_fraction",
            "0.15",
            "--data_dir",
            tmp_path / "data",
        )
        == 0
    )
    assert _train(tmp_path, "a") == 0
    assert _summary(tmp_path, "a")["weights_sha256"] != _summary(chain, "a")["weights_sha256"]
