"""Every part of the benchmark runs to its end on a handful of films: what nobody runs rots."""

import json
import math
from pathlib import Path

import pytest

from tests.benchmarks.bench import PARTS, TINY, measure


@pytest.fixture(scope="module")
def films(phantom_films: Path) -> Path:
    return phantom_films


@pytest.mark.parametrize("part", PARTS)
def test_a_part_runs_to_its_end(
    part: str, films: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    target = tmp_path_factory.getbasetemp() / "bench"
    rows = measure(target, films, TINY, [part])
    assert rows
    # Differences of two times, as growth has them, may be negative on so few films.
    assert all(math.isfinite(row.ours) and math.isfinite(row.theirs) for row in rows)
    assert len(json.loads((target / "bench.json").read_text())["rows"]) == len(rows)
