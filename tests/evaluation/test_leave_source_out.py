"""Leave one source out: which sources qualify, what a fold holds, and what it scores."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib.evaluation import leave_source_out
from lib.evaluation.films import EvaluationSet, LabelledFilm
from lib.evaluation.leave_source_out import (
    FoldAnswers,
    LeftOutTable,
    folds_of,
    rows_of,
    score_folds,
)
from tests.dataset.test_audit import film_record

FILMS = 60  # of a class of a source; a sixth each is for validation and test


def _films(source: str, *labels: str, count: int = FILMS) -> list[LabelledFilm]:
    films = []
    for label in labels:
        for number in range(count):
            name = f"{label}/{source}{number}.png"
            record = film_record(number, label)
            films.append(LabelledFilm(name, Path(name), label, f"{source}{number}", source, record))
    return films


def _set(*films: LabelledFilm) -> EvaluationSet:
    sides: dict[str, list[LabelledFilm]] = {"train": [], "val": [], "test": []}
    for film in films:
        sides[
            {4: "val", 5: "test"}.get(int(film.file.stem.lstrip("abcunkow")) % 6, "train")
        ].append(film)
    folder = Path()
    return EvaluationSet(sides["test"], folder, sides["train"], [], folder, validation=sides["val"])


def test_a_source_that_shares_two_classes_is_left_out_and_scored_on_all_its_films() -> None:
    films = _set(*_films("a", "N", "P"), *_films("b", "N", "P"), *_films("c", "T"))
    first, second = folds_of(films)
    assert (first.source, second.source) == ("a", "b")
    assert first.classes == ("N", "P")
    assert len(first.scored) == 2 * FILMS
    assert {film.source for film in first.scored} == {"a"}
    assert {film.source for film in (*first.training, *first.validation)} == {"b", "c"}
    assert {film.label for film in first.training} == {"N", "P", "T"}


@pytest.mark.parametrize(
    "films",
    [
        _films("a", "N", "P", "T"),
        [*_films("a", "N", "P"), *_films("unknown", "N", "P")],
        [*_films("a", "N", "P"), *_films("b", "N"), *_films("c", "P")],
        [*_films("a", "N", "P"), *_films("b", "N", "P", count=19)],
    ],
    ids=["one source", "unknown source", "each class from another source", "too few films"],
)
def test_no_source_is_left_out_where_no_other_holds_two_of_its_classes(
    films: Sequence[LabelledFilm],
) -> None:
    assert folds_of(_set(*films)) == []


def test_patients_who_have_films_in_the_source_are_on_no_side() -> None:
    shared = [
        LabelledFilm(film.name, film.file, film.label, "a0", film.source, film.record)
        for film in _films("b", "N", count=3)
    ]
    films = _set(*_films("a", "N", "P"), *_films("b", "N", "P")[3:], *shared)
    fold = folds_of(films)[0]
    assert fold.source == "a"
    assert not {film.group for film in fold.training} & {"a0"}


def test_a_large_source_is_scored_on_films_of_all_its_classes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leave_source_out, "LARGEST", 30)
    films = _set(*_films("a", "N", "P"), *_films("b", "N", "P"))
    scored = folds_of(films)[0].scored
    assert [sum(film.label == label for film in scored) for label in "NP"] == [15, 15]


def _table(films: EvaluationSet, skill: float) -> tuple[LeftOutTable, pd.DataFrame]:
    """leave_source_out.csv of the folds of `films`, and predictions.csv of a perfect model."""
    generator, classes = np.random.default_rng(1), ["N", "P", "T"]

    def draw(scored: Sequence[LabelledFilm], skill: float) -> np.ndarray:
        truth = np.eye(3)[[classes.index(film.label) for film in scored]]
        logits = generator.normal(size=truth.shape) + skill * truth
        rows: np.ndarray = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        return rows

    folds = folds_of(films)
    parts = [
        rows_of(fold, FoldAnswers(draw(fold.scored, skill), "a"), classes, None) for fold in folds
    ]
    tested = pd.DataFrame(
        {
            "path": films.names,
            "label": films.labels,
            "prediction": films.labels,
            "source": [film.source for film in films.films],
        }
    )
    perfect = draw(films.films, 50)
    for number, name in enumerate(classes):
        tested[f"prob_{name}"] = perfect[:, number]
    return LeftOutTable(rows=pd.concat(parts)), tested


def test_each_source_is_scored_alone_and_beside_the_model_at_home() -> None:
    films = _set(*_films("a", "N", "P"), *_films("b", "N", "P"))
    table, predictions = _table(films, skill=0.0)
    result = score_folds(table, predictions, seed=0)
    assert [fold.source for fold in result.sources] == ["a", "b"]
    fold = result.sources[0]
    assert fold.films == {"N": FILMS, "P": FILMS}
    area, change = fold.auroc["P"], fold.change["P"]
    assert area.value is not None
    assert area.interval is not None
    assert area.interval[0] < 0.5 < area.interval[1]
    assert fold.home["P"].value == 1
    assert fold.home_films == 20
    assert change.value is not None
    assert change.interval is not None
    assert change.interval[1] < 0


def test_what_the_network_says_of_classes_that_the_source_lacks_does_not_count() -> None:
    films = _set(*_films("a", "N", "P"), *_films("b", "N", "P"))
    table, predictions = _table(films, skill=2.0)
    rows = table.rows.copy()
    rows.loc[np.arange(len(rows)) % 2 == 0, ["prob_N", "prob_P"]] *= 0.01  # of every other film
    rows["prob_T"] = 1 - rows["prob_N"] - rows["prob_P"]
    before, after = (
        score_folds(LeftOutTable(rows=each), predictions, seed=0) for each in (table.rows, rows)
    )
    for one, other in zip(before.sources, after.sources, strict=True):
        assert other.mean_auroc.value == pytest.approx(one.mean_auroc.value)


def test_a_training_that_holds_elsewhere_has_no_change_that_is_clear() -> None:
    films = _set(*_films("a", "N", "P"), *_films("b", "N", "P"))
    fold = score_folds(*_table(films, skill=50.0), seed=0).sources[0]
    assert fold.mean_auroc.value == 1
    assert fold.change["N"].value == 0


def test_without_a_row_the_result_says_why() -> None:
    result = score_folds(LeftOutTable("nobody asked"), pd.DataFrame(), seed=0)
    assert result.sources == ()
    assert result.none_because == "nobody asked"


def test_a_table_without_rows_is_written_with_its_head(tmp_path: Path) -> None:
    LeftOutTable("no source").write(tmp_path / "leave_source_out.csv")
    assert (tmp_path / "leave_source_out.csv").read_text().splitlines() == ["source,path"]
