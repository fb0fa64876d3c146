"""runs/report.html, one file that needs nothing else, and the model card: built from what the jobs left on disk."""

import base64
import heapq
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from lib.dataset.audit import Audit
from lib.dataset.manifest import FilmRecord
from lib.evaluation.metrics import PROBABILITY, classes_of
from lib.images.decode import ANY_SIZE, read_grey
from lib.network.graph import ModelCard, Prediction
from lib.prediction.maps import AREA_OUTSIDE, overlay
from lib.reports import figures
from lib.run.errors import UnreadableFilmError

FILMS_SHOWN = 12  # of the worst errors, and of the right answers
PAIRS_SHOWN = 4
THUMBNAIL = 176  # pixels
CARDS = 5000  # films in the page of a batch: a browser still sorts them at once
PICTURES = 2000  # of them with a picture and a map: the page stays below 30 MB
_INK = "#010203"  # drawn in this colour, shown in the page's
SHORTS = {
    "precision": "precision",
    "recall": "recall (sensitivity)",
    "specificity": "specificity",
    "f1": "F1",
    "auroc": "AUROC",
}
_TEMPLATES = Environment(
    loader=PackageLoader("lib.reports", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
Predict = Callable[[Sequence[Path]], Sequence[Prediction]]


@dataclass(frozen=True)
class Shown:
    """A film in the page: the film, the map over it, and what was said."""

    film: str
    map: str
    title: str
    detail: str


def write_report(
    path: Path,
    scores: Mapping[str, Any],
    predictions: pd.DataFrame,
    found: Audit,
    card: ModelCard,
    films: Path,
    raw: Path,
    runs: Path,
    predict: Predict,
    seed: int,
) -> None:
    """Write the page. `films` is the folder that the table's paths start from; `predict` gives the maps of chosen films."""
    wrong = predictions[
        (predictions["label"] != predictions["prediction"]) & predictions["prediction"].ne("")
    ]
    right = predictions[predictions["label"] == predictions["prediction"]]
    worst = wrong.sort_values("confidence", ascending=False).head(FILMS_SHOWN)
    sample = right.sample(min(FILMS_SHOWN, len(right)), random_state=seed)
    pairs = [(found_.films[0], found_.films[1]) for found_ in found.contradictions[:PAIRS_SHOWN]]
    content = {
        "scores": scores,
        "audit": found,
        "card": card,
        "classes": scores["classes"],
        "shorts": SHORTS,
        "contradictory_films": [_pair(a, b, raw) for a, b in pairs],
        "near_films": [_pair(a, b, raw) for a, b in found.near_pairs[:PAIRS_SHOWN]],
        "worst": _shown(worst, films, card, predict),
        "sample": _shown(sample, films, card, predict),
        "outside": {
            name: float(rows["outside_lungs"].astype(float).mean())
            for name, rows in [("right", right), ("wrong", wrong)]
            if len(rows)
        },
        "field_outside": AREA_OUTSIDE,
        "phases": _phases(runs, card),
        "figures": _figures(predictions, scores),
    }
    figures.save_text(path, _TEMPLATES.get_template("report.html").render(content))


def in_triage_order(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The first `CARDS` rows of a batch's table as its page shows them: films that need a look, then the least sure."""
    first = heapq.nsmallest(
        CARDS,
        rows,
        key=lambda row: (not row["needs_review"], float(row["confidence"] or 0), row["path"]),
    )
    return [dict(row) for row in first]


def write_triage(
    path: Path, rows: Sequence[Mapping[str, Any]], counts: Mapping[str, int], card: ModelCard
) -> None:
    """The page of a batch: rows `in_triage_order`, of which some bring `picture` and `map`; `counts` is of all rows."""
    content = {
        "rows": [
            {"confidence": "", "picture": "", "map": "", "outside_lungs": "", **row} for row in rows
        ],
        "counts": counts,
        "classes": card.classes,
        "model": card.name,
        "without": sum("picture" not in row and bool(row["prediction"]) for row in rows),
    }
    figures.save_text(path, _TEMPLATES.get_template("triage.html").render(content))


def pictures(answer: Prediction, card: ModelCard, predicted: str) -> dict[str, str]:
    """A film and the map over it, small, as data URLs."""
    grey = answer.film.grey
    over = overlay(grey, answer.maps, card.classes.index(predicted))
    return {"picture": jpeg(grey), "map": jpeg(np.asarray(over))}


def write_model_card(path: Path, scores: Mapping[str, Any], found: Audit, card: ModelCard) -> None:
    """MODEL_CARD.md beside the model: what it is for, what it is not, data, scores, limits."""
    content = {"scores": scores, "audit": found, "card": card, "shorts": SHORTS}
    figures.save_text(path, _TEMPLATES.get_template("model_card.md").render(content))


def with_range(value: float | None, interval: Sequence[float] | None, form: str = ".3f") -> str:
    """0.913 (0.862 to 0.951)."""
    if value is None:
        return "–"
    return f"{value:{form}}" + (
        f" ({interval[0]:{form}} to {interval[1]:{form}})" if interval else ""
    )


_TEMPLATES.filters["with_range"] = with_range
_TEMPLATES.filters["percent"] = lambda value: "–" if value is None else f"{value:.1%}"


def _phases(runs: Path, card: ModelCard) -> dict[str, dict[str, Any]]:
    """The phases that led to this model: none where `runs` holds the training of another one."""
    summary = runs / f"phase_{card.phase}" / "summary.json"
    if (
        not summary.exists()
        or json.loads(summary.read_text())["weights_sha256"] != card.weights_sha256
    ):
        return {}
    before = runs / "phase_a" / "summary.json"
    names = [card.phase]
    if card.phase == "b" and before.exists():
        config = json.loads((runs / "phase_b" / "config.json").read_text())
        if config["starting_weights_sha256"] == json.loads(before.read_text())["weights_sha256"]:
            names = ["a", "b"]
    return {name: _phase(runs / f"phase_{name}") for name in names}


def _phase(folder: Path) -> dict[str, Any]:
    history = pd.read_csv(folder / "history.csv")
    config = (
        json.loads((folder / "config.json").read_text())
        if (folder / "config.json").exists()
        else {}
    )
    return {
        "curves": _curves(history),
        "config": config,
        "best": float(history["val_accuracy"].max()),
    }


def _shown(rows: pd.DataFrame, films: Path, card: ModelCard, predict: Predict) -> list[Shown]:
    shown = []
    answers = predict([films / path for path in rows["path"]])
    for (_, row), answer in zip(rows.iterrows(), answers, strict=True):
        if answer.logits is None:
            continue
        grey = answer.film.grey
        number = card.classes.index(row["prediction"])
        is_right = row["label"] == row["prediction"]
        title = f"{row['prediction']} {row['confidence']:.0%}" + (
            "" if is_right else f", is {row['label']}"
        )
        detail = f"{row['path']} · {row['source']} · {float(row['outside_lungs']):.0%} of the evidence outside the lung field"
        shown.append(
            Shown(jpeg(grey), jpeg(np.asarray(overlay(grey, answer.maps, number))), title, detail)
        )
    return shown


def _pair(first: FilmRecord, second: FilmRecord, raw: Path) -> list[tuple[str, str]]:
    found = []
    for film in (first, second):
        try:
            found.append((jpeg(read_grey(raw / film.path, THUMBNAIL, ANY_SIZE)), film.path))
        except UnreadableFilmError:
            continue
    return found


def jpeg(pixels: np.ndarray) -> str:
    """Pixels `(side, side[, 3]) uint8` as a data URL of a small JPEG."""
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


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
