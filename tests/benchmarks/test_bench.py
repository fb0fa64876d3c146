"""Every part of the benchmark runs to its end on a handful of films: what nobody runs rots."""

import json
import math
from pathlib import Path

import pytest

from tests.benchmarks.bench import PARTS, TINY, measure
from tests.benchmarks.peers import compare
from tests.benchmarks.peers.packages import NotInstalled, folder_with
from tests.benchmarks.rows import Row, Skipped, at_least, markdown
from tests.benchmarks.work import PROJECT, Bench


@pytest.fixture(scope="module")
def films(phantom_films: Path) -> Path:
    return phantom_films


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.mark.parametrize("part", PARTS)
def test_a_part_runs_to_its_end(part: str, films: Path, target: Path) -> None:
    rows = measure(target, films, TINY, [part])
    assert rows
    # Differences of two times, as growth has them, may be negative on so few films.
    assert all(
        isinstance(row, Row) and math.isfinite(row.ours) and math.isfinite(row.theirs)
        for row in rows
    )
    assert len(json.loads((target / "bench.json").read_text())["rows"]) == len(rows)
    assert len((target / "bench.md").read_text().splitlines()) == 2 + len(rows)


@pytest.mark.parametrize("package", ["timm", "fastai", "ultralytics"])
def test_a_peer_answers_every_film(package: str, films: Path, target: Path) -> None:
    """fastai and ultralytics only where `make bench` has installed them for itself."""
    try:
        folder = folder_with(package, PROJECT / "runs" / "bench" / "peers", install=False)
    except NotInstalled as reason:
        pytest.skip(f"{reason}: make bench installs it")
    bench = Bench(target / "bench", films, TINY)
    bench.prepare()
    peer = next(peer for peer in compare.PREDICTION if peer.package == package)
    asked = bench.films_of("1024 px PNG", TINY.predicted_films)
    done = bench.script(peer.script, "predict", "--data", asked, packages=folder)
    assert done["films"] == TINY.predicted_films


def test_a_peer_that_no_index_has_is_skipped_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(NotInstalled, match="cannot be installed: ERROR") as error:
        folder_with("ultralytics", tmp_path, install=True)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_the_table_says_where_a_peer_is_faster_and_why_one_is_missing() -> None:
    slower = at_least("against a peer", [1.0], [2.0], "films/s", goal=None)
    missing = Skipped("another peer", "fastai is not installed")
    lines = markdown([slower, missing]).splitlines()
    assert lines[2] == "| against a peer | 1 films/s | 2 films/s | 0.5 |  | faster than the jobs |"
    assert lines[3] == "| another peer |  |  |  |  | skipped: fastai is not installed |"
