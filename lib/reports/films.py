"""The films in the report: predictions with their evidence, whole films with their lungs, pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lib.dataset.manifest import FilmRecord
from lib.images.decode import ANY_SIZE, read_grey
from lib.prediction.maps import evidence_over_film, with_lungs
from lib.prediction.prediction import Prediction
from lib.reports.rendering import THUMBNAIL, jpeg
from lib.run.errors import UnreadableFilmError

if TYPE_CHECKING:  # pages makes a study, and shows films
    from lib.reports.pages import Study

PER_CLASS = 4  # whole films that are shown with the crop


@dataclass(frozen=True)
class ShownFilm:
    """Two pictures of a film in the page, side by side."""

    left: str  # data URL
    right: str  # data URL
    title: str
    detail: str


def with_evidence(rows: pd.DataFrame, study: "Study") -> list[ShownFilm]:
    """Films as the network sees them, and the evidence for their predictions."""
    shown = []
    for row, prediction in _predicted(rows, study):
        number = study.manifest.classes.index(str(row["prediction"]))
        title = f"{row['prediction']} {row['confidence']:.0%}"
        if row["label"] != row["prediction"]:
            title += f", is {row['label']}"
        share = f"{float(row['outside_lungs']):.0%} of the evidence outside the lung field"
        detail = f"{row['path']} · {row['source']} · {share}"
        over = evidence_over_film(prediction, number)
        shown.append(ShownFilm(jpeg(prediction.film.grey), jpeg(over), title, detail))
    return shown


def with_crop(study: "Study") -> list[ShownFilm]:
    """Some films of each class at random: whole, with their lungs and the box of the crop, and as
    the network sees them. Empty for a model that takes whole films.
    """
    if study.manifest.crop == "none":
        return []
    readable = study.predictions[study.predictions["prediction"].ne("")]
    shuffled = readable.sample(frac=1, random_state=study.seed)
    rows = shuffled.groupby("label", sort=True).head(PER_CLASS).sort_values("label")
    shown = []
    for row, prediction in _predicted(rows, study):
        whole = _whole(study.films.folder / row["path"])
        if whole is None or prediction.lungs is None:
            continue
        found = "" if prediction.lungs.box else " · no lungs found: the whole film is used"
        outlined = jpeg(with_lungs(whole, prediction.lungs))
        detail = f"{row['path']} · {row['source']}{found}"
        shown.append(ShownFilm(outlined, jpeg(prediction.film.grey), str(row["label"]), detail))
    return shown


def pair(first: FilmRecord, second: FilmRecord, raw: Path) -> list[tuple[str, str]]:
    """Data URL and path of both films; a film that cannot be read any more is left out."""
    films = [(_whole(raw / film.path), film.path) for film in (first, second)]
    return [(jpeg(grey), path) for grey, path in films if grey is not None]


def _predicted(rows: pd.DataFrame, study: "Study") -> "Sequence[tuple[pd.Series[str], Prediction]]":
    """The rows whose films can still be read, with the network's outputs."""
    predictions = study.predict([study.films.folder / path for path in rows["path"]])
    pairs = zip(rows.iterrows(), predictions, strict=True)
    return [(row, prediction) for (_, row), prediction in pairs if prediction.logits is not None]


def _whole(path: Path) -> NDArray[np.uint8] | None:
    try:
        return read_grey(path, THUMBNAIL, ANY_SIZE, trust_headers=True)
    except UnreadableFilmError:
        return None
