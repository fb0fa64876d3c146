"""Maps of evidence as PNG files, one per film, named like the films."""

import errno
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lib.prediction.maps import evidence_over_film
from lib.prediction.prediction import Prediction
from lib.run import console
from lib.storage import atomic
from lib.storage.cells import is_inside, to_cell

_NO_SUCH_NAME = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)


@dataclass(frozen=True)
class MapFolder:
    """A folder of maps."""

    folder: Path

    def path(self, name: str) -> Path:
        """The map of the film `name`."""
        return self.folder / f"{name}.png"

    def has(self, name: str) -> bool:
        """Whether the map exists, or can never exist: its path leads out of the folder, or no file
        can have its name.
        """
        if not is_inside(name):
            return True
        try:
            self.path(name).stat()
        except OSError as error:
            return error.errno in _NO_SUCH_NAME
        return True

    def write(self, name: str, png: bytes) -> None:
        """Write one map. If the film's name allows none, warn and continue."""
        if not is_inside(name):
            console.warn(
                f"no map of {to_cell(name)}: its name leads out of {self.folder}",
                log_as="no map of a film: its name leads out of the folder",
            )
            return
        try:
            with atomic.whole_file(self.path(name)) as file:
                file.write(png)
        except OSError as error:
            if error.errno not in _NO_SUCH_NAME:
                raise
            console.warn(
                f"no map of {to_cell(name)}: {error.strerror}",
                log_as="no map of a film: no file can have its name",
            )


def draw_map(prediction: Prediction, index: int) -> bytes:
    """PNG: the film as the model sees it, and beside it the evidence for class `index` over it.

    Where the model crops to the lungs, their outline is drawn over the evidence.
    """
    grey = prediction.film.grey
    over = evidence_over_film(prediction, index)
    buffer = io.BytesIO()
    Image.fromarray(np.hstack([np.stack([grey] * 3, axis=2), over])).save(buffer, "PNG")
    return buffer.getvalue()
