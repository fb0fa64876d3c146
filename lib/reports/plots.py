"""Plots: each function draws one on a matplotlib Axes."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lib.evaluation.baselines import BASELINES
from lib.evaluation.predictions import PROBABILITY, classes_of
from lib.evaluation.results import BaselineScores, CalibrationScores, Evaluation
from lib.prediction.classes import KNOWN_CLASSES
from lib.reports.style import COLOURS, GREY, tidy

DASHES = ("-", "--", "-.", ":")
FEW_CLASSES = 6  # with more classes figures use smaller letters
_LONGEST_NAME = 9  # characters that fit below a tick


def draw_confusion(axes: Axes, evaluation: Evaluation) -> None:
    """Confusion matrix: counts, shaded by the share of the true class."""
    counts = np.array(evaluation.confusion_matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    many = len(counts) > FEW_CLASSES
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape):
        colour = "white" if shares[row, column] > 0.5 else "black"
        count, size = str(counts[row, column]), 6 if many else 10
        axes.text(column, row, count, ha="center", va="center", color=colour, size=size)
    ticks, names = range(len(counts)), short_names(evaluation.classes)
    axes.set_xticks(ticks, names, rotation=90 if many else 0)
    axes.set_yticks(ticks, names)
    axes.tick_params(labelsize=7 if many else 9)
    axes.set(xlabel="predicted", ylabel="true", title="confusion matrix")


def draw_roc(axes: Axes, predictions: pd.DataFrame, evaluation: Evaluation) -> None:
    """One-vs-rest ROC curve and its area for each class."""
    from sklearn.metrics import roc_curve

    rows = predictions[predictions["prediction"].ne("")]
    classes = evaluation.classes
    for style, name, short in zip(line_styles(classes), classes, short_names(classes), strict=True):
        area = evaluation.scores.per_class[name].auroc.value
        if area is not None:
            false_rate, true_rate, _ = roc_curve(rows["label"] == name, rows[PROBABILITY + name])
            axes.plot(false_rate, true_rate, **style, label=f"{area:.3f} {short}")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":")
    axes.set(xlabel="1 − specificity", ylabel="sensitivity", aspect="equal")
    axes.set(title="one-vs-rest ROC, AUROC")
    _add_legend(axes, "lower right", classes)
    tidy(axes)


def draw_precision_recall(axes: Axes, predictions: pd.DataFrame) -> None:
    """Precision-recall curve and average precision for each class."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    rows = predictions[predictions["prediction"].ne("")]
    classes = classes_of(rows)
    for style, name, short in zip(line_styles(classes), classes, short_names(classes), strict=True):
        positive, probability = rows["label"].eq(name).to_numpy(), rows[PROBABILITY + name]
        if positive.any() and not positive.all():
            precision, recall, _ = precision_recall_curve(positive, probability)
            area = average_precision_score(positive, probability)
            axes.plot(recall, precision, **style, label=f"{area:.3f} {short}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.set(title="precision and recall, average precision")
    _add_legend(axes, "lower left", classes)
    tidy(axes)


def draw_reliability(axes: Axes, calibration: CalibrationScores) -> None:
    """Accuracy by confidence, before and after the temperature."""
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":")
    curves = {"before": calibration.before, "after": calibration.after}
    for colour, (name, curve) in zip(COLOURS[1::-1], curves.items(), strict=True):
        confidence = [row.confidence for row in curve.bins]
        accuracy = [row.accuracy for row in curve.bins]
        films = sum(row.films for row in curve.bins)
        sizes = [8 + 120 * row.films / films for row in curve.bins]
        label = f"{name}, ECE {curve.ece:.3f}"
        axes.plot(confidence, accuracy, color=colour, linewidth=1)
        axes.scatter(confidence, accuracy, sizes, color=colour, label=label)
    axes.set(xlabel="confidence", ylabel="accuracy", title="reliability")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.04))
    axes.legend(frameon=False, loc="upper left", labelcolor=mpl.rcParams["text.color"])
    tidy(axes)


def draw_baselines(
    axes: Axes, macro_f1: float, baselines: Mapping[str, BaselineScores], chance: float
) -> None:
    """Macro-F1 of the model beside that of its baselines."""
    names = ["model", *(BASELINES[name].short for name in baselines)]
    values = [macro_f1, *(baseline.macro_f1 for baseline in baselines.values())]
    places = range(len(names))[::-1]
    axes.barh(places, values, color=[COLOURS[0], *[GREY] * len(baselines)], height=0.6)
    for place, value in zip(places, values, strict=True):
        axes.text(value + 0.01, place, f"{value:.3f}", va="center")
    axes.axvline(chance, color=GREY, linestyle=":")
    axes.set_yticks(places, names)
    axes.set(xlim=(0, 1.12), xlabel="macro-F1 on the same films; dotted: chance")
    tidy(axes)


def short_names(names: Sequence[str]) -> list[str]:
    """Class names short enough for a tick, all different."""
    shorts = list(names)
    for shorten in (_beginning, _beginning_and_end, str):
        shorts = [_short_name(name) or shorten(name) for name in names]
        if len(set(shorts)) == len(names):
            break
    return shorts


def line_styles(classes: Sequence[str]) -> list[dict[str, Any]]:
    """Colour and dashes of each class's curve: all different for up to 24 classes."""
    return [
        {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": DASHES[number // len(COLOURS) % len(DASHES)],
        }
        for number in range(len(classes))
    ]


def _add_legend(
    axes: Axes, place: Literal["lower left", "lower right"], classes: Sequence[str]
) -> None:
    """A legend if there is any curve: matplotlib warns about an empty one."""
    if axes.get_legend_handles_labels()[0]:
        size = "small" if len(classes) > FEW_CLASSES else mpl.rcParams["legend.fontsize"]
        colour = mpl.rcParams["text.color"]
        axes.legend(frameon=False, loc=place, labelcolor=colour, fontsize=size)


def _short_name(name: str) -> str:
    if len(name) <= _LONGEST_NAME:
        return name
    return KNOWN_CLASSES[name].short if name in KNOWN_CLASSES else ""


def _beginning(name: str) -> str:
    return f"{name[:8]}…"


def _beginning_and_end(name: str) -> str:
    return f"{name[:4]}…{name[-6:]}"
