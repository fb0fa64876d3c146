"""The files that an evaluation leaves behind, beside its tables."""

from pathlib import Path

import pandas as pd

from lib.evaluation.labelled_table import LabelledEvaluation
from lib.evaluation.operating_point import threshold_table
from lib.evaluation.predictions import LabelledPredictions, write_table
from lib.evaluation.results import Evaluation
from lib.evaluation.tables import withdraw_earlier
from lib.reports import figures, pages
from lib.reports.labelled_page import write_labelled_report
from lib.reports.pages import Study
from lib.storage import atomic


def write_all(study: Study, folder: Path, report: Path, model_card: Path | None) -> None:
    """Write thresholds, figures, pages and last metrics.json: where it is, the rest is complete.

    The tables are there, and no metrics.json of an earlier evaluation beside them.
    """
    evaluation, predictions = study.evaluation, study.predictions
    _write_thresholds(evaluation, predictions, folder / "thresholds.csv")
    figures.confusion(evaluation, folder / "confusion.png")
    figures.roc(predictions, evaluation, folder / "roc.png")
    overview = folder / "overview.png"
    figures.overview(predictions, evaluation, study.films, overview, study.seed)
    pages.write_report(report, study)
    if model_card:
        pages.write_model_card(model_card, study)
    atomic.write_json(folder / "metrics.json", evaluation.to_json())


def write_scores(scored: LabelledEvaluation, folder: Path, report: Path, seed: int) -> None:
    """Write what needs no film: the scored rows, thresholds, two figures, the page and last
    metrics.json.
    """
    evaluation, predictions = scored.evaluation, scored.predictions
    withdraw_earlier(folder)
    write_table(folder / "predictions.csv", predictions)
    _write_thresholds(evaluation, predictions, folder / "thresholds.csv")
    figures.confusion(evaluation, folder / "confusion.png")
    figures.roc(predictions, evaluation, folder / "roc.png")
    write_labelled_report(report, scored, seed)
    atomic.write_json(folder / "metrics.json", evaluation.to_json())


def _write_thresholds(evaluation: Evaluation, predictions: pd.DataFrame, path: Path) -> None:
    point = evaluation.operating_point
    if point:
        labelled = LabelledPredictions.of(predictions)
        prevalences = [row.prevalence for row in point.predictive_values]
        rows = threshold_table(labelled, point.positive, prevalences)
        atomic.write_csv(path, list(rows[0]), rows)
