"""Figures: plots put together into PNG files, and into SVG for a page."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from lib.evaluation.films import EvaluationSet
from lib.evaluation.results import Evaluation
from lib.images.decode import ANY_SIZE, read_grey
from lib.reports import plots
from lib.reports.curves import draw_history, write_png
from lib.run.errors import UnreadableFilmError

THUMBNAIL_SIDE = 256  # pixels
FILMS_PER_ROW = 6
_INK = "#010203"  # stands for the page's text colour in an SVG


def confusion(evaluation: Evaluation, path: Path) -> None:
    """confusion.png."""
    side = 1.6 + 1.1 * len(evaluation.classes)
    figure = Figure(figsize=(side, side), layout="constrained")
    plots.draw_confusion(figure.subplots(), evaluation)
    write_png(figure, path)


def roc(predictions: pd.DataFrame, evaluation: Evaluation, path: Path) -> None:
    """roc.png."""
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    plots.draw_roc(figure.subplots(), predictions, evaluation)
    write_png(figure, path)


def overview(
    predictions: pd.DataFrame, evaluation: Evaluation, films: EvaluationSet, path: Path, seed: int
) -> None:
    """overview.png: confusion matrix, ROC curves, and films with their predictions.

    The upper row of films are correct predictions, a random one or two per class; the lower row the
    most confident errors.
    """
    right = predictions[predictions["label"] == predictions["prediction"]]
    shuffled = right.sample(frac=1, random_state=seed)
    sample = shuffled.groupby("label", sort=True).head(2).sort_values("label")
    worst = errors_of(predictions)
    figure = Figure(figsize=(12, 9), layout="constrained")
    scores, upper, lower = figure.subfigures(3, 1, height_ratios=(1.75, 1, 1)).flat  # type: ignore[union-attr]
    _draw_scores(scores, predictions, evaluation, films.kind)
    _draw_films(upper, "Correct predictions, a random sample", sample, films.file_of)
    _draw_films(lower, "Wrong predictions, the most confident first", worst, films.file_of)
    write_png(figure, path)


def errors_of(predictions: pd.DataFrame) -> pd.DataFrame:
    """The rows with a wrong prediction, the most confident first."""
    is_wrong = predictions["label"] != predictions["prediction"]
    wrong = predictions[is_wrong & predictions["prediction"].ne("")]
    return wrong.sort_values("confidence", ascending=False)


def evaluation_figures(predictions: pd.DataFrame, evaluation: Evaluation) -> dict[str, Markup]:
    """The figures of the report as SVG, by name; only those that the evaluation has numbers for."""
    few = len(evaluation.classes) <= plots.FEW_CLASSES
    calibration, baselines = evaluation.calibration, evaluation.baselines
    macro_f1, chance = evaluation.scores.macro_f1.value or 0.0, 1 / evaluation.classes_with_films
    figures = {
        "confusion": svg(
            (3.6, 3.4) if few else (5.6, 5.4),
            lambda axes: plots.draw_confusion(axes, evaluation),
            "Confusion matrix",
        ),
        "roc": svg(
            (3.9, 3.6), lambda axes: plots.draw_roc(axes, predictions, evaluation), "ROC curves"
        ),
        "precision_recall": svg(
            (3.9, 3.6),
            lambda axes: plots.draw_precision_recall(axes, predictions),
            "Precision and recall",
        ),
    }
    if calibration:
        figures["reliability"] = svg(
            (3.9, 3.6), lambda axes: plots.draw_reliability(axes, calibration), "Reliability"
        )
    if baselines:
        figures["baselines"] = svg(
            (5.2, 0.7 + 0.4 * (1 + len(baselines))),
            lambda axes: plots.draw_baselines(axes, macro_f1, baselines, chance),
            "Model beside its baselines",
        )
    return figures


def history_figures(history: pd.DataFrame) -> dict[str, Markup]:
    """Loss and accuracy by epoch as SVG."""
    columns = {str(name): values.tolist() for name, values in history.items()}

    def draw(axes: Axes, what: str) -> None:
        draw_history(axes, columns, what, markersize=3)
        axes.legend(frameon=False, labelcolor=_INK)

    return {
        what: svg((3.6, 2.4), lambda axes, what=what: draw(axes, what), f"{what} by epoch")  # type: ignore[misc]
        for what in ("loss", "accuracy")
    }


def svg(size: tuple[float, float], draw: Callable[[Axes], None], title: str) -> Markup:
    """A plot as an SVG element in the colours of the page around it; `size` is in inches."""
    coloured = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor")
    style: dict[Any, Any] = dict.fromkeys(coloured, _INK)
    style |= {"svg.fonttype": "none", "svg.hashsalt": title}
    style |= {"font.family": "sans-serif", "font.size": 9}
    with mpl.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{title}"', 1))  # noqa: S704  # our own figure, no user's text


def _draw_scores(
    figure: SubFigure, predictions: pd.DataFrame, evaluation: Evaluation, kind: str
) -> None:
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 0.62))
    plots.draw_confusion(left, evaluation)
    plots.draw_roc(middle, predictions, evaluation)
    scores = evaluation.scores
    summary = (
        f"{kind:<14} {evaluation.films}\n"
        f"{'accuracy':<14} {scores.accuracy.value:.3f}\n"
        f"{'macro-F1':<14} {scores.macro_f1.value:.3f}"
    )
    right.text(0, 0.5, summary, family="monospace", fontsize=12, va="center", linespacing=1.8)
    right.axis("off")


def _draw_films(
    figure: SubFigure, title: str, rows: pd.DataFrame, file_of: Mapping[str, Path]
) -> None:
    title = title if len(rows) else f"{title}: none"
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    for column, axes in enumerate(figure.subplots(1, FILMS_PER_ROW)):
        axes.axis("off")
        if column < len(rows):
            _draw_film(axes, rows.iloc[column], file_of)


def _draw_film(axes: Axes, row: "pd.Series[Any]", file_of: Mapping[str, Path]) -> None:
    try:
        grey = read_grey(file_of[row["path"]], THUMBNAIL_SIDE, ANY_SIZE, trust_headers=True)
    except UnreadableFilmError:
        return
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255)
    prediction = f"{row['prediction']} {row['confidence']:.0%}"
    if row["label"] == row["prediction"]:
        axes.set_title(prediction, fontsize=8, color="black")
    else:
        axes.set_title(f"{prediction}\nis {row['label']}", fontsize=8, color="#c53030")
