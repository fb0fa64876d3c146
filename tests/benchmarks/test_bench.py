"""Every part of the benchmark runs to its end on a handful of films: what nobody runs rots."""

import json
import math
from pathlib import Path

import pytest

from tests.benchmarks.bench import PARTS, TINY, measure
from tests.benchmarks.peers.packages import NotInstalled, folder_with
from tests.benchmarks.rows import Row, Skipped


@pytest.fixture(scope="module")
def films(phantom_films: Path) -> Path:
    return phantom_films


@pytest.mark.parametrize("part", PARTS)
def test_a_part_runs_to_its_end(
    part: str, films: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    target = tmp_path_factory.getbasetemp() / "bench"
    results = measure(target, films, TINY, [part])
    rows = [row for row in results if isinstance(row, Row)]
    skipped = [row for row in results if isinstance(row, Skipped)]
    assert rows
    assert [row.why for row in skipped] == (["fastai is not installed"] if part == "peers" else [])
    # Differences of two times, as growth has them, may be negative on so few films.
    assert all(math.isfinite(row.ours) and math.isfinite(row.theirs) for row in rows)
    written = json.loads((target / "bench.json").read_text())
    assert len(written["rows"]) == len(rows)
    assert len(written["skipped"]) == len(skipped)


def test_a_peer_that_no_index_has_is_skipped_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(NotInstalled, match="cannot be installed: ERROR") as error:
        folder_with("ultralytics", tmp_path, install=True)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
