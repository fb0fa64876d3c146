"""How results look: the figures that the jobs leave beside their numbers."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.evaluation.metrics import PROBABILITY, classes_of
from lib.images.decode import ANY_SIZE, read_grey
from lib.run.errors import UnreadableFilmError
from lib.storage.atomic import whole_file

COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#805ad5", "#b83280", "#4a5568")
THUMBNAIL_SIDE = 256
FEW_CLASSES = 6  # beyond it figures use smaller letters


def curves(history: Sequence[Mapping[str, Any]], phase: str, path: Path) -> None:
    """Loss and accuracy per epoch, training and validation, the best epoch marked."""
    table = pd.DataFrame(history)
    best = table.sort_values(["val_accuracy", "val_loss"], ascending=[False, True]).iloc[0]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, what in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for part, colour in (("train", COLOURS[0]), ("val", COLOURS[1])):
            axes.plot(
                table["epoch"],
                table[f"{part}_{what}"],
                "o-",
                color=colour,
                label=part,
                markersize=4,
            )
        axes.axvline(best["epoch"], color="#a0aec0", linestyle=":", label="best epoch")
        axes.set(xlabel="epoch", title=what, xticks=table["epoch"])
        axes.legend(frameon=False)
        tidy(axes)
    figure.suptitle(f"Phase {phase.upper()}")
    _save(figure, path)


def confusion(scores: Mapping[str, Any], path: Path) -> None:
    """Confusion matrix: counts, shaded by the share of the true class."""
    figure = Figure(figsize=(1.6 + 1.1 * len(scores["classes"]),) * 2, layout="constrained")
    draw_confusion(figure.subplots(), scores)
    _save(figure, path)


def roc(predictions: pd.DataFrame, scores: Mapping[str, Any], path: Path) -> None:
    """One-vs-rest ROC curve per class with its area."""
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    draw_roc(figure.subplots(), predictions, scores)
    _save(figure, path)


def overview(
    predictions: pd.DataFrame, scores: Mapping[str, Any], films: Path, path: Path, seed: int
) -> None:
    """One picture of an evaluation: confusion matrix, ROC curves, and films with the answers they got.

    `films` is the folder that the `path` column starts from. The upper row shows films that were answered right, a
    random one or two per class; the lower row the most confident errors.
    """
    right = predictions[predictions["label"] == predictions["prediction"]]
    wrong = predictions[
        (predictions["label"] != predictions["prediction"]) & predictions["prediction"].ne("")
    ]
    sample = (
        right.sample(frac=1, random_state=seed)
        .groupby("label", sort=True)
        .head(2)
        .sort_values("label")
        .head(6)
    )
    worst = wrong.sort_values("confidence", ascending=False).head(6)
    figure = Figure(figsize=(12, 9), layout="constrained")
    scores_row, *film_rows = figure.subfigures(3, 1, height_ratios=(1.75, 1, 1)).flat  # type: ignore[union-attr]
    left, middle, text = scores_row.subplots(1, 3, width_ratios=(1, 1, 0.62))
    draw_confusion(left, scores)
    draw_roc(middle, predictions, scores)
    summary = [
        f"test films   {scores['films']}",
        f"accuracy     {scores['accuracy']:.3f}",
        f"macro-F1     {scores['macro_f1']:.3f}",
    ]
    text.text(
        0, 0.5, "\n".join(summary), family="monospace", fontsize=12, va="center", linespacing=1.8
    )
    text.axis("off")
    titles = ("Answered right, a random sample", "Answered wrong, the most confident first")
    for row, title, rows in zip(film_rows, titles, (sample, worst), strict=True):
        row.suptitle(title if len(rows) else f"{title}: none", fontsize=10, x=0.01, ha="left")
        for column, axes in enumerate(row.subplots(1, 6)):
            axes.axis("off")
            if column < len(rows):
                _draw_film(axes, rows.iloc[column], films)
    _save(figure, path)


def draw_confusion(axes: Axes, scores: Mapping[str, Any]) -> None:
    """Counts on `axes`, shaded by the share of the true class."""
    counts = np.array(scores["confusion_matrix"])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = 10 if len(counts) <= FEW_CLASSES else 6
    for row, column in np.ndindex(*counts.shape):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(
            column, row, str(counts[row, column]), ha="center", va="center", color=colour, size=size
        )
    ticks, names = range(len(scores["classes"])), short(scores["classes"])
    many = len(ticks) > FEW_CLASSES
    axes.set_xticks(ticks, names, rotation=90 if many else 0)
    axes.set_yticks(ticks, names)
    axes.tick_params(labelsize=7 if many else 9)
    axes.set(xlabel="predicted", ylabel="true", title="confusion matrix")


def draw_roc(axes: Axes, predictions: pd.DataFrame, scores: Mapping[str, Any]) -> None:
    """One-vs-rest ROC curves on `axes`."""
    from sklearn.metrics import roc_curve

    rows = predictions[predictions["prediction"].ne("")]
    classes = classes_of(predictions)
    for style, name, called in zip(line_styles(classes), classes, short(classes), strict=True):
        area = scores["per_class"][name]["auroc"]
        if area is not None:
            false_rate, true_rate, _ = roc_curve(rows["label"] == name, rows[PROBABILITY + name])
            axes.plot(false_rate, true_rate, **style, label=f"{area:.3f} {called}")
    axes.plot([0, 1], [0, 1], color="#a0aec0", linestyle=":")
    axes.set(
        xlabel="1 − specificity",
        ylabel="sensitivity",
        title="one-vs-rest ROC, AUROC",
        aspect="equal",
    )
    small = "small" if len(classes) > FEW_CLASSES else None
    name_curves(axes, loc="lower right", labelcolor=mpl.rcParams["text.color"], fontsize=small)
    tidy(axes)


def _draw_film(axes: Axes, row: "pd.Series[Any]", films: Path) -> None:
    try:
        axes.imshow(
            read_grey(films / row["path"], THUMBNAIL_SIDE, ANY_SIZE), cmap="gray", vmin=0, vmax=255
        )
    except UnreadableFilmError:
        return
    answer = f"{row['prediction']} {row['confidence']:.0%}"
    right = row["label"] == row["prediction"]
    axes.set_title(
        answer if right else f"{answer}\nis {row['label']}",
        fontsize=8,
        color="black" if right else "#c53030",
    )


def short(names: Sequence[str]) -> list[str]:
    """Class names that fit below a tick and can still be told apart."""
    for cut in (lambda name: f"{name[:8]}…", lambda name: f"{name[:4]}…{name[-6:]}", str):
        found = [
            name if len(name) <= 9 else {"TUBERCULOSIS": "TB"}.get(name) or cut(name)
            for name in names
        ]
        if len(set(found)) == len(names):
            break
    return found


def line_styles(classes: Sequence[str]) -> list[dict[str, Any]]:
    """Colour and dashes of each class's curve: no two alike for up to 24 classes."""
    return [
        {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": ("-", "--", "-.", ":")[number // len(COLOURS) % 4],
        }
        for number in range(len(classes))
    ]


def name_curves(axes: Axes, **how: Any) -> None:
    """A legend, where any class has a curve: matplotlib complains of an empty one."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, **how)


def tidy(axes: Axes) -> None:
    """No box, a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def save_text(path: Path, text: str) -> None:
    """A page, whole or not at all."""
    with whole_file(path) as file:
        file.write(text.encode())


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    with whole_file(path) as file:
        file.write(buffer.getbuffer())
