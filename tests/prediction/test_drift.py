"""Nights: what is kept of a batch, how rare false alarms are, and which changes are noticed."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.prediction import drift
from lib.prediction.nights import (
    FOLDER,
    KEPT,
    NAMES,
    SAMPLE,
    Night,
    keep_night,
    ordinary,
    read_nights,
)
from lib.prediction.rows import Row
from lib.prediction.triage import UNLIKE
from lib.reports.drift_page import write_drift_page

CLASSES = ("NORMAL", "PNEUMONIA", "TUBERCULOSIS")
SHARES = (0.7, 0.2, 0.1)
MAKERS = ("Alpha", "Beta Medical", "", "Gamma")  # "": the header does not say
VIEWS = ("PA", "AP", "")


def rows(
    films: int,
    seed: int,
    shares: tuple[float, ...] = SHARES,
    farther: float = 0.0,
    unlike: float = 0.02,
    unsure: float = 0.0,
    makers: tuple[float, ...] = (0.6, 0.3, 0.1, 0.0),
    views: tuple[float, ...] = (0.7, 0.2, 0.1),
    side: float = 1.0,
) -> Iterator[Row]:
    """Films drawn from one distribution, unless a change is asked for."""
    rng = np.random.default_rng(seed)
    for number in range(films):
        is_unlike = rng.random() < unlike
        width = int(side * rng.choice((2000, 2500, 3000)))
        yield Row(
            f"{number}.png",
            "m@1",
            prediction=str(rng.choice(CLASSES, p=shares)),
            confidence=float(np.clip(rng.beta(6, 2) - unsure, 0, 1)),
            probabilities=(1 / 3, 1 / 3, 1 / 3),
            needs_review=is_unlike or rng.random() < 0.15,
            reasons=(UNLIKE,) if is_unlike else (),
            distance=float(rng.normal(0.5 + farther, 0.1)),
            size=(width, int(1.2 * width)),
            maker=str(rng.choice(MAKERS, p=makers)),
            view=str(rng.choice(VIEWS, p=views)),
        )


def night(films: int = 200, seed: int = 0, **change: Any) -> Night:
    return Night.of(rows(films, seed, **change), "x.csv", "m@1")


@pytest.fixture(scope="module")
def before() -> list[Night]:
    return [night(seed=1000 + number) for number in range(20)]


@pytest.mark.simulation
def test_ordinary_nights_raise_as_few_alarms_as_stated(before: list[Night]) -> None:
    alarms = sum(bool(drift.compare(night(seed=seed), before).findings) for seed in range(365))
    assert alarms <= 3  # one is expected in a year at most; four or more have a chance of 2 %


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"farther": 0.1}, "distance"),  # another hospital, half the resolution
        ({"unsure": 0.15}, "confidence"),
        ({"unlike": 0.2}, "unlike the training films"),  # an inverted detector
        ({"shares": (0.5, 0.4, 0.1)}, "PNEUMONIA"),  # twice as many cases
        ({"makers": (0.5, 0.3, 0.1, 0.1)}, "maker of another name"),  # a new machine
        ({"makers": (0.3, 0.6, 0.1, 0.0)}, "maker Beta Medical"),
        ({"views": (0.4, 0.5, 0.1)}, "view AP"),  # films of wards
        ({"side": 0.5}, "megapixels"),
    ],
)
def test_a_change_is_noticed_within_the_night(
    before: list[Night], change: dict[str, Any], words: str
) -> None:
    noticed = [
        any(found.startswith(words) for found in drift.compare(one, before).findings)
        for one in (night(200, seed, **change) for seed in range(20))
    ]
    assert np.mean(noticed) >= 0.8


def test_films_without_a_header_have_no_maker_to_compare(before: list[Night]) -> None:
    plain = [replace(one, makers={"": 200}, views={"": 200}) for one in before]
    names = {test.what for test in drift.compare(plain[0], plain[1:]).tests}
    assert not any(name.startswith(("maker", "view")) for name in names)
    old = [
        replace(one, makers={}, views={}, megapixels=()) for one in before
    ]  # of an older version
    assert drift.compare(night(), old).findings == ()


def test_many_makers_are_counted_by_their_most_common_names() -> None:
    rows = (Row(f"{n}.dcm", "m@1", "NORMAL", maker=f"m{n % 50}") for n in range(500))
    makers = Night.of(rows, "x.csv", "m@1").makers
    assert (len(makers), sum(makers.values())) == (NAMES + 1, 500)


def test_the_first_nights_are_compared_with_the_validation_films() -> None:
    usual = drift.compare(night(100, unlike=0.01), [night(50)])
    assert usual.words == "compared with the validation films of its model: nothing unusual"
    strange = drift.compare(night(100, unlike=0.3), [])
    assert "unlike the training films" in strange.findings[0]
    assert strange.findings[0].endswith("of the validation films 2%")


def test_a_handful_of_films_is_not_compared(before: list[Night]) -> None:
    found = drift.compare(night(19, farther=0.5), before)
    assert (found.findings, found.words[:20]) == ((), "fewer than 20 films:")


def test_a_batch_is_kept_without_a_path_and_comes_back(tmp_path: Path) -> None:
    one, other = night(50), Night.of(rows(30, 1), "y.csv", "n@2")
    keep_night(tmp_path, one)
    keep_night(tmp_path, other)
    assert read_nights(tmp_path) == [one, other]
    assert ordinary([one, other, replace(other, findings=("x",))], "n@2") == [other]
    files = sorted((tmp_path / FOLDER).glob("*.json"))
    assert ".png" not in "".join(file.read_text() for file in files)
    files[0].write_text("{")
    assert read_nights(tmp_path) == [other]


def test_the_oldest_batches_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib.prediction.nights.KEPT", 3)
    for seed in range(5):
        keep_night(tmp_path, night(20, seed))
    kept = [one.distance for one in read_nights(tmp_path)]
    assert kept == [night(20, seed).distance for seed in (2, 3, 4)]
    assert KEPT > 365


def test_a_large_batch_keeps_an_even_sample() -> None:
    large = night(5 * SAMPLE)
    assert SAMPLE / 2 <= len(large.distance) <= SAMPLE
    assert large.films == 5 * SAMPLE == sum(large.predictions.values())


def test_the_page_marks_the_night_that_is_unusual(tmp_path: Path, before: list[Night]) -> None:
    strange = Night.of(rows(200, 5), "<b>.csv", "m@1")
    strange = Night(**{**vars(strange), "findings": ("TUBERCULOSIS 40% of films",)})
    write_drift_page(tmp_path / "drift.html", [*before, strange])
    page = (tmp_path / "drift.html").read_text()
    assert "<h1>21 batches</h1>" in page
    assert "TUBERCULOSIS 40% of films" in page
    assert "&lt;b&gt;.csv" in page
    assert page.count('class="unusual"') == 15  # a mark in each chart
