"""What the network sees of a film: its lungs, evenly exposed. Training and prediction share it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lib.network.choices import Crop
from lib.network.lungs import FOLDER, LungFinder, Lungs
from lib.network.numerics import Grey

# Grey levels of the lungs on every view that is evenly exposed.
EVEN_MEAN = 105.0
EVEN_DEVIATION = 40.0
LEAST_DEVIATION = 8.0  # flatter lungs are not stretched further: that would show noise


@dataclass(frozen=True)
class View:
    """What the network sees of a film, and the lungs that were found on the whole film."""

    grey: Grey
    lungs: Lungs


class LungCropper:
    """Crops films to the box around their lungs. Several threads may use it.

    A film is computed alone, never in a batch with others: its view depends on nothing else.
    """

    def __init__(self, threads: int, folder: Path = FOLDER, *, even_exposure: bool = False) -> None:
        """`folder` holds the segmenter; `threads` films are computed at the same time.

        Raises:
            JobError: as `LungFinder`.
        """
        self._finder = LungFinder(threads, folder)
        self._even_exposure = even_exposure

    def view(self, film: Grey, side: int) -> View:
        """The view `(side, side)` of a film that was decoded to `decoded_side`."""
        lungs = self._finder.find(film)
        grey = crop_to_lungs(film, lungs, side)
        return View(evenly_exposed(grey, lungs) if self._even_exposure else grey, lungs)


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


def evenly_exposed(view: Grey, lungs: Lungs) -> Grey:
    """A view `(side, side)` whose lungs have the mean EVEN_MEAN and the deviation EVEN_DEVIATION.

    Exposure, display curves and archives make the lungs of one hospital darker or flatter than
    those of another. The change is linear in the grey levels; what would leave 0 to 255 is cut off.
    Without lungs the whole view is measured.
    """
    measured = view[::4, ::4]  # 3,000 pixels are enough
    inside = lungs.mask_in_crop(len(measured))
    levels = measured[inside] if inside.any() else measured
    gain = EVEN_DEVIATION / max(float(levels.std()), LEAST_DEVIATION)
    line = (np.arange(256) - float(levels.mean())) * gain + EVEN_MEAN
    table = line.clip(0, 255).round().astype(int).tolist()
    return np.asarray(Image.fromarray(view).point(table))
