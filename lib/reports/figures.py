"""How results look: the figures that the jobs leave beside their numbers."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.evaluation.metrics import PROBABILITY, classes_of
from lib.images.decode import ANY_SIZE, read_grey
from lib.reports import figures
from lib.run.errors import UnreadableFilmError
from lib.storage.atomic import whole_file

_INK = "#010203"  # drawn in this colour, shown in the page's

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
    """One picture of an evaluation: confusion matrix, ROC curves, and films with the answers they
    got.

    `films` is the folder that the `path` column starts from. The upper row shows films that were
    answered right, a random one or two per class; the lower row the most confident errors.
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
            read_grey(films / row["path"], THUMBNAIL_SIDE, ANY_SIZE, trust_headers=True),
            cmap="gray",
            vmin=0,
            vmax=255,
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


def _figures(predictions: pd.DataFrame, scores: Mapping[str, Any]) -> dict[str, Markup]:
    rows = predictions[predictions["prediction"].ne("")]
    side = (3.6, 3.4) if len(scores["classes"]) <= figures.FEW_CLASSES else (5.6, 5.4)
    found = {
        "confusion": _svg(
            *side, lambda axes: figures.draw_confusion(axes, scores), "Confusion matrix"
        ),
        "roc": _svg(3.9, 3.6, lambda axes: figures.draw_roc(axes, rows, scores), "ROC curves"),
        "precision_recall": _svg(
            3.9, 3.6, lambda axes: _draw_precision_recall(axes, rows), "Precision and recall"
        ),
    }
    if scores["calibration"]:
        found["reliability"] = _svg(
            3.9, 3.6, lambda axes: _draw_reliability(axes, scores["calibration"]), "Reliability"
        )
    if scores["baselines"]:
        found["baselines"] = _svg(
            5.2, 1.9, lambda axes: _draw_baselines(axes, scores), "Model beside its baselines"
        )
    return found


def _svg(width: float, height: float, draw: Callable[[Axes], None], title: str) -> Markup:
    style: dict[Any, Any] = dict.fromkeys(
        ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), _INK
    )
    with mpl.rc_context(
        {
            **style,
            "svg.fonttype": "none",
            "svg.hashsalt": title,
            "font.family": "sans-serif",
            "font.size": 9,
        }
    ):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{title}"', 1))  # noqa: S704  # our own figure, no user's text


def _draw_precision_recall(axes: Axes, rows: pd.DataFrame) -> None:
    from sklearn.metrics import average_precision_score, precision_recall_curve

    classes = classes_of(rows)
    for style, name, called in zip(
        figures.line_styles(classes), classes, figures.short(classes), strict=True
    ):
        positive = rows["label"].eq(name).to_numpy()
        if positive.any() and not positive.all():
            precision, recall, _ = precision_recall_curve(positive, rows[PROBABILITY + name])
            area = average_precision_score(positive, rows[PROBABILITY + name])
            axes.plot(recall, precision, **style, label=f"{area:.3f} {called}")
    axes.set(
        xlabel="recall",
        ylabel="precision",
        title="precision and recall, average precision",
        xlim=(0, 1.02),
        ylim=(0, 1.02),
    )
    small = "small" if len(classes) > figures.FEW_CLASSES else None
    figures.name_curves(axes, loc="lower left", labelcolor=_INK, fontsize=small)
    figures.tidy(axes)


def _draw_reliability(axes: Axes, learnt: Mapping[str, Any]) -> None:
    axes.plot([0, 1], [0, 1], color="#a0aec0", linestyle=":")
    for colour, name in zip(figures.COLOURS[1::-1], ("before", "after"), strict=True):
        bins = learnt[name]["bins"]
        sizes = [8 + 120 * count / sum(row[0] for row in bins) for count, _, _ in bins]
        axes.plot([row[1] for row in bins], [row[2] for row in bins], color=colour, linewidth=1)
        axes.scatter(
            [row[1] for row in bins],
            [row[2] for row in bins],
            sizes,
            color=colour,
            label=f"{name}, ECE {learnt[name]['ece']:.3f}",
        )
    axes.set(
        xlabel="confidence", ylabel="accuracy", title="reliability", xlim=(0, 1.02), ylim=(0, 1.04)
    )
    axes.legend(frameon=False, loc="upper left", labelcolor=_INK)
    figures.tidy(axes)


def _draw_baselines(axes: Axes, scores: Mapping[str, Any]) -> None:
    names = ["model", *scores["baselines"]]
    values = [scores["macro_f1"], *(rival["macro_f1"] for rival in scores["baselines"].values())]
    axes.barh(
        range(len(names))[::-1],
        values,
        color=[figures.COLOURS[0], *["#a0aec0"] * (len(names) - 1)],
        height=0.6,
    )
    for place, value in zip(range(len(names))[::-1], values, strict=True):
        axes.text(value + 0.01, place, f"{value:.3f}", va="center")
    axes.axvline(1 / len(scores["classes"]), color="#a0aec0", linestyle=":")
    axes.set_yticks(
        range(len(names))[::-1],
        [{"metadata": "file metadata", "thumbnail": "32 x 32 thumbnail"}.get(n, n) for n in names],
    )
    axes.set(xlim=(0, 1.12), xlabel="macro-F1 on the test films; dotted: chance")
    figures.tidy(axes)


def _curves(history: pd.DataFrame) -> dict[str, Markup]:
    def draw(what: str) -> Callable[[Axes], None]:
        def on(axes: Axes) -> None:
            for part, colour in (("train", figures.COLOURS[0]), ("val", figures.COLOURS[1])):
                axes.plot(
                    history["epoch"],
                    history[f"{part}_{what}"],
                    "o-",
                    color=colour,
                    label=part,
                    markersize=3,
                )
            axes.set(xlabel="epoch", title=what, xticks=history["epoch"])
            axes.legend(frameon=False, labelcolor=_INK)
            figures.tidy(axes)

        return on

    return {what: _svg(3.6, 2.4, draw(what), f"{what} by epoch") for what in ("loss", "accuracy")}
