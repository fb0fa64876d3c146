"""Baselines: what a model could score without looking at a lung.

A high score on a public collection means little while the size of a file, a blurred outline, or
what lies around the lungs gives the class away as well. Every baseline learns from the training
films of the model and predicts the same test films. Source of the idea: A. DeGrave, J. Janizek,
S.-I. Lee, "AI for radiographic COVID-19 detection selects shortcuts over signal", Nature Machine
Intelligence 3 (2021).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lib.dataset.manifest import FilmRecord
from lib.dataset.provenance import file_type
from lib.evaluation import intervals, scoring
from lib.evaluation.films import EvaluationSet, LabelledFilm
from lib.evaluation.predictions import ClassProbabilities, Floats, LabelledPredictions
from lib.evaluation.regression import fit_predict_regression
from lib.evaluation.results import BaselineScores, Estimate
from lib.run.errors import UnreadableFilmError
from lib.workers.threads import map_ordered

if TYPE_CHECKING:  # it loads the inference engine
    from lib.evaluation.hidden_lungs import WithoutLungs

TREES = 300
LARGEST = 3000  # training films that the network sees without their lungs: bounds the time
LUNGS_FOUND = "lungs_found"  # column of baselines.csv: True, False, empty for an unreadable film
# The baselines that the verdict always names: the scored network without the lungs.
CONTROLS = {
    "without_lung_box": "the box around the lungs black",
    "without_lung_mask": "the lungs alone black",
}


Thumbnails = dict[Path, NDArray[np.uint8]]  # file → (32, 32)


class Lungless(Protocol):
    """The scored network on films whose lungs are hidden: lib.evaluation.hidden_lungs."""

    def of(self, files: Sequence[Path], /) -> "Sequence[WithoutLungs | None]":
        """Its features, one entry per file; None for a film that cannot be read."""

    def knows(self, file: Path, /) -> bool:
        """Whether they were computed already."""


@dataclass(frozen=True)
class Compute:
    """What a baseline may use."""

    seed: int
    cores: int
    readers: int  # threads that decode
    lungless: Lungless
    thumbnails: Thumbnails = field(default_factory=dict)  # that were read


Films = Sequence[LabelledFilm]
# (training films, films to predict) → probabilities of the classes of the training films
Predict = Callable[[Films, Films, Compute], ClassProbabilities]


@dataclass(frozen=True)
class Baseline:
    """A row of `BASELINES`. The report and the verdict take their words from it."""

    short: str  # beside a bar, at the head of a column
    what: str  # what it sees
    subject: str  # begins the verdict's sentence "… reaches a macro-F1 of …"
    unbeaten: str  # verdict where the model does not clearly beat it
    predict: Predict
    hides_lungs: bool = False  # needs to find them on every film


def predict_baselines(films: EvaluationSet, compute: Compute) -> pd.DataFrame:
    """Rows of baselines.csv: `path` and the class that each baseline predicts."""
    columns = {
        name: baseline.predict(films.training, films.films, compute).names
        for name, baseline in BASELINES.items()
    }
    without_lungs = compute.lungless.of([film.file for film in films.films])
    found = ["" if one is None else str(one.lungs_found) for one in without_lungs]
    return pd.DataFrame({"path": films.names, **columns, LUNGS_FOUND: found}, dtype=str)


def no_baselines() -> pd.DataFrame:
    """baselines.csv without rows."""
    return pd.DataFrame(columns=["path", *BASELINES, LUNGS_FOUND], dtype=str)


def score_baselines(
    predictions: LabelledPredictions,
    names: Mapping[str, Sequence[str]],
    no_lungs_found: int | None,
    seed: int,
) -> dict[str, BaselineScores]:
    """Compare the model's predictions with those of each baseline (class names) on its films.

    `no_lungs_found` is the number of these films without plausible lungs; None where unknown.
    """
    baselines = {
        name: predictions.with_predicted(
            np.array([predictions.number_of(value) for value in predicted], dtype=np.int64)
        )
        for name, predicted in names.items()
    }
    if not baselines:
        return {}
    margins = partial(_macro_f1_and_margins, predictions, baselines)
    point = margins(scoring.once(len(predictions)))
    resampled = intervals.bootstrap(predictions.groups, margins, seed)
    found = {}
    for number, name in enumerate(baselines):
        interval = intervals.interval(resampled["margin"][:, number])
        margin = Estimate(float(point["margin"][0, number]), interval)
        row, macro_f1 = BASELINES[name], float(point["macro_f1"][0, number])
        lungless = no_lungs_found if row.hides_lungs else None
        found[name] = BaselineScores(row.what, macro_f1, margin, lungless)
    return found


def metadata_features(records: Sequence[FilmRecord]) -> Floats:
    """`(N, features)`: properties of a file that show no anatomy."""
    kinds = sorted({file_type(record) for record in records})
    modes = sorted({record.mode for record in records})
    rows = [
        [
            record.width,
            record.height,
            record.width / max(record.height, 1),
            record.bytes / max(record.width * record.height, 1),
            record.tint,
            kinds.index(file_type(record)),
            modes.index(record.mode),
        ]
        for record in records
    ]
    return np.array(rows, dtype=np.float64)


def fit_predict_forest(
    train: NDArray[np.floating], labels: Sequence[str], test: NDArray[np.floating], compute: Compute
) -> ClassProbabilities:
    """Probabilities for `test` `(M, features)`, from a forest fitted on `train` `(N, features)`."""
    from sklearn.ensemble import ExtraTreesClassifier

    forest = ExtraTreesClassifier(
        TREES,
        min_samples_leaf=2,
        class_weight="balanced",
        random_state=compute.seed,
        n_jobs=compute.cores,
    )
    # The forest learns numbers: class names that are digits would be taken for values.
    names, numbers = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    forest.fit(train, numbers)
    return ClassProbabilities(tuple(map(str, names)), forest.predict_proba(test))


def _predict_from_metadata(training: Films, films: Films, compute: Compute) -> ClassProbabilities:
    features = metadata_features([film.record for film in (*training, *films)])
    labels = [film.label for film in training]
    return fit_predict_forest(features[: len(labels)], labels, features[len(labels) :], compute)


def _predict_from_thumbnails(training: Films, films: Films, compute: Compute) -> ClassProbabilities:
    files, known = [film.file for film in (*training, *films)], compute.thumbnails
    missing = [file for file in files if file not in known]
    known.update(zip(missing, map_ordered(_thumbnail, missing, compute.readers), strict=True))
    pixels = np.stack([known[file] for file in files])
    features = pixels.reshape(len(files), -1).astype(np.float32)
    labels = [film.label for film in training]
    return fit_predict_forest(features[: len(labels)], labels, features[len(labels) :], compute)


def _predict_without_lungs(
    hidden: Literal["box", "mask"], training: Films, films: Films, compute: Compute
) -> ClassProbabilities:
    places = np.linspace(0, len(training) - 1, min(LARGEST, len(training))).round().astype(int)
    learned = [training[place] for place in places]  # sorted by class: evenly of all classes
    rows = compute.lungless.of([film.file for film in (*learned, *films)])
    features = [None if row is None else getattr(row, hidden) for row in rows]
    readable = [
        (row, film.label) for row, film in zip(features, learned, strict=False) if row is not None
    ]
    if not readable:
        return ClassProbabilities((training[0].label,), np.ones((len(films), 1)))
    train, labels = zip(*readable, strict=True)
    unreadable = np.zeros_like(train[0])
    test = [unreadable if row is None else row for row in features[len(learned) :]]
    return fit_predict_regression(np.stack(train), labels, np.stack(test), compute.seed)


def _thumbnail(path: Path) -> NDArray[np.uint8]:
    from lib.images.decode import ANY_SIZE, read_grey  # scoring a table needs no decoder
    from lib.images.reader import THUMBNAIL_SIDE

    try:
        return read_grey(path, THUMBNAIL_SIDE, ANY_SIZE, trust_headers=True)
    except UnreadableFilmError:
        return np.zeros((THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)


def _macro_f1_and_margins(
    model: LabelledPredictions, baselines: Mapping[str, LabelledPredictions], weights: Floats
) -> scoring.Arrays:
    """Macro-F1 of each baseline, and of the model minus it: `(R, baselines)`."""
    macro_f1 = np.stack([scoring.macro_f1(one, weights) for one in baselines.values()], axis=1)
    return {
        "macro_f1": macro_f1,
        "margin": scoring.macro_f1(model, weights)[:, None] - macro_f1,
    }


BASELINES = {
    "metadata": Baseline(
        short="file metadata",
        what="file metadata alone: size, aspect ratio, tint, file type, colour mode, "
        "bytes per pixel",
        subject="File metadata alone",
        unbeaten="never sees the image. The classes can be told apart by properties of the files.",
        predict=_predict_from_metadata,
    ),
    "thumbnail": Baseline(
        short="32 x 32 thumbnail",
        what="a 32 x 32 thumbnail alone",
        subject="A 32 x 32 thumbnail",
        unbeaten="sees no detail of a lung. What tells the classes apart may be how the films were "
        "made, or the patients' age.",
        predict=_predict_from_thumbnails,
    ),
    "without_lung_box": Baseline(
        short="same network, lung box black",
        what="the same frozen network without seeing a lung: whole films, the box around the lungs "
        "blacked out",
        subject="The same network without seeing a lung (the box around them is black)",
        unbeaten="sees no lung. What lies around the lungs tells the classes apart: markers, "
        "borders, collimation, or the patients' age.",
        predict=partial(_predict_without_lungs, "box"),
        hides_lungs=True,
    ),
    "without_lung_mask": Baseline(
        short="same network, lungs black",
        what="the same frozen network without seeing a lung: whole films, the lungs blacked out "
        "along their outline",
        subject="The same network without seeing a lung (they are black, their outline stays)",
        unbeaten="sees no more of a lung than its outline. What lies around the lungs, or their "
        "shape, tells the classes apart.",
        predict=partial(_predict_without_lungs, "mask"),
        hides_lungs=True,
    ),
}
