"""Augmented views of a film: small changes of position, exposure and acquisition."""

import io

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from lib.network.numerics import Grey
from lib.network.torchvision import torchvision
from lib.training.plan import Acquisition, Augmentation

functional = torchvision.transforms.v2.functional

VIEW_SEED = 0  # of every training: heads of several seeds learn from the same cached views
SHARE = 0.4  # of the views, for each change of the acquisition


def augment(grey: Grey, augmentation: Augmentation, seed: int, epoch: int, film: int) -> Grey:
    """A view of `grey`, `(side, side) uint8` to the same shape and type.

    The same (seed, epoch, film) gives the same view: the random numbers come from a generator of
    their own, so that neither the number of threads nor an interruption changes a view. `film` is
    the number of its content: neither the other films nor their order change a view.
    """
    rng = np.random.default_rng([seed, epoch, film])
    image = _moved(Image.fromarray(grey), augmentation, rng)
    if augmentation.acquisition is not None:
        image = _acquired(image, augmentation.acquisition, rng)
    return np.asarray(image)


def _moved(image: Image.Image, augmentation: Augmentation, rng: np.random.Generator) -> Image.Image:
    """Another position and exposure of the patient."""
    draw = rng.uniform(-1, 1, 6)
    side = image.height
    image = functional.affine(
        image,
        angle=float(draw[0] * augmentation.degrees),
        translate=[round(float(d * augmentation.translation * side)) for d in draw[1:3]],
        scale=1 + float(draw[3] * augmentation.scaling),
        shear=[0.0, 0.0],
        interpolation=torchvision.transforms.InterpolationMode.BILINEAR,
        fill=0,
    )
    image = functional.adjust_brightness(image, 1 + float(draw[4] * augmentation.brightness))
    image = functional.adjust_contrast(image, 1 + float(draw[5] * augmentation.contrast))
    return image  # noqa: RET504  # typed as an image here, untyped there


def _acquired(
    image: Image.Image, acquisition: Acquisition, rng: np.random.Generator
) -> Image.Image:
    """The same patient from another detector, another display curve, another archive.

    The changes come in the order in which they happen to a film, from the detector to the file.
    """
    happens = rng.random(5) < SHARE
    amount = rng.random(5).tolist()
    if happens[0]:
        image = image.filter(ImageFilter.GaussianBlur(acquisition.softness * amount[0]))
    if happens[1]:
        image = _noisy(image, acquisition.noise * amount[1], rng)
    if rng.random() < acquisition.equalised:
        image = Image.blend(image, ImageOps.equalize(image), float(rng.random()))
    image = _with_gamma(image, float(np.exp(acquisition.gamma * rng.uniform(-1, 1))))
    if happens[2]:
        percent = round(100 * acquisition.sharpness * amount[2])
        image = image.filter(ImageFilter.UnsharpMask(2, percent, 0))
    if happens[3]:
        image = _shrunk(image, 1 - (1 - acquisition.shrinking) * amount[3])
    if happens[4]:
        worst, best = acquisition.jpeg
        image = _compressed(image, round(worst + (best - worst) * amount[4]))
    return image


def _noisy(image: Image.Image, deviation: float, rng: np.random.Generator) -> Image.Image:
    grey = np.asarray(image, np.float32)
    grey = grey + deviation * rng.standard_normal(grey.shape, np.float32)
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8))


def _with_gamma(image: Image.Image, exponent: float) -> Image.Image:
    return image.point([round(255 * (level / 255) ** exponent) for level in range(256)])


def _shrunk(image: Image.Image, proportion: float) -> Image.Image:
    small = max(1, round(image.width * proportion)), max(1, round(image.height * proportion))
    return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.BILINEAR)


def _compressed(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("L")
