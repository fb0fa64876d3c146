"""Films with their lungs blacked out, and the features that the scored network has for them.

Films are whole, also where the network takes crops: markers, borders, collimation and the patient's
outline stay visible. Source of the idea: G. Maguolo, L. Nanni, "A critic evaluation of methods for
COVID-19 automatic detection from X-ray images", Information Fusion 76 (2021).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from lib.images.decode import ANY_SIZE
from lib.images.reader import Film, Reader
from lib.network.graph import FILMS_PER_REQUEST
from lib.network.lungs import FOLDER, LungFinder, Lungs
from lib.network.numerics import Grey
from lib.prediction.maps import LUNG_FIELD
from lib.prediction.predictor import Predictor
from lib.run import console
from lib.workers.processes import Isolated
from lib.workers.threads import map_ordered

MARGIN = 3  # pixels of the mask (128 to a side) that are blacked out around it

Views = tuple[Grey, Grey]  # without the box, without the mask


@dataclass(frozen=True)
class WithoutLungs:
    """The network's features of one film whose lungs are blacked out."""

    box: NDArray[np.float32]  # (F,), the box of the crop black
    mask: NDArray[np.float32]  # (F,), the lungs black, as the segmenter outlines them
    lungs_found: bool  # False: LUNG_FIELD is black in both


class LunglessFeatures:
    """Features of films with hidden lungs, computed once per film."""

    def __init__(self, predictor: Predictor) -> None:
        """A model that takes crops brings its own segmenter; others take the program's.

        Raises:
            JobError: as `LungFinder`.
        """
        folder = predictor.folder if predictor.manifest.crop == "lungs" else FOLDER
        self._finder = LungFinder(predictor.cores, folder)
        self._predictor = predictor
        self._known: dict[Path, WithoutLungs | None] = {}

    def of(self, files: Sequence[Path]) -> list[WithoutLungs | None]:
        """One entry per file; None for a film that cannot be read."""
        missing = [file for file in files if file not in self._known]
        computed = console.track(self._compute(missing), "films without lungs", len(missing))
        self._known.update(zip(missing, computed, strict=True))
        return [self._known[file] for file in files]

    def knows(self, file: Path) -> bool:
        """Whether its features were computed already."""
        return file in self._known

    def _compute(self, files: Sequence[Path]) -> Iterator[WithoutLungs | None]:
        predictor = self._predictor
        reader = Reader(predictor.manifest.input_side, ANY_SIZE, trust_headers=True)
        with Isolated(reader, reader.lost, predictor.readers, predictor.seconds) as readers:
            films = readers.map(files, predictor.readers + 2 * FILMS_PER_REQUEST)
            ahead = 2 * predictor.cores + FILMS_PER_REQUEST
            seen = map_ordered(self._views, films, predictor.cores, ahead)
            outputs = predictor.graph.stream(_one_by_one(seen))
            for (lungs, first), (_, second) in zip(outputs, outputs, strict=True):
                if lungs is None or first is None or second is None:
                    yield None
                else:
                    yield WithoutLungs(first[1], second[1], lungs.box is not None)

    def _views(self, film: Film) -> tuple[Lungs | None, Views | None]:
        if film.error:
            return None, None
        lungs = self._finder.find(film.grey)
        return lungs, (without_box(film.grey, lungs), without_mask(film.grey, lungs))


def without_box(film: Grey, lungs: Lungs) -> Grey:
    """A square film with the box of the crop black: what a model that takes crops does not see."""
    return _blackened(film, *lungs.crop_box()) if lungs.box else _without_field(film)


def without_mask(film: Grey, lungs: Lungs) -> Grey:
    """A square film with the lungs, and `MARGIN` around them, black. Their outline stays."""
    if lungs.box is None:
        return _without_field(film)
    wider = Image.fromarray(lungs.mask.astype(np.uint8) * 255).filter(
        ImageFilter.MaxFilter(2 * MARGIN + 1)
    )
    mask = np.asarray(wider.resize(film.shape[::-1], Image.Resampling.BILINEAR)) > 127
    return np.where(mask, np.uint8(0), film)


def _without_field(film: Grey) -> Grey:
    """A film on which no lungs were found, with the rectangle that usually holds them black."""
    return _blackened(film, *(LUNG_FIELD[edge] for edge in ("left", "top", "right", "bottom")))


def _blackened(film: Grey, left: float, top: float, right: float, bottom: float) -> Grey:
    height, width = film.shape
    black = film.copy()
    rows = slice(int(top * height), int(np.ceil(bottom * height)))
    columns = slice(int(left * width), int(np.ceil(right * width)))
    black[rows, columns] = 0
    return black


def _one_by_one(
    seen: Iterable[tuple[Lungs | None, Views | None]],
) -> Iterator[tuple[Lungs | None, Grey | None]]:
    """Both views of each film in a row, as the graph takes them."""
    for lungs, views in seen:
        for view in views or (None, None):
            yield lungs, view
