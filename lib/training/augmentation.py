"""Views of a film: what a positioning or an exposure could have been. The same (seed, epoch, film)
gives the same view.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lib.images.decode import ANY_SIZE, read_grey
from lib.network.torchvision import torchvision
from lib.run.errors import JobError
from lib.training.plan import Augmentation

functional = torchvision.transforms.v2.functional


@dataclass(frozen=True)
class Film:
    """A training or validation film: its file and the index of its class."""

    path: Path
    target: int


def augment(
    grey: np.ndarray, augmentation: Augmentation, seed: int, epoch: int, film: int
) -> np.ndarray:
    """A view of `grey`, `(side, side) uint8` to the same, drawn from a generator of its own.

    No global state is touched, so neither the number of reading threads nor an interruption changes
    a view.
    """
    draw = np.random.default_rng([seed, epoch, film]).uniform(-1, 1, 6)
    side = grey.shape[0]
    image = functional.affine(
        Image.fromarray(grey),
        angle=float(draw[0] * augmentation.degrees),
        translate=[round(float(d * augmentation.translation * side)) for d in draw[1:3]],
        scale=1 + float(draw[3] * augmentation.scaling),
        shear=[0.0, 0.0],
        interpolation=torchvision.transforms.InterpolationMode.BILINEAR,
        fill=0,
    )
    image = functional.adjust_brightness(image, 1 + float(draw[4] * augmentation.brightness))
    return np.asarray(functional.adjust_contrast(image, 1 + float(draw[5] * augmentation.contrast)))


def read_film(film: Film, side: int) -> np.ndarray:
    """`read_grey` of a film that the split job could read.

    Raises:
        JobError: it cannot be read any more.
    """
    try:
        return read_grey(film.path, side, ANY_SIZE, trust_headers=True)
    except JobError as error:
        raise JobError(
            f"{film.path}: {error}. The films changed during the training: run the jobs again from ingest."
        ) from error
