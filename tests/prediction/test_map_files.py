"""Maps as files: which films have theirs, also where a film's name allows none."""

from pathlib import Path

import pytest

from lib.prediction.map_files import MapFolder


@pytest.mark.parametrize("name", ["x" * 252, "a.png.png/b.png", "../a.png"])
def test_a_map_that_can_never_be_written_counts_as_written(tmp_path: Path, name: str) -> None:
    maps = MapFolder(tmp_path / "maps")
    maps.write("a.png", b"map")
    maps.write(name, b"map")
    assert [path.name for path in tmp_path.rglob("*.png")] == ["a.png.png"]
    assert maps.has(name)


def test_a_map_that_is_missing_is_missing(tmp_path: Path) -> None:
    maps = MapFolder(tmp_path / "maps")
    assert not maps.has("a.png")
    maps.write("a.png", b"map")
    assert maps.has("a.png")
    assert not maps.has("b/a.png")
