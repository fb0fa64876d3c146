"""The three tables of an evaluation, from which every score is computed."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lib.evaluation import baselines, source_probe
from lib.evaluation.films import EvaluationSet, LabelledFilm
from lib.evaluation.model import Scored
from lib.evaluation.predictions import read_predictions, write_table
from lib.evaluation.request import Request
from lib.images.reader import Film
from lib.prediction.prediction import Prediction
from lib.prediction.rows import BETWEEN_REASONS, RowSchema, row_of
from lib.prediction.triage import UNLIKE
from lib.run import console
from lib.storage import atomic


def predict(
    request: Request, films: EvaluationSet, scored: Scored
) -> tuple[pd.DataFrame, list[Prediction]]:
    """Write predictions.csv, one row per film, and read it again.

    A film that could not be examined is not read again. For --recalibrate also the outputs of the
    network, in the order of the rows.
    """
    files = [film.file for film in films.films if not film.record.problem]
    schema = RowSchema(scored.manifest.classes, probability_format=".9g")
    answers = console.track(scored.predictor.predict(files), films.kind, len(files))
    rows, outputs = [], []
    for film in films.films:
        problem = film.record.problem
        answer = Prediction(Film(film.file, problem)) if problem else next(answers)
        row = row_of(film.name, answer, scored.triage, scored.manifest.name)
        rows.append(labelled_cells(film, schema.cells(row)))
        if request.recalibrate:
            outputs.append(answer.without_pixels())
    withdraw_earlier(request.folder, {"repeats.csv"} if request.repeats else set())
    return write_predictions(request.folder / "predictions.csv", rows), outputs


def withdraw_earlier(folder: Path, written: Collection[str] = ()) -> None:
    """Delete what an earlier evaluation left in `folder` and this one may not write again.

    To be called before the first new table is written, and not while the evaluation can still be
    refused. metrics.json goes first, because where it is, the folder is complete. What this
    evaluation has `written` stays.
    """
    names = ("metrics.json", "thresholds.csv", "recalibrated.csv", "leave_source_out.csv")
    for name in (*names, "repeats.csv"):
        if name not in written:
            (folder / name).unlink(missing_ok=True)


def write_predictions(path: Path, rows: Sequence[Mapping[str, str]]) -> pd.DataFrame:
    """Write a table of predictions, and read it again."""
    atomic.write_csv(path, list(rows[0]), rows)
    return read_predictions(path)


def compute_of(request: Request, scored: Scored) -> baselines.Compute:
    """What baselines may use. What was computed for a film once is known to all of them."""
    return baselines.Compute(
        request.seed, request.cores, request.readers, scored.lungless, scored.thumbnails
    )


def predict_baselines(request: Request, films: EvaluationSet, scored: Scored) -> pd.DataFrame:
    """Write baselines.csv; without rows where none is wanted or there is no training film."""
    table = baselines.no_baselines()
    if request.baselines and films.training:
        compute = compute_of(request, scored)
        table = baselines.predict_baselines(films, compute)
    write_table(request.folder / "baselines.csv", table)
    return table


def probe_sources(request: Request, films: EvaluationSet, scored: Scored) -> pd.DataFrame:
    """Write source_probe.csv; without rows like baselines.csv, or if no class has two sources.

    Films from elsewhere are not probed: the features are those of the model, and known at home.
    """

    def features_of(files: Sequence[Path]) -> list[Any]:
        answers = console.track(scored.predictor.predict(files), "films of the probe", len(files))
        return [answer.features for answer in answers]

    table = source_probe.no_probe()
    if request.baselines and films.training and not films.elsewhere:
        table = source_probe.probe_sources(films, features_of, request.seed)
    write_table(request.folder / "source_probe.csv", table)
    return table


def labelled_cells(film: LabelledFilm, cells: Mapping[str, str]) -> dict[str, str]:
    """A row of predictions.csv: the film's own columns among the cells of its prediction."""
    label = {"path": film.name, "label": film.label}
    origin = {"group": film.group, "source": film.source}
    behind = ("needs_review", "reasons", "outside_lungs", "distance", "error")
    of_file = ("width", "height", "maker", "view")
    before = [name for name in cells if name not in (*behind, *of_file, "path", "model")]
    return {
        **label,
        **{name: cells[name] for name in before},
        **origin,
        **{name: cells[name] for name in behind},
    }


def share_unlike(predictions: pd.DataFrame) -> float:
    """Share of the films with a prediction that are out of distribution."""
    reasons = predictions["reasons"][predictions["prediction"].ne("")]
    return float(reasons.map(lambda text: UNLIKE in text.split(BETWEEN_REASONS)).mean())
