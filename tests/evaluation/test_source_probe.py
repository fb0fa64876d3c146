"""The source probe finds what is in the features, and nothing where nothing is."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib.dataset.provenance import UNKNOWN
from lib.evaluation import source_probe
from lib.evaluation.films import EvaluationSet, LabelledFilm
from lib.evaluation.predictions import Floats
from lib.evaluation.results import SourceProbe
from tests.dataset.test_audit import film_record


def _films(count: int, source: str, label: str = "A", per_patient: int = 1) -> list[LabelledFilm]:
    names = [f"{label}/{source}_{number}.png" for number in range(count)]
    groups = [f"{source} {number // per_patient}" for number in range(count)]
    record = film_record(0, label)
    return [
        LabelledFilm(name, Path(name), label, group, source, record)
        for name, group in zip(names, groups, strict=True)
    ]


def _probe(films: Sequence[LabelledFilm], features: Floats) -> SourceProbe:
    rows = {film.file: row for film, row in zip(films, features, strict=True)}
    half = len(films) // 2
    found = EvaluationSet(films[half:], Path(), films[:half], [], Path())
    table = source_probe.probe_sources(found, lambda files: [rows[file] for file in files], 0)
    (result,) = source_probe.score_probe(table, seed=0)
    return result


def test_features_that_hold_the_source_are_told_and_shuffled_ones_are_not() -> None:
    films = [*_films(60, "one"), *_films(40, "two")]
    features = np.random.default_rng(0).normal(size=(100, 64))
    features[60:, :16] += 2
    found = _probe(films, features)
    assert found.films == {"one": 60, "two": 40}
    assert found.chance == 0.6
    assert found.accuracy.value == pytest.approx(1, abs=0.02)
    assert found.accuracy.interval is not None
    assert found.shuffled < 0.7


def test_features_of_the_patient_alone_do_not_give_the_source_away() -> None:
    """Five films of each patient look alike: without groups every source would be told."""
    films = [*_films(100, "one", per_patient=5), *_films(100, "two", per_patient=5)]
    patients = np.random.default_rng(0).normal(size=(40, 64))
    found = _probe(films, np.repeat(patients, 5, axis=0))
    assert found.accuracy.value is not None
    assert found.accuracy.value < 0.7
    assert found.shuffled < 0.65


def test_only_classes_with_two_sources_of_enough_films_and_patients_are_probed() -> None:
    films = [
        *_films(20, "one"),
        *_films(20, "two"),
        *_films(19, "few"),
        *_films(40, "one patient", per_patient=40),
        *_films(40, UNKNOWN),
        *_films(40, "one", "B"),
        *_films(19, "two", "B"),
    ]
    found = source_probe.eligible(films)
    assert list(found) == ["A"]
    assert {film.source for film in found["A"]} == {"one", "two"}
    assert len(found["A"]) == 40


def test_films_that_cannot_be_read_are_left_out() -> None:
    films = [*_films(30, "one"), *_films(30, "two")]
    found = EvaluationSet(films, Path(), [], [], Path())

    def features_of(files: Sequence[Path]) -> list[Floats]:
        return [np.empty(0) if file.name == "one_3.png" else np.zeros(4) for file in files]

    table = source_probe.probe_sources(found, features_of, 0)
    assert len(table) == 59
    assert "A/one_3.png" not in set(table["path"])


def test_no_probe_has_the_same_columns_and_no_result() -> None:
    table = source_probe.no_probe()
    assert table.empty
    assert source_probe.score_probe(table, 0) == ()
    nothing = EvaluationSet([], Path(), [], [], Path())
    pd.testing.assert_frame_equal(source_probe.probe_sources(nothing, lambda _: [], 0), table)
