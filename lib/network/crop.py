"""The crop of a film to its lungs, one code for training and prediction."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lib.network.choices import Crop
from lib.network.lungs import FOLDER, LungFinder, Lungs
from lib.network.numerics import Grey


@dataclass(frozen=True)
class View:
    """What the network sees of a film, and the lungs that were found on the whole film."""

    grey: Grey
    lungs: Lungs


class LungCropper:
    """Crops films to the box around their lungs. Several threads may use it.

    A film is computed alone, never in a batch with others: its view depends on nothing else.
    """

    def __init__(self, threads: int, folder: Path = FOLDER) -> None:
        """`folder` holds the segmenter; `threads` films are computed at the same time.

        Raises:
            JobError: as `LungFinder`.
        """
        self._finder = LungFinder(threads, folder)

    def view(self, film: Grey, side: int) -> View:
        """The view `(side, side)` of a film that was decoded to `decoded_side`."""
        lungs = self._finder.find(film)
        return View(crop_to_lungs(film, lungs, side), lungs)


def decoded_side(input_side: int, crop: Crop) -> int:
    """Pixels that a film is decoded to at most: twice the input's where it is cropped.

    The box takes about three quarters of each side, so that a view is never enlarged in practice.
    A film of fewer pixels is decoded to its own size.
    """
    return input_side if crop == "none" else 2 * input_side


def crop_to_lungs(film: Grey, lungs: Lungs, side: int) -> Grey:
    """The part of a square film in `lungs.crop_box()`, resized to `(side, side)`.

    Without lungs it is the whole film. The film is squeezed to a square already, and so is the
    crop: the order of the two does not matter.
    """
    left, top, right, bottom = (edge * film.shape[0] for edge in lungs.crop_box())
    box = (left, top, right, bottom)
    return np.asarray(Image.fromarray(film).resize((side, side), Image.Resampling.BILINEAR, box))
