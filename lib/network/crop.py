"""What the network sees of a film: its lungs, evenly exposed. Training and prediction share it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lib.network.lungs import FOLDER, LungFinder, Lungs
from lib.network.numerics import Grey

# Grey levels of every view that is evenly exposed.
EVEN_MEAN = 125.0
EVEN_DEVIATION = 55.0
LEAST_DEVIATION = 12.0  # flatter views are not stretched further: that would show noise
LEVELS = np.arange(256.0)


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
        """The view `(side, side)` of a whole film that was brought to a square."""
        lungs = self._finder.find(film)
        grey = crop_to_lungs(film, lungs, side)
        return View(evenly_exposed(grey) if self._even_exposure else grey, lungs)


def crop_to_lungs(film: Grey, lungs: Lungs, side: int) -> Grey:
    """The part of a square film in `lungs.crop_box()`, resized to `(side, side)`.

    Without lungs it is the whole film. The film is squeezed to a square already, and so is the
    crop: the order of the two does not matter.
    """
    left, top, right, bottom = (edge * film.shape[0] for edge in lungs.crop_box())
    box = (left, top, right, bottom)
    return np.asarray(Image.fromarray(film).resize((side, side), Image.Resampling.BILINEAR, box))


def evenly_exposed(view: Grey) -> Grey:
    """A view `(side, side)` with the mean EVEN_MEAN and the deviation EVEN_DEVIATION.

    Exposure, display curves and archives make the films of one hospital darker or flatter than
    those of another. The change is linear in the grey levels; what would leave 0 to 255 is cut off.
    """
    image = Image.fromarray(view)
    share = np.array(image.histogram()) / view.size
    mean = float(share @ LEVELS)
    deviation = float(share @ (LEVELS - mean) ** 2) ** 0.5
    line = (LEVELS - mean) * (EVEN_DEVIATION / max(deviation, LEAST_DEVIATION)) + EVEN_MEAN
    return np.asarray(image.point(line.clip(0, 255).round().astype(int).tolist()))
