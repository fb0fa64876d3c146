"""Leave one source out: the training repeated without a source, and scored inside that source.

What a model scores on films of sources that it has learned from says little about another hospital.
A source that holds several classes is scored alone, never together with others: within it the score
cannot come from differences between sources. Source of the idea: J. Zech et al., "Variable
generalization performance of a deep learning model to detect pneumonia in chest radiographs", PLOS
Medicine 15 (2018).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from lib.dataset.provenance import UNKNOWN
from lib.evaluation import intervals, scoring
from lib.evaluation.baselines import BASELINES, Compute
from lib.evaluation.films import EvaluationSet, LabelledFilm
from lib.evaluation.predictions import (
    PROBABILITY,
    Floats,
    LabelledPredictions,
    classes_of,
    write_table,
)
from lib.evaluation.results import Estimate, LeaveSourceOut, LeftOutBaseline, LeftOutSource
from lib.network.choices import Phase

FEWEST_FILMS = 20  # of a class, in the source and in the other sources
LARGEST = 1000  # films of a source that are scored, evenly of all classes: bounds the time
FEWEST_AT_HOME = 5  # test films of a class, or of the others, for a score at home
NO_SOURCE = (
    f"no source holds {FEWEST_FILMS} films of each of two classes that another source holds as well"
)
MEAN = ""  # key of the mean over the classes, which have names


@dataclass(frozen=True)
class Fold:
    """A source that is left out, and the films of the others."""

    source: str
    classes: tuple[str, ...]  # that are scored: other sources hold them as well
    training: Sequence[LabelledFilm]
    validation: Sequence[LabelledFilm]  # choose the best epoch
    scored: Sequence[LabelledFilm]


@dataclass(frozen=True)
class FoldAnswers:
    """What the network that was trained for a fold says of the films to score."""

    probabilities: Floats  # (films, classes of the model), not calibrated
    phase: Phase  # b: the last block was trained as well


@dataclass(frozen=True)
class LeftOutTable:
    """The content of leave_source_out.csv, or why it has no row."""

    none_because: str = ""
    rows: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["source", "path"]))

    def write(self, path: Path) -> None:
        """Write leave_source_out.csv."""
        write_table(path, self.rows)


def folds_of(films: EvaluationSet) -> list[Fold]:
    """One fold for each source that shares two classes with another source.

    A fold keeps the sides of the split. Films of the same patient as a film of the source, and
    copies of one, are on no side.
    """
    every = [*films.training, *films.validation, *films.films]
    held = _classes_by_source(every)
    partners = {
        source: [other & own for name, other in held.items() if name != source]
        for source, own in held.items()
    }
    folds = (
        _fold(source, set().union(*partners[source]), films, every)
        for source in sorted(held)
        if any(len(shared) >= 2 for shared in partners[source])
    )
    return [fold for fold in folds if fold is not None]


def rows_of(
    fold: Fold, answers: FoldAnswers, classes: Sequence[str], compute: Compute | None
) -> pd.DataFrame:
    """The rows of leave_source_out.csv of one fold: probabilities of the model and the baselines.

    `classes` are those of the model, `compute` None leaves the baselines out.
    """
    films = fold.scored
    columns: dict[str, object] = {
        "source": fold.source,
        "path": [film.name for film in films],
        "label": [film.label for film in films],
        "group": [film.group or film.name for film in films],
        "phase": answers.phase,
        "training_films": len(fold.training),
    }
    columns |= _named(PROBABILITY, answers.probabilities, classes)
    for name, baseline in BASELINES.items() if compute else ():
        assert compute
        training = fold.training
        if baseline.hides_lungs:  # those that the evaluation at home has chosen: bounds the time
            known = [film for film in training if compute.lungless.knows(film.file)]
            training = known or training
        found = baseline.predict(training, films, compute)
        columns |= _named(f"{name}_{PROBABILITY}", found.of(classes), classes)
    return pd.DataFrame(columns)


def score_folds(table: LeftOutTable, predictions: pd.DataFrame, seed: int) -> LeaveSourceOut:
    """The results, from leave_source_out.csv and, for the scores at home, predictions.csv."""
    by_source = table.rows.groupby("source", sort=True)
    sources = tuple(_score(rows, predictions, seed) for _, rows in by_source)
    return LeaveSourceOut(sources, table.none_because)


def _classes_by_source(films: Sequence[LabelledFilm]) -> dict[str, set[str]]:
    """The classes of which a source holds enough films."""
    counts = Counter((film.source, film.label) for film in films if film.source != UNKNOWN)
    held: dict[str, set[str]] = {}
    for (source, label), count in counts.items():
        if count >= FEWEST_FILMS:
            held.setdefault(source, set()).add(label)
    return held


def _fold(
    source: str, shared: set[str], films: EvaluationSet, every: Sequence[LabelledFilm]
) -> Fold | None:
    """None where the other sources have too few films once patients and copies are left out."""
    touched = {film.group for film in every if film.source == source and film.group}

    def apart(side: Sequence[LabelledFilm]) -> list[LabelledFilm]:
        return [film for film in side if film.source != source and film.group not in touched]

    training, validation = apart(films.training), apart(films.validation)
    left = Counter(film.label for film in training)
    classes = tuple(sorted(label for label in shared if left[label] >= FEWEST_FILMS))
    if len(classes) < 2 or not validation:
        return None
    inside = [film for film in every if film.source == source and film.label in classes]
    return Fold(source, classes, training, validation, list(_evenly(inside)))


def _evenly(films: Sequence[LabelledFilm]) -> Iterator[LabelledFilm]:
    """At most `LARGEST` films, the same share of every class."""
    ordered = sorted(films, key=lambda film: (film.label, film.name))
    places = np.linspace(0, len(ordered) - 1, min(len(ordered), LARGEST)).round().astype(int)
    return (ordered[place] for place in places)


def _named(prefix: str, rows: Floats, classes: Sequence[str]) -> dict[str, Floats]:
    return {f"{prefix}{name}": rows[:, number] for number, name in enumerate(classes)}


def _score(rows: pd.DataFrame, predictions: pd.DataFrame, seed: int) -> LeftOutSource:
    classes, labels = classes_of(rows), sorted(set(rows["label"]))
    model = _labelled(rows, PROBABILITY, classes)
    point, resampled = _areas_and_resamples(model, labels, seed)
    home, change, home_films = _at_home(rows, predictions, labels, seed)
    return LeftOutSource(
        source=str(rows["source"].iloc[0]),
        films={label: int(rows["label"].eq(label).sum()) for label in labels},
        training_films=int(rows["training_films"].iloc[0]),
        phase="b" if rows["phase"].iloc[0] == "b" else "a",
        mean_auroc=_estimate(model, labels, MEAN, point, resampled),
        auroc={label: _estimate(model, labels, label, point, resampled) for label in labels},
        baselines={
            name: _baseline(model, _labelled(rows, f"{name}_{PROBABILITY}", classes), labels, seed)
            for name in BASELINES
            if f"{name}_{PROBABILITY}{classes[0]}" in rows
        },
        home_films=home_films,
        home=home,
        change=change,
    )


def _labelled(rows: pd.DataFrame, prefix: str, classes: Sequence[str]) -> LabelledPredictions:
    probabilities = rows[[f"{prefix}{name}" for name in classes]].to_numpy(float)
    number_of = {name: number for number, name in enumerate(classes)}
    return LabelledPredictions(
        targets=np.array([number_of[label] for label in rows["label"]], np.int64),
        predicted=probabilities.argmax(axis=1),
        probabilities=probabilities,
        groups=rows["group"].to_numpy(str),
        classes=classes,
    )


def _areas(
    predictions: LabelledPredictions, labels: Sequence[str], weights: Floats
) -> scoring.Arrays:
    """AUROC `(R,)` of each label against the others of the source, and their mean.

    A film is known to be of one of them: what the network says of other classes does not count.
    """
    numbers = [predictions.number_of(label) for label in labels]
    held = predictions.probabilities[:, numbers]
    shares = held / np.maximum(held.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    areas = {
        label: scoring.auroc(predictions.targets == number, share, weights)
        for label, number, share in zip(labels, numbers, shares.T, strict=True)
    }
    mean: Floats = np.mean([*areas.values()], axis=0)
    return areas | {MEAN: mean}


def _areas_and_resamples(
    predictions: LabelledPredictions, labels: Sequence[str], seed: int
) -> tuple[scoring.Arrays, scoring.Arrays]:
    resampled = intervals.bootstrap(
        predictions.groups, lambda weights: _areas(predictions, labels, weights), seed
    )
    return _areas(predictions, labels, scoring.once(len(predictions))), resampled


def _estimate(
    predictions: LabelledPredictions,
    labels: Sequence[str],
    key: str,
    point: scoring.Arrays,
    resampled: scoring.Arrays,
) -> Estimate:
    """An area, or their mean, with its interval for the patients of the smaller side."""
    sides = []
    for label in labels if key == MEAN else (key,):
        is_class = predictions.targets == predictions.number_of(label)
        sides += [predictions.count_groups(is_class), predictions.count_groups(~is_class)]
    area = float(point[key][0])
    return Estimate(
        intervals.known(area), intervals.area_interval(area, resampled[key], min(sides))
    )


def _differences(
    model: LabelledPredictions, other: LabelledPredictions, labels: Sequence[str], seed: int
) -> dict[str, Estimate]:
    """Areas of `model` minus those of `other` on the same films, paired."""

    def difference(weights: Floats) -> scoring.Arrays:
        mine, theirs = _areas(model, labels, weights), _areas(other, labels, weights)
        return {key: mine[key] - theirs[key] for key in mine}

    point = difference(scoring.once(len(model)))
    resampled = intervals.bootstrap(model.groups, difference, seed)
    return {
        key: Estimate(intervals.known(float(point[key][0])), intervals.interval(resampled[key]))
        for key in point
    }


def _baseline(
    model: LabelledPredictions, baseline: LabelledPredictions, labels: Sequence[str], seed: int
) -> LeftOutBaseline:
    point = _areas(baseline, labels, scoring.once(len(baseline)))
    margin = _differences(model, baseline, labels, seed)[MEAN]
    return LeftOutBaseline(
        mean_auroc=float(point[MEAN][0]),
        auroc={label: float(point[label][0]) for label in labels},
        margin=margin,
    )


def _at_home(
    rows: pd.DataFrame, predictions: pd.DataFrame, labels: Sequence[str], seed: int
) -> tuple[dict[str, Estimate], dict[str, Estimate], int]:
    """The scored model's areas on the source's test films, what the fold's differ by, and the
    number of these films. Empty where there are too few.
    """
    source = rows["source"].iloc[0]
    answered = predictions["prediction"].ne("") & predictions["source"].eq(source)
    tested = predictions[answered & predictions["label"].isin(labels)]
    both = rows[rows["path"].isin(tested["path"])]
    tested = tested.set_index("path").loc[both["path"]].reset_index()
    if min((both["label"].eq(label).sum() for label in labels), default=0) < FEWEST_AT_HOME:
        return {}, {}, len(both)
    classes = classes_of(rows)
    tested = tested.assign(group=both["group"].to_numpy())
    home = _labelled(tested, PROBABILITY, classes)
    point, resampled = _areas_and_resamples(home, labels, seed)
    change = _differences(_labelled(both, PROBABILITY, classes), home, labels, seed)
    return (
        {label: _estimate(home, labels, label, point, resampled) for label in labels},
        {label: change[label] for label in labels},
        len(both),
    )
