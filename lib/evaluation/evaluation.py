"""Everything that is said about a model, put together: its table, the baselines' table, and what
they are worth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from lib.dataset import provenance
from lib.dataset.manifest import FilmRecord, SplitRecord, read_manifest, read_split
from lib.evaluation import baselines, intervals, metrics
from lib.evaluation.intervals import Answers
from lib.images.decode import ANY_SIZE, read_grey
from lib.images.reader import THUMBNAIL_SIDE
from lib.prediction.calibration import Calibration
from lib.run.errors import JobError, UnreadableFilmError
from lib.workers.threads import map_ordered

BASELINES = tuple(baselines.BASELINES)


@dataclass(frozen=True)
class Films:
    """The films of a split with what the manifest says of them."""

    rows: Sequence[SplitRecord]
    record_of: Mapping[str, FilmRecord]  # path below data/raw → manifest row
    source_of: Mapping[str, str]  # path → where the film seems to come from

    @staticmethod
    def read(data_dir: Path) -> "Films":
        """From data/split.csv and data/raw/manifest.csv."""
        records = read_manifest(data_dir)
        found = dict(
            zip((record.path for record in records), provenance.sources(records), strict=True)
        )
        rows = [row for row in read_split(data_dir) if row.split]
        missing = [row.path for row in rows if row.path not in found]
        if missing:
            raise JobError(
                f"{missing[0]} is in split.csv and not in the manifest. Run the split job again."
            )
        return Films(rows, {record.path: record for record in records}, found)

    def baselines(
        self, data_dir: Path, seed: int, cores: int, readers: int
    ) -> list[dict[str, str]]:
        """What each baseline, grown on the training films, answers for each test film: rows of
        baselines.csv.
        """
        rows = [row for row in self.rows if row.split in ("train", "test")]
        thumbnails = map_ordered(lambda row: _thumbnail(data_dir / row.file), rows, readers)
        seen = {
            "metadata": baselines.metadata([self.record_of[row.path] for row in rows]),
            "thumbnail": np.stack(list(thumbnails)).reshape(len(rows), -1).astype(np.float32),
        }
        is_train = np.array([row.split == "train" for row in rows])
        labels = [row.label for row in rows if row.split == "train"]
        tests = [row for row in rows if row.split == "test"]
        answers: list[dict[str, str]] = [
            {"path": f"{row.label}/{PurePosixPath(row.path).name}"} for row in tests
        ]
        for name, features in seen.items():
            classes, probabilities = baselines.predict(
                features[is_train], labels, features[~is_train], seed, cores
            )
            for answer, best in zip(answers, probabilities.argmax(axis=1), strict=True):
                answer[name] = classes[best]
        return answers


def assess(
    predictions: pd.DataFrame,
    rivals: Sequence[Mapping[str, str]],
    learnt: Calibration | None,
    positive: str,
    prevalences: Sequence[float],
    seed: int,
) -> dict[str, Any]:
    """What metrics.json says beside the plain scores. Entries are empty where something they need
    is missing.
    """
    answers = metrics.answers_of(predictions)
    review = predictions["needs_review"].eq("True")
    found: dict[str, Any] = {
        "groups": len(set(answers.groups)),
        "points": {
            name: value if np.isfinite(value) else None
            for name, value in intervals.point_scores(answers).items()
        },
        "intervals": intervals.all_intervals(answers, seed),
        "sources": metrics.per_source(predictions, seed),
        "review": {
            "share": float(review.mean()),
            "accuracy_of_the_rest": _accuracy(predictions[~review]),
        },
        "calibration": {},
        "conformal": {},
        "operating_point": {},
        "baselines": {},
        "verdict": {},
    }
    if learnt:
        found["calibration"] = metrics.calibration_scores(answers, learnt)
        found["conformal"] = metrics.conformal_scores(answers, learnt)
        if positive in learnt.thresholds and metrics.has_both_sides(answers, positive):
            found["operating_point"] = metrics.operating_point(
                answers, positive, learnt.thresholds[positive], prevalences, seed
            )
    if rivals:
        inside = _inside_sources(predictions, rivals)
        found["sources"] = [row | {"baselines": inside[row["source"]]} for row in found["sources"]]
        found["baselines"] = _against(answers, predictions, rivals, seed)
        found["verdict"] = baselines.verdict(
            found["points"]["macro_f1"],
            found["intervals"]["macro_f1"],
            {name: rival["macro_f1"] for name, rival in found["baselines"].items()},
            {name: rival["margin"] for name, rival in found["baselines"].items()},
            chance=1 / len(answers.classes),
        )
    return found


def earlier(
    folder: Path, films: Sequence[str], labels: Sequence[str], classes: Sequence[str]
) -> pd.DataFrame:
    """The predictions of an earlier evaluation in `folder`, of the same films.

    Raises:
        JobError: there is none, or it scored other films or classes.
    """
    file = folder / "predictions.csv"
    if not file.exists():
        raise JobError(
            f"--compare {folder}: there is no {file}. Give the folder of an earlier evaluation."
        )
    other = metrics.read_predictions(file)
    if other["path"].tolist() != list(films) or other["label"].tolist() != list(labels):
        raise JobError(
            f"--compare {folder} scored other films: evaluate both models on the same split."
        )
    if metrics.classes_of(other) != list(classes):
        raise JobError(
            f"--compare {folder} knows other classes: {', '.join(metrics.classes_of(other))}."
        )
    return other


def compare(predictions: pd.DataFrame, other: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Paired differences on the films that both could read, `predictions` minus the `earlier` ones,
    with intervals.
    """
    both = predictions["prediction"].ne("").to_numpy() & other["prediction"].ne("").to_numpy()
    first, second = metrics.answers_of(other[both]), metrics.answers_of(predictions[both])
    return {
        name: {"difference": difference if np.isfinite(difference) else None, "interval": interval}
        for name, (difference, interval) in intervals.differences(first, second, seed).items()
    }


def _against(
    answers: Answers, predictions: pd.DataFrame, rivals: Sequence[Mapping[str, str]], seed: int
) -> dict[str, dict[str, Any]]:
    said = (
        pd.DataFrame(rivals)
        .set_index("path")
        .loc[predictions["path"][predictions["prediction"].ne("")]]
    )
    found = {}
    for name in BASELINES:
        predicted = np.array([list(answers.classes).index(value) for value in said[name]])
        rival = Answers(
            answers.targets,
            predicted,
            np.eye(len(answers.classes))[predicted],
            answers.groups,
            answers.classes,
        )
        score = float(intervals.macro_f1(rival, np.ones((1, len(predicted))))[0])
        margin = intervals.bootstrap(answers.groups, partial(_margin, rival, answers), seed)[
            "macro_f1"
        ]
        found[name] = {
            "what": baselines.BASELINES[name],
            "macro_f1": score,
            "margin": intervals.interval(margin),
        }
    return found


def _inside_sources(
    predictions: pd.DataFrame, rivals: Sequence[Mapping[str, str]]
) -> dict[str, dict[str, float]]:
    """Accuracy of each baseline inside each source: what still tells the classes apart where the
    source does not.
    """
    answered = predictions[predictions["prediction"].ne("")]
    said = pd.DataFrame(rivals).set_index("path").loc[answered["path"]].reset_index()
    right = said[list(BASELINES)].eq(answered["label"].reset_index(drop=True), axis=0)
    means = right.groupby(answered["source"].to_numpy()).mean()
    return {
        str(source): {name: float(row[name]) for name in BASELINES}
        for source, row in means.iterrows()
    }


def _margin(rival: Answers, answers: Answers, weights: np.ndarray) -> intervals.Scores:
    return {"macro_f1": intervals.macro_f1(answers, weights) - intervals.macro_f1(rival, weights)}


def _accuracy(rows: pd.DataFrame) -> float | None:
    answered = rows[rows["prediction"].ne("")]
    return float((answered["label"] == answered["prediction"]).mean()) if len(answered) else None


def _thumbnail(path: Path) -> np.ndarray:
    try:
        return read_grey(path, THUMBNAIL_SIDE, ANY_SIZE, trust_headers=True)
    except UnreadableFilmError:
        return np.zeros((THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)
