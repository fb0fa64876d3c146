"""The feature cache: cached and computed activations agree; kills, small disks, other settings."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from jobs import train
from lib.network import backbones, graph, weights
from lib.network.backbones import BACKBONES
from lib.network.choices import Tap
from lib.network.taps import write_taps
from lib.run.errors import LockedError
from lib.storage import atomic
from lib.training.activation_file import ActivationFile
from lib.training.augmentation import augment
from lib.training.batches import CachedBatches
from lib.training.cache_room import make_room, views_that_fit
from lib.training.feature_cache import CacheKey, FrozenFeatures
from lib.training.films import FilmReader, LabelledFilm, Part
from lib.training.machines import Machines
from lib.training.plan import Augmentation
from tests.conftest import LITE0, dirs, environment, film, run

ROW = BACKBONES["efficientnet_lite0"]
Make = Callable[..., FrozenFeatures]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("graphs")
    write_taps(folder, backbones.build(ROW, 3, weights._packaged_file(ROW)), ROW, [])
    return folder


@pytest.fixture
def make(tmp_path: Path, graphs: Path) -> Make:
    """FrozenFeatures of 150 training and 3 validation films below a cache of the test's own."""
    files = [film(tmp_path / "films" / f"{seed}.png", seed=seed) for seed in range(7)]
    films: dict[Part, list[LabelledFilm]] = {
        "train": [LabelledFilm(files[i % 7], i % 3) for i in range(150)],
        "val": [LabelledFilm(path, 0) for path in files[:3]],
    }

    def write_graphs(folder: Path) -> None:
        shutil.copytree(graphs, folder, dirs_exist_ok=True)

    def build(cores: int = 2, readers: int = 2, **changes: Any) -> FrozenFeatures:
        key = CacheKey(
            ROW.name, FilmReader(224), Augmentation(), 0, "split", "weights", "fp32", "setup"
        )
        machines = Machines(cpus=cores, workers=readers)
        return FrozenFeatures(
            tmp_path / "cache", replace(key, **changes), films, write_graphs, machines
        )

    return build


def _all(source: FrozenFeatures, view: int = 1, tap: Tap = "pooled") -> np.ndarray:
    return np.concatenate(
        [rows.numpy() for rows, _ in source.batches("train", range(150), 32, view, tap)]
    )


def _count_reads(monkeypatch: pytest.MonkeyPatch) -> list[LabelledFilm]:
    """The films that are read from now on, as they are read."""
    films: list[LabelledFilm] = []
    real = FilmReader.read

    def read(self: FilmReader, film: LabelledFilm) -> np.ndarray:
        films.append(film)
        return real(self, film)

    monkeypatch.setattr(FilmReader, "read", read)
    return films


def test_cached_and_streamed_activations_agree_to_fp16(make: Make) -> None:
    frozen = make()
    streamed = _all(frozen)
    frozen.fill("train", [(1, "pooled")], "filling")
    cached = _all(frozen)
    assert cached == pytest.approx(streamed, rel=1e-3, abs=1e-4)
    order = [149, 3, 77]
    rows, targets = next(frozen.batches("train", order, 3, 1, "pooled"))
    assert np.array_equal(rows.numpy(), cached[order])
    assert targets.tolist() == [index % 3 for index in order]


def test_views_differ_and_view_0_is_the_film_as_it_is(make: Make) -> None:
    frozen = make()
    frozen.fill("train", [(0, "pooled"), (1, "pooled"), (2, "pooled")], "filling")
    plain, first, second = (_all(frozen, view) for view in range(3))
    assert not np.array_equal(first, second)
    assert np.array_equal(plain[0], plain[7])  # the same file twice
    assert not np.array_equal(first[0], first[7])


def test_a_view_of_an_epoch_is_that_of_the_classic_way(make: Make) -> None:
    frozen = make()
    grey = frozen.key.reader.read(frozen.films["train"][5])
    view = augment(grey, Augmentation(), 0, 3, 5)
    wanted = next(frozen.graph.stream([(0, view)]))[1]
    assert wanted is not None
    assert _all(frozen, 3)[5] == pytest.approx(wanted[1], rel=1e-6)


def test_both_taps_come_from_one_pass_and_films_are_decoded_once(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen, read = make(), _count_reads(monkeypatch)
    frozen.fill("train", [(1, "pooled"), (2, "pooled"), (1, "cut")], "filling")
    assert len(read) == 150
    frozen.fill("train", [(1, "pooled"), (2, "pooled"), (1, "cut")], "filling")
    assert len(read) == 150
    frozen.fill("train", [(1, "cut"), (2, "cut")], "filling")  # only view 2 is missing
    assert len(read) == 300
    assert frozen.file_of("train", 2, "cut").is_whole


def test_an_interrupted_filling_keeps_whole_chunks_and_goes_on_to_the_same_bits(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(seed=0)
    whole.fill("train", [(1, "pooled")], "filling")
    wanted = _all(whole)
    shutil.rmtree(whole.folder)
    interrupted = make(cores=1, readers=1)
    read: list[LabelledFilm] = []
    real = FilmReader.read

    def read_film(self: FilmReader, film: LabelledFilm) -> np.ndarray:
        read.append(film)
        if len(read) == 100:
            raise KeyboardInterrupt
        return real(self, film)

    monkeypatch.setattr(FilmReader, "read", read_film)
    with pytest.raises(KeyboardInterrupt):
        interrupted.fill("train", [(1, "pooled")], "filling")
    again = make(cores=1)
    assert again.file_of("train", 1, "pooled").marks.tolist() == [1, 0, 0]
    monkeypatch.setattr(FilmReader, "read", real)
    read = _count_reads(monkeypatch)
    again.fill("train", [(1, "pooled")], "filling")
    assert len(read) == 150 - 64
    assert np.array_equal(_all(again), wanted)


@pytest.mark.parametrize(
    "change",
    [
        {"weights_sha256": "x"},
        {"split_sha256": "x"},
        {"seed": 1},
        {"precision": "bf16"},
        {"setup": "x"},
        {"reader": FilmReader(240)},
        {"reader": FilmReader(224, "digest")},
    ],
)
def test_everything_that_an_activation_depends_on_is_part_of_the_key(
    make: Make, change: dict[str, Any]
) -> None:
    assert make().folder != make(**change).folder
    assert make().folder == make().folder


def test_the_key_without_crop_and_acquisition_is_that_of_earlier_versions(make: Make) -> None:
    key = replace(make().key, augmentation=Augmentation(acquisition=None))
    assert key.folder_name == "2c4d41fe792225e614f8"


def test_a_truncated_file_counts_for_nothing(tmp_path: Path) -> None:
    file = ActivationFile(tmp_path / "a.f16", 100, (4,))
    file.write(0, np.ones((64, 4), np.float16))
    file.write(1, np.full((36, 4), 2.0, np.float16))
    file.sync()
    assert ActivationFile(tmp_path / "a.f16", 100, (4,)).is_whole
    assert ActivationFile(tmp_path / "a.f16", 100, (4,)).rows[[0, 99], 0].tolist() == [1, 2]
    os.truncate(tmp_path / "a.f16", 500)
    again = ActivationFile(tmp_path / "a.f16", 100, (4,))
    assert not again.marks.any()
    again.write(0, np.ones((64, 4), np.float16))
    again.write(1, np.ones((36, 4), np.float16))
    again.sync()
    assert ActivationFile(tmp_path / "a.f16", 100, (4,)).rows[99, 0] == 1


def test_a_second_run_that_fills_the_same_cache_is_turned_away(make: Make) -> None:
    frozen = make()
    with atomic.lock(frozen.folder, "x"), pytest.raises(LockedError):
        frozen.fill("val", [(0, "pooled")], "filling")


def test_epochs_use_the_views_in_turn_or_a_fresh_one_each(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    frozen = make()
    monkeypatch.setattr(frozen, "batches", lambda part, order, size, view, tap: asked.append(view))
    for epoch in range(1, 6):
        CachedBatches(frozen, "pooled", 3).train([0], 1, epoch)
    for epoch in range(1, 4):
        CachedBatches(frozen, "pooled", 0).train([0], 1, epoch)
    assert asked == [1, 2, 3, 1, 2, 1, 2, 3]


@pytest.mark.parametrize(
    ("room", "memory", "views"),
    [
        (1000, 10_000, 4),
        (250, 10_000, 2),
        (1000, 400, 2),
        (1000, 10, 1),
        (99, 10_000, 0),
        (-5, 1, 0),
    ],
)
def test_views_are_as_many_as_epochs_disk_and_memory_allow(
    room: int, memory: int, views: int
) -> None:
    assert views_that_fit(4, 100, room, memory) == views


def test_room_is_made_by_deleting_what_was_unused_for_longest(tmp_path: Path) -> None:
    for age, name in enumerate(("old", "young")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_bytes(bytes(3_000_000))
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    assert make_room(tmp_path, tmp_path / "new", 0.010) == pytest.approx(7_000_000, abs=10_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "young"]


def _history(root: Path, phase: str) -> pd.DataFrame:
    return pd.read_csv(root / "runs" / f"phase_{phase}" / "history.csv")


def test_cache_on_and_off_have_the_same_losses_in_fp32(ready: Path, tmp_path: Path) -> None:
    for name, more in (
        ("on", ["--views", "2", "--precision", "fp32"]),
        ("off", ["--cache", "off"]),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").symlink_to((ready / "data").resolve())
        for phase in "ab":
            assert (
                run(train, "--phase", phase, "--epochs", "2", *more, *LITE0, *dirs(tmp_path / name))
                == 0
            )
    for phase in "ab":
        on, off = _history(tmp_path / "on", phase), _history(tmp_path / "off", phase)
        for column in ("train_loss", "val_loss"):
            assert on[column].to_numpy() == pytest.approx(
                off[column].to_numpy(), abs=1e-3, nan_ok=True
            )


def test_phase_b_computes_nothing_again_that_phase_a_has_seen(
    ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ready / "data", tmp_path / "data", ignore=shutil.ignore_patterns("features"))
    argv = [*LITE0, *dirs(tmp_path), "--epochs", "2"]
    assert run(train, "--phase", "a", *argv) == 0
    monkeypatch.setattr(FrozenFeatures, "_stream", lambda *_: pytest.fail("computed again"))
    assert run(train, "--phase", "b", *argv) == 0


def test_on_a_disk_without_room_the_frozen_layers_run_in_every_epoch(
    ready: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ready / "data", tmp_path / "data", ignore=shutil.ignore_patterns("features"))
    argv = ["--phase", "a", "--epochs", "2", *LITE0, *dirs(tmp_path)]
    assert run(train, *argv, "--cache_gb", "0.000001") == 0
    assert "no view of the films fits" in capsys.readouterr().out
    streamed = _history(tmp_path, "a")
    assert run(train, *argv, "--views", "2", "--restart") == 0
    assert streamed["train_loss"].to_numpy() == pytest.approx(
        _history(tmp_path, "a")["train_loss"].to_numpy(), abs=1e-3
    )
    assert run(train, *argv, "--views", "3", "--cache_gb", "0.000001") == 1
    assert "give fewer --views" in capsys.readouterr().err


def test_killed_while_the_cache_is_filled_the_same_command_ends_with_the_same_weights(
    ready: Path, tmp_path: Path
) -> None:
    digests = []
    for name in ("whole", "killed"):
        root = tmp_path / name
        shutil.copytree(ready / "data", root / "data", ignore=shutil.ignore_patterns("features"))
        argv = ["--phase", "a", "--epochs", "2", *LITE0, *dirs(root)]
        if name == "killed":
            process = subprocess.Popen(
                [sys.executable, "-m", "jobs.train", *argv], env=environment(), cwd=root
            )
            deadline = time.monotonic() + 120
            while (
                not list(root.glob("data/cache/features/*/train_*.f16"))
                and time.monotonic() < deadline
            ):
                time.sleep(0.005)
            process.kill()
            assert process.wait(30) == -signal.SIGKILL
            assert not (root / "runs" / "phase_a" / "history.csv").exists()
        assert run(train, *argv) == 0
        digests.append((root / "runs" / "phase_a" / "summary.json").read_text())
    assert digests[0] == digests[1]


def test_setup_names_library_and_cpu() -> None:
    assert "openvino" in graph.runtime_fingerprint()


def test_activations_on_the_disk_may_stay_when_it_has_become_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "cache" / "key"
    own.mkdir(parents=True)
    (own / "train_001_cut.f16").write_bytes(b"0" * 5000)
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    assert make_room(own.parent, own, 0) == 5000


def test_a_read_only_data_folder_serves_while_its_cache_is_whole(
    ready: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(ready / "data", data, ignore=shutil.ignore_patterns("features"))
    mount = ["mount", "--bind", str(data), str(data)]
    if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a folder read-only")
    argv = ["--phase", "a", "--epochs", "1", *LITE0, *dirs(tmp_path)]
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(data)], check=True)
        assert run(train, *argv) == 1
        assert "cannot create" in capsys.readouterr().err
        assert run(train, *argv, "--cache", "off") == 0
        subprocess.run(["mount", "-o", "remount,rw,bind", str(data)], check=True)
        assert run(train, *argv) == 0
        subprocess.run(["mount", "-o", "remount,ro,bind", str(data)], check=True)
        assert run(train, *argv, "--restart") == 0
    finally:
        subprocess.run(["umount", str(data)], check=True)
