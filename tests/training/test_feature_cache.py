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
from lib.network.choices import Phase, PrecisionChoice, Tap
from lib.network.taps import write_taps
from lib.run.errors import JobError, LockedError
from lib.storage import atomic
from lib.training import activation_store
from lib.training.activation_store import ActivationStore, delete_shard
from lib.training.augmentation import augment
from lib.training.batches import Batches, CachedBatches, batches_of
from lib.training.cache_room import fill_cache, free_room, make_room, views_that_fit
from lib.training.feature_cache import CacheKey, FrozenFeatures, View, Wanted
from lib.training.films import FilmReader, Part, SplitFilms, TrainingFilm
from lib.training.machines import Machines
from lib.training.plan import Augmentation, Overrides, plan_of
from tests.conftest import LITE0, dirs, environment, film, run
from tests.training.plans import SETTINGS

ROW = BACKBONES["efficientnet_lite0"]
Make = Callable[..., FrozenFeatures]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("graphs")
    write_taps(folder, backbones.build(ROW, 3, weights._packaged_file(ROW)), ROW)
    return folder


@pytest.fixture
def make(tmp_path: Path, graphs: Path) -> Make:
    """FrozenFeatures of 150 training and 3 validation films below a cache of the test's own."""
    files = [film(tmp_path / "films" / f"{seed}.png", seed=seed) for seed in range(7)]
    films: dict[Part, list[TrainingFilm]] = {
        "train": [TrainingFilm(files[i % 7], i % 3, f"{i:064x}") for i in range(150)],
        "val": [TrainingFilm(path, 0, f"{i:064x}") for i, path in enumerate(files[:3], 1000)],
    }

    def write_graphs(folder: Path) -> None:
        shutil.copytree(graphs, folder, dirs_exist_ok=True)

    def build(cores: int = 2, readers: int = 2, **changes: Any) -> FrozenFeatures:
        key = CacheKey(ROW.name, FilmReader(224), Augmentation(), 0, "weights", "fp32", "setup")
        machines = Machines(cpus=cores, workers=readers)
        return FrozenFeatures(
            [tmp_path / "cache"], replace(key, **changes), films, write_graphs, machines
        )

    return build


def _fill(source: FrozenFeatures, part: Part, *views: View) -> None:
    source.fill(Wanted(source.films[part], views), "filling")


def _all(source: FrozenFeatures, view: int = 1, tap: Tap = "pooled") -> np.ndarray:
    return np.concatenate(
        [rows.numpy() for rows, _ in source.batches("train", range(150), 32, view, tap)]
    )


def _count_reads(monkeypatch: pytest.MonkeyPatch) -> list[TrainingFilm]:
    """The films that are read from now on, as they are read."""
    films: list[TrainingFilm] = []
    real = FilmReader.read

    def read(self: FilmReader, film: TrainingFilm) -> np.ndarray:
        films.append(film)
        return real(self, film)

    monkeypatch.setattr(FilmReader, "read", read)
    return films


def test_cached_and_streamed_activations_agree_to_fp16(make: Make) -> None:
    frozen = make()
    streamed = _all(frozen)
    _fill(frozen, "train", (1, "pooled"))
    cached = _all(frozen)
    assert cached == pytest.approx(streamed, rel=1e-3, abs=1e-4)
    order = [149, 3, 77]
    rows, targets = next(frozen.batches("train", order, 3, 1, "pooled"))
    assert np.array_equal(rows.numpy(), cached[order])
    assert targets.tolist() == [index % 3 for index in order]


def test_views_differ_and_view_0_is_the_film_as_it_is(make: Make) -> None:
    frozen = make()
    _fill(frozen, "train", (0, "pooled"), (1, "pooled"), (2, "pooled"))
    plain, first, second = (_all(frozen, view) for view in range(3))
    assert not np.array_equal(first, second)
    assert np.array_equal(plain[0], plain[7])  # the same file twice
    assert not np.array_equal(first[0], first[7])


def test_a_view_of_an_epoch_is_that_of_the_classic_way(make: Make) -> None:
    frozen = make()
    grey = frozen.key.reader.read(frozen.films["train"][5])
    view = augment(grey, Augmentation(), 0, 3, frozen.films["train"][5].number)
    wanted = next(frozen.graph.stream([(0, view)]))[1]
    assert wanted is not None
    assert _all(frozen, 3)[5] == pytest.approx(wanted[1], rel=1e-6)


def test_both_taps_come_from_one_pass_and_films_are_decoded_once(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen, read = make(), _count_reads(monkeypatch)
    _fill(frozen, "train", (1, "pooled"), (2, "pooled"), (1, "cut"))
    assert len(read) == 150
    _fill(frozen, "train", (1, "pooled"), (2, "pooled"), (1, "cut"))
    assert len(read) == 150
    _fill(frozen, "train", (1, "cut"), (2, "cut"))  # only view 2 is missing
    assert len(read) == 300
    assert not frozen.rows_of("train", (2, "cut")).missing


def test_an_interrupted_filling_keeps_whole_chunks_and_goes_on_to_the_same_bits(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(seed=0)
    _fill(whole, "train", (1, "pooled"))
    wanted = _all(whole)
    shutil.rmtree(whole.folder)
    interrupted = make(cores=1, readers=1)
    read: list[TrainingFilm] = []
    real = FilmReader.read

    def read_film(self: FilmReader, film: TrainingFilm) -> np.ndarray:
        read.append(film)
        if len(read) == 100:
            raise KeyboardInterrupt
        return real(self, film)

    monkeypatch.setattr(FilmReader, "read", read_film)
    with pytest.raises(KeyboardInterrupt):
        _fill(interrupted, "train", (1, "pooled"))
    again = make(cores=1)
    assert again.rows_of("train", (1, "pooled")).missing == [*range(64, 150)]
    monkeypatch.setattr(FilmReader, "read", real)
    read = _count_reads(monkeypatch)
    _fill(again, "train", (1, "pooled"))
    assert len(read) == 150 - 64
    assert np.array_equal(_all(again), wanted)


@pytest.mark.parametrize(
    "change",
    [
        {"weights_sha256": "x"},
        {"augmentation": Augmentation(acquisition=None)},
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


def test_another_split_of_the_same_films_computes_nothing_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make()
    _fill(first, "train", (1, "pooled"))
    one_by_one = _all(first)
    second, read = make(), _count_reads(monkeypatch)
    new = TrainingFilm(second.films["train"][0].path, 0, "f" * 64)
    second.films = {"train": [new, *reversed(second.films["train"][20:])], "val": []}
    _fill(second, "train", (1, "pooled"))
    assert read == [new]
    rows = second.rows_of("train", (1, "pooled"))
    assert np.array_equal(rows.read(range(1, 131))[:, :, 0, 0], one_by_one[:19:-1, :, 0, 0])


def test_what_a_folder_for_reading_has_is_not_computed_again(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = make()
    _fill(kept, "val", (0, "pooled"))
    layered = make()
    layered.folders = [tmp_path / "own" / kept.folder.name, kept.folder]
    layered.folder = layered.folders[0]
    films = [*kept.films["val"], *kept.films["train"][:1]]
    read = _count_reads(monkeypatch)
    layered.fill(Wanted(films, [(0, "pooled")]), "filling")
    assert read == films[3:]
    rows = layered.locate(films, (0, "pooled")).read(range(4))  # of two shards
    assert np.array_equal(rows[:3], kept.rows_of("val", (0, "pooled")).read(range(3)))


KEYS = [bytes([number]) * 32 for number in range(100)]


def _stored(folder: Path, begin: int, end: int, value: float = 1.0) -> ActivationStore:
    """A store of rows of four numbers, with those of some of KEYS appended."""
    folder.mkdir(exist_ok=True)
    store = ActivationStore([folder], "001_cut", (4,))
    shard = store.writer(end - begin)
    shard.append(KEYS[begin:end], np.full((end - begin, 4), value, np.float16))
    shard.sync()
    return store


def test_rows_without_keys_and_keys_without_rows_count_for_nothing(tmp_path: Path) -> None:
    store = _stored(tmp_path, 0, 40)
    assert store.locate(KEYS).missing == [*range(40, 100)]
    shard = store.writer(60)  # appends, never syncs: killed
    shard.append(KEYS[40:], np.full((60, 4), 2.0, np.float16))
    assert store.locate(KEYS).missing == [*range(40, 100)]
    with open(tmp_path / "001_cut_000001.keys", "ab") as file:
        file.write(KEYS[40][:20])  # torn
    _stored(tmp_path, 40, 100, 3.0)
    assert store.locate(KEYS).read([39, 40, 99])[:, 0].tolist() == [1, 3, 3]
    os.truncate(tmp_path / "001_cut_000001.f16", 50 * 8)  # damaged
    assert store.locate(KEYS).missing == [*range(50, 100)]
    store.writer(50)
    assert store.locate(KEYS).missing == [*range(50, 100)]


def test_a_film_that_is_not_stored_never_gets_the_row_of_another(tmp_path: Path) -> None:
    rows = _stored(tmp_path, 0, 40).locate(KEYS)
    with pytest.raises(JobError, match="lacks 1 of 2 films"):
        rows.read([39, 40])


def test_a_large_shard_is_followed_by_another_and_both_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activation_store, "SHARD_FILMS", 30)
    store = _stored(tmp_path, 0, 20)
    _stored(tmp_path, 20, 40)  # joins the first
    _stored(tmp_path, 40, 50, 2.0)
    rows = store.locate(KEYS[:50])
    assert [len(shard.keys) for shard in rows.used] == [40, 10]
    assert rows.read([45, 0, 39, 41])[:, 0].tolist() == [2, 1, 1, 2]
    delete_shard(rows.used[0].path)
    assert rows.read([0])[0, 0] == 1  # a reader keeps what it has opened
    assert store.locate(KEYS[:50]).missing == [*range(40)]


def test_a_second_run_that_fills_the_same_cache_is_turned_away(make: Make) -> None:
    frozen = make()
    with atomic.lock(frozen.folder, "x"), pytest.raises(LockedError):
        _fill(frozen, "val", (0, "pooled"))


def test_of_two_runs_that_make_the_same_graphs_at_once_both_have_them(make: Make) -> None:
    first, second = make(), make()
    write = first._write_graphs

    def write_while_the_second_does(folder: Path) -> None:
        write(folder)
        assert second.graphs.is_dir()

    first._write_graphs = write_while_the_second_does
    assert first.graphs == second.graphs
    assert first.graph.threads
    assert [path.name for path in first.folder.iterdir()] == ["graphs"]


def test_graphs_that_fail_leave_nothing_and_what_a_kill_left_makes_room(make: Make) -> None:
    frozen = make()

    def fail(folder: Path) -> None:
        (folder / "fp32.xml").write_text("half")
        raise OSError(28, "No space left on device")

    frozen._write_graphs = fail
    with pytest.raises(OSError, match="No space left"):
        _ = frozen.graphs
    assert not list(frozen.folder.iterdir())
    killed, alive = (frozen.folder / f".graphs-{name}.partial" for name in ("killed", "alive"))
    for path in (killed, alive):
        path.mkdir()
        (path / "fp32.bin").write_bytes(bytes(100_000))
    os.utime(killed, (1000, 1000))
    make_room(make(), [Wanted([], [])], 1e-9)
    assert not killed.exists()
    assert alive.exists()


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
    assert views_that_fit([100] * 4, 100, room, memory) == views


def test_a_run_that_began_without_views_goes_on_without_them_though_there_is_room_now(
    make: Make,
) -> None:
    frozen = make()
    plan = plan_of("a", Overrides(epochs=2), **SETTINGS)
    assert fill_cache(frozen, plan, 0, 1000.0) == 0
    assert not list(frozen.folder.glob("*.f16"))


def test_views_that_are_there_need_no_room() -> None:
    assert views_that_fit([0, 0, 100, 100], 100, -5, 10_000) == 2


def test_room_is_made_by_deleting_what_was_unused_for_longest(tmp_path: Path) -> None:
    def paths() -> list[str]:
        return sorted(path.name for path in tmp_path.glob("[!.]*"))

    (tmp_path / "other").mkdir()
    for name in ("other/x", "old.f16", "old.keys", "young.f16"):
        (tmp_path / name).write_bytes(bytes(3_000_000))
    for age, name in enumerate(("other", "old.f16", "young.f16")):
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    deletable = [tmp_path / name for name in ("young.f16", "old.f16", "other")]
    assert free_room(tmp_path, deletable, 0, 0.013) == pytest.approx(1_000_000, abs=10_000)
    assert free_room(tmp_path, deletable, 3_000_000, 0.013) == pytest.approx(4e6, abs=10_000)
    assert paths() == ["old.f16", "old.keys", "young.f16"]
    assert free_room(tmp_path, deletable[:2], 5_000_000, 0.013) == pytest.approx(7e6, abs=10_000)
    assert paths() == ["young.f16"]


def test_what_another_run_is_writing_is_not_deleted_to_make_room(tmp_path: Path) -> None:
    others, own = [tmp_path / name for name in ("busy", "idle")], tmp_path / "own"
    for path in (*(folder / "001_cut_000001.f16" for folder in others), own / "old.f16"):
        path.parent.mkdir()
        path.write_bytes(bytes(3_000_000))
    deletable = [*others, own / "old.f16"]
    with atomic.lock(others[0], "x"), atomic.lock(own, "x"):
        assert free_room(tmp_path, deletable, 9_000_000, 0.009) == pytest.approx(3e6, abs=30_000)
    assert sorted(path.name for path in tmp_path.rglob("*.f16")) == [
        "001_cut_000001.f16",
        "old.f16",
    ]
    assert free_room(tmp_path, [others[0], own / "old.f16"], 9_000_000, 0.009) > 8_900_000
    assert not list(tmp_path.rglob("*.f16"))


def test_shards_of_wanted_films_stay_where_others_are_deleted(make: Make) -> None:
    frozen = make()
    _fill(frozen, "val", (0, "pooled"), (0, "cut"))
    _fill(frozen, "train", (1, "pooled"))
    wanted = Wanted(frozen.films["val"], [(0, "pooled"), (1, "cut")])
    make_room(frozen, [wanted], 1e-9)
    assert not frozen.locate(frozen.films["val"], (0, "pooled")).missing
    assert sorted(path.name for path in frozen.folder.glob("*.f16")) == ["000_pooled_000001.f16"]


def _history(root: Path, phase: str) -> pd.DataFrame:
    return pd.read_csv(root / "runs" / f"phase_{phase}" / "history.csv")


@pytest.mark.parametrize("phase", ["a", "b"])
def test_cache_on_and_off_see_the_same_batches_in_fp32(
    ready: Path, tmp_path: Path, phase: Phase
) -> None:
    """That equal batches have equal losses is held by test_golden_losses.py."""
    split = SplitFilms.read(ready / "data")
    films: dict[Part, list[TrainingFilm]] = {
        "train": list(split.films["train"][::6]),
        "val": list(split.films["val"][:3]),
    }
    split = replace(split, data_dir=tmp_path, films=films)
    sources = []
    for cache, views in ((True, 2), (False, None)):
        settings = {**SETTINGS, "backbone": ROW.name, "crop": "lungs"}
        precision: PrecisionChoice = "fp32"
        plan = plan_of(
            phase, Overrides(epochs=2), cache=cache, views=views, precision=precision, **settings
        )
        torch.manual_seed(0)
        network = backbones.build(ROW, 3, weights._packaged_file(ROW))
        machines = Machines(cpus=1)
        sources.append(batches_of(plan, network, split, machines, views))
    on, off = sources
    order = [5, 0, 3]
    for epoch in (1, 2):
        _require_same(on.train(order, 2, epoch), off.train(order, 2, epoch), phase)
    _require_same(on.val(), off.val(), phase)


def _require_same(cached: Batches, live: Batches, phase: Phase) -> None:
    for (stored, targets), (computed, others) in zip(cached, live, strict=True):
        if phase == "a":  # stored behind the pooling, which is part of the head otherwise
            computed = computed.mean((2, 3), keepdim=True)
        assert stored.numpy() == pytest.approx(computed.numpy(), rel=2e-3, abs=2e-3)
        assert targets.tolist() == others.tolist()


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
                not list(root.glob("data/cache/features/*/001_*.f16"))
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
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = make()
    _fill(frozen, "val", (0, "pooled"))
    full = shutil.disk_usage(frozen.folder)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    wanted = Wanted(frozen.films["val"], [(0, "pooled")])
    assert make_room(frozen, [wanted], 0) < 0
    assert not frozen.locate(frozen.films["val"], (0, "pooled")).missing


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
