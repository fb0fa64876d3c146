"""Invented hospitals: how each makes a film of a drawn chest, whatever the chest shows."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lib.dataset.chest import Plane, Random

Range = tuple[float, float]


@dataclass(frozen=True)
class Hospital:
    """The ranges that a film is drawn from. Lengths are in proportions of the film's side."""

    size: tuple[int, int] = (512, 512)  # pixels, width and height
    brightness: Range = (0.35, 0.63)  # mean grey level, 0..1
    contrast: Range = (0.15, 0.27)  # standard deviation of the grey levels
    gamma: Range = (0.8, 1.25)  # exponent of the display curve
    blur: Range = (0.0005, 0.0025)  # sigma
    noise: Range = (0.01, 0.04)  # standard deviation beside that of the film
    border: Range = (0.0, 0.03)  # width of the collimated edges
    markers: tuple[str, ...] = ("L", "R")  # lead letters, one on each film
    jpeg: float = 0.5  # share of films; the others are PNG


HOME = Hospital()
# A hospital for each class: sizes, exposure, sharpness, borders and markers give the class away.
BY_CLASS = {
    "NORMAL": Hospital(
        size=(512, 512), brightness=(0.52, 0.63), contrast=(0.15, 0.19), border=(0.0, 0.005)
    ),
    "PNEUMONIA": Hospital(
        size=(560, 448),
        brightness=(0.44, 0.52),
        contrast=(0.19, 0.23),
        border=(0.02, 0.05),
        markers=("AP",),
        jpeg=1.0,
    ),
    "TUBERCULOSIS": Hospital(
        size=(448, 448),
        brightness=(0.35, 0.44),
        contrast=(0.23, 0.27),
        border=(0.05, 0.08),
        markers=("TB UNIT",),
        jpeg=0.0,
    ),
}
# Darker, harder, noisier and with wider borders than films at home.
ELSEWHERE = Hospital(
    size=(640, 540),
    brightness=(0.28, 0.42),
    contrast=(0.24, 0.32),
    gamma=(1.2, 1.6),
    blur=(0.002, 0.004),
    noise=(0.04, 0.08),
    border=(0.03, 0.08),
    markers=("LINKS", "RECHTS"),
    jpeg=1.0,
)


def expose(chest: Plane, hospital: Hospital, rng: Random) -> np.ndarray:
    """Make a film of a chest, `(height, width) uint8`."""
    film = np.asarray(Image.fromarray(chest).resize(hospital.size, Image.Resampling.BICUBIC))
    film = _blurred(film, rng.uniform(*hospital.blur) * film.shape[0])
    film = (film - film.mean()) / film.std()
    film = film + rng.uniform(*hospital.noise) * rng.standard_normal(film.shape, np.float32)
    film = rng.uniform(*hospital.brightness) + rng.uniform(*hospital.contrast) * film
    film = np.clip(film, 0, 1) ** rng.uniform(*hospital.gamma)
    _collimate(film, hospital, rng)
    levels = Image.fromarray((film * 255).astype(np.uint8))
    _mark(levels, hospital, rng)
    return np.asarray(levels)


def _blurred(film: Plane, sigma: float) -> Plane:
    from scipy.ndimage import gaussian_filter

    blurred: Plane = gaussian_filter(film, sigma, truncate=3)
    return blurred


def _collimate(film: Plane, hospital: Hospital, rng: Random) -> None:
    height, width = film.shape
    top, bottom, left, right = (
        round(rng.uniform(*hospital.border) * side) for side in (height, height, width, width)
    )
    film[:top], film[height - bottom :] = 0.02, 0.02
    film[:, :left], film[:, width - right :] = 0.02, 0.02


def _mark(film: Image.Image, hospital: Hospital, rng: Random) -> None:
    """A lead letter in one of the upper corners, apart from the lungs."""
    letter = hospital.markers[int(rng.integers(len(hospital.markers)))]
    x = 0.06 if rng.random() < 0.5 else 0.94
    place = (x + rng.uniform(-0.02, 0.02)) * film.width, rng.uniform(0.06, 0.12) * film.height
    font = ImageFont.load_default(film.height * 0.05)
    ImageDraw.Draw(film).text(place, letter, fill=235, font=font, anchor="lm" if x < 0.5 else "rm")
