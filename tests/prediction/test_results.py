"""The rows of an interrupted run: which are reused, and which films are classified again."""

from pathlib import Path

import pytest

from lib.images.inputs import inputs_of
from lib.prediction.classify import Classified
from lib.prediction.request import PredictOptions, Request
from lib.prediction.results import Results
from lib.prediction.rows import Row, RowSchema
from tests.conftest import film

GOOD, BAD = 1, 0  # index of bad.png and good.png


@pytest.fixture
def request_with_maps(tmp_path: Path) -> Request:
    (tmp_path / "model.json").write_text("{}")
    film(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "bad.png").write_text("no film")
    return Request(
        input=str(tmp_path / "in"),
        output=tmp_path / "x.csv",
        model=tmp_path,
        options=PredictOptions(maps=True),
        explain=tmp_path / "maps",
    )


def _results(request: Request) -> Results:
    films = inputs_of(request.input, request.written, request.follow_links)
    return Results(request, films, RowSchema(("A", "B")), request.options)


def _classify_again(request: Request) -> list[int]:
    """One run that is interrupted at its end: the films that it classified."""
    with _results(request) as results:
        missing = list(results.missing())
        for index in missing:
            name = results.names[index]
            row = Row(name, "m", prediction="A", confidence=0.9, probabilities=(0.9, 0.1))
            if index == BAD:
                row = Row(name, "m", error="not an image")
            stamp = results._films.stamp(name)
            results.add(index, Classified(stamp, row, b"map" if index == GOOD else b""))
    return missing


def test_a_film_that_cannot_be_read_has_no_map_and_is_tried_twice(
    request_with_maps: Request,
) -> None:
    runs = [_classify_again(request_with_maps) for _ in range(3)]
    assert runs == [[BAD, GOOD], [BAD], []]


def test_a_film_whose_map_is_missing_is_classified_again(
    request_with_maps: Request, tmp_path: Path
) -> None:
    _classify_again(request_with_maps)
    (tmp_path / "maps" / "good.png.png").unlink()
    assert _classify_again(request_with_maps) == [GOOD, BAD]
