"""runs/report.html, one file that needs nothing else, and the model card: built from what the jobs
left on disk.
"""

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from lib.dataset.audit import Audit
from lib.dataset.manifest import FilmRecord
from lib.images.decode import ANY_SIZE, read_grey
from lib.network.artifact import ModelManifest
from lib.prediction.maps import AREA_OUTSIDE, overlay
from lib.prediction.prediction import Prediction
from lib.reports import figures
from lib.reports.figures import _curves, _figures
from lib.run.errors import UnreadableFilmError

FILMS_SHOWN = 12  # of the worst errors, and of the right answers
PAIRS_SHOWN = 4
THUMBNAIL = 176  # pixels
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
    card: ModelManifest,
    films: Path,
    raw: Path,
    runs: Path,
    predict: Predict,
    seed: int,
) -> None:
    """Write the page. `films` is the folder that the table's paths start from; `predict` gives the
    maps of chosen films.
    """
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


def write_model_card(
    path: Path, scores: Mapping[str, Any], found: Audit, card: ModelManifest
) -> None:
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


def _phases(runs: Path, card: ModelManifest) -> dict[str, dict[str, Any]]:
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


def _shown(rows: pd.DataFrame, films: Path, card: ModelManifest, predict: Predict) -> list[Shown]:
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
            found.append(
                (
                    jpeg(read_grey(raw / film.path, THUMBNAIL, ANY_SIZE, trust_headers=True)),
                    film.path,
                )
            )
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
