"""Augmented views of a film: small changes of position and exposure."""

import numpy as np
from PIL import Image

from lib.network.numerics import Grey
from lib.network.torchvision import torchvision
from lib.training.plan import Augmentation

functional = torchvision.transforms.v2.functional


def augment(grey: Grey, augmentation: Augmentation, seed: int, epoch: int, film: int) -> Grey:
    """A view of `grey`, `(side, side) uint8` to the same shape and type.

    The same (seed, epoch, film) gives the same view: the random numbers come from a generator of
    their own, so that neither the number of threads nor an interruption changes a view.
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
