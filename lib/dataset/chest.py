"""Drawing of a generated chest: the thorax of an invented patient, and what disease puts into it.

Coordinates run from -1 to 1 over the film, x to the viewer's right and y downwards: one unit is
about 18 cm of an adult. Grey levels are densities from air to bone before exposure
(lib/dataset/hospitals.py). The spread of position, size and shape is that of the lungs' boxes on
adults' films of public collections; sizes of findings are those of textbooks, and no number here
depends on a label except through `FINDINGS`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Plane = NDArray[np.floating]
Random = np.random.Generator

SIDE = 256  # pixels of a drawing; a hospital enlarges it and adds its grain
UPPER, LOWER = (-1.0, -0.15), (-0.05, 1.0)  # heights of the zones of a lung
AIR = 0.42  # density of soft tissue less that of aerated lung
_Y, _X = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j].astype(np.float32)


@dataclass(frozen=True)
class Chest:
    """A chest that has no disease yet: the coordinates of its pixels, and its lungs in 0..1."""

    x: Plane
    y: Plane
    lungs: Plane

    def place(self, zone: tuple[float, float], side: int, rng: Random) -> tuple[float, float]:
        """A point inside the lung on one side, -1 or 1, between two heights."""
        low, high = zone
        inside = (self.lungs > 0.5) & (np.sign(self.x) == side) & (self.y > low) & (self.y < high)
        points = np.flatnonzero(inside if inside.any() else self.lungs > 0.5)
        point = int(rng.choice(points))
        return float(self.x.flat[point]), float(self.y.flat[point])

    def distance(self, centre: tuple[float, float]) -> Plane:
        apart: Plane = np.hypot(self.x - centre[0], self.y - centre[1])
        return apart


def draw(label: str, rng: Random, anatomy: Random) -> Plane:
    """Draw one chest, `(256, 256) float32` densities.

    `rng` draws the pose and the disease; `anatomy` draws the patient.
    """
    x, y = pose(rng)
    lungs, film = thorax(x, y, anatomy)
    hila = np.exp(-3 * (np.abs(x) - 0.18) ** 2 - 2.5 * (y + 0.05) ** 2)
    film += lungs * (0.05 * _texture(rng, 24) * hila + 0.025 * _texture(rng, 60))
    if label in FINDINGS:
        film += AIR * lungs * FINDINGS[label](Chest(x, y, lungs), rng)
    return film


def pose(rng: Random) -> tuple[Plane, Plane]:
    """Where the patient stands before the detector: the plane's coordinates in the patient."""
    angle = rng.normal(0, 0.04)
    wide, high = np.exp(rng.normal(0, 0.08, 2))
    shift_x, shift_y = rng.normal(0, (0.06, 0.09))
    x = (_X * np.cos(angle) + _Y * np.sin(angle)) / wide - shift_x
    y = (-_X * np.sin(angle) + _Y * np.cos(angle)) / high - shift_y
    return x.astype(np.float32), y.astype(np.float32)


def thorax(x: Plane, y: Plane, anatomy: Random) -> tuple[Plane, Plane]:
    """Lung mask in 0..1, and the chest without disease.

    It has body, neck, shoulders, lungs, mediastinum, heart, hila, diaphragm, ribs and clavicles.
    """
    across = np.abs(x)
    inner, outer = anatomy.uniform(0.08, 0.13), anatomy.uniform(0.66, 0.80)
    apex, breath = anatomy.uniform(-0.76, -0.64), anatomy.normal(0.50, 0.07)
    body = _edge(_half_width(y, outer + anatomy.uniform(0.10, 0.28)) - across, 0.03)

    # Each lung: from the mediastinum to the ribs, narrow at the apex, on the dome of the diaphragm.
    dome = breath + 0.04 * np.sign(x) + 0.7 * (across - 0.38) ** 2
    taper = np.clip((y - apex) / (0.5 - apex), 0.001, 1)
    lateral = inner + (outer - inner) * taper**0.38
    lungs = _edge(lateral - across, 0.02) * _edge(across - inner, 0.02) * _edge(dome - y, 0.015)
    lungs *= _edge(y - apex, 0.02)

    heart_wide, heart_high = anatomy.uniform(0.24, 0.36), anatomy.uniform(0.24, 0.34)
    shadow = np.maximum.reduce(
        [
            _ellipse(x, y, (0.02, 0.0), (inner + 0.03, 1.6), 0.12),  # mediastinum and spine
            # The heart lies to the patient's left: the viewer's right.
            _ellipse(x - 0.25 * (y - 0.25), y, (0.13, 0.26), (heart_wide, heart_high), 0.07),
            0.8 * _ellipse(x, y, (0.13, -0.36), (0.09, 0.09), 0.2),  # aortic knob
            0.5 * _ellipse(across, y, (0.20, -0.06), (0.10, 0.17), 0.3),  # hila
        ]
    )
    lungs = lungs * (1 - 0.9 * shadow)
    film = 0.55 * body + 0.22 * shadow * body - AIR * lungs
    film += 0.12 * body * _edge(y - dome, 0.03)  # abdomen
    return lungs, film + body * _bones(across, y, anatomy)


def _bones(across: Plane, y: Plane, anatomy: Random) -> Plane:
    """Ribs, clavicles and the ends of the vertebrae."""
    spacing, slope = anatomy.uniform(0.115, 0.15), anatomy.uniform(0.15, 0.5)
    bow = slope * (across - 0.45) ** 2 - 0.25 * across
    rib = (y - bow) / spacing
    bones: Plane = (
        0.06 * np.exp(-(((rib - np.round(rib)) / 0.24) ** 2)) * _edge(0.85 - across, 0.03)
    )
    clavicle = -0.58 + anatomy.normal(0, 0.04) - 0.2 * across
    bones += 0.12 * np.exp(-(((y - clavicle) / 0.03) ** 2)) * _edge(0.75 - across, 0.02)
    vertebra = (y + 2) / 0.12
    gaps = np.exp(-(((vertebra - np.round(vertebra)) / 0.15) ** 2)) * _edge(0.08 - across, 0.01)
    bones -= 0.03 * gaps
    return bones


def _half_width(y: Plane, chest: float) -> Plane:
    """Half the width of the body: neck, shoulders, chest."""
    shoulders = 1.05 - 0.85 * _edge(-0.80 - y, 0.05)
    width: Plane = np.where(
        y < -0.45, np.maximum(shoulders, 0.2), chest + 0.2 * _edge(-0.3 - y, 0.06)
    )
    return width


def _edge(distance: Plane, softness: float) -> Plane:
    """1 where `distance` is positive, 0 where it is negative, with a soft edge between."""
    filled: Plane = 1 / (1 + np.exp(np.clip(-distance / softness, -30, 30)))
    return filled.astype(np.float32)


def _ellipse(
    x: Plane, y: Plane, centre: tuple[float, float], radii: tuple[float, float], softness: float
) -> Plane:
    """A filled ellipse with a soft edge: 1 inside, 0 outside."""
    distance = np.hypot((x - centre[0]) / radii[0], (y - centre[1]) / radii[1])
    return _edge(1 - distance, softness)


def _texture(rng: Random, cells: int) -> Plane:
    """Smooth noise with about `cells` blobs across the film, unit variance."""
    coarse = Image.fromarray(rng.standard_normal((cells, cells), np.float32))
    field = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return field / max(float(field.std()), 1e-6)


def _pneumonia(chest: Chest, rng: Random) -> Plane:
    """One to three consolidations, 4 to 10 cm, three quarters of them in the lower zones.

    They are a third as dense as soft tissue to as dense, with ragged edges.
    """
    ragged, mottled = 0.25 * _texture(rng, 14), 1 + 0.15 * _texture(rng, 32)
    opacity = np.zeros_like(chest.x)
    for _ in range(int(rng.integers(1, 4))):
        zone = LOWER if rng.random() < 0.75 else UPPER
        centre = chest.place(zone, int(rng.choice((-1, 1))), rng)
        radii = rng.uniform(0.11, 0.28, 2)
        distance = np.hypot(*((chest.x - centre[0]) / radii[0], (chest.y - centre[1]) / radii[1]))
        patch = _edge(1 - distance + ragged, 0.15) * np.float32(rng.uniform(0.33, 1.0))
        opacity = np.maximum(opacity, patch)
    return opacity * mottled


def _tuberculosis(chest: Chest, rng: Random) -> Plane:
    """An infiltrate in an upper zone, in a third of films in both."""
    side = int(rng.choice((-1, 1)))
    opacity = _apical_infiltrate(chest, side, rng)
    if rng.random() < 1 / 3:
        opacity = opacity + _apical_infiltrate(chest, -side, rng)
    return opacity


def _apical_infiltrate(chest: Chest, side: int, rng: Random) -> Plane:
    """Haze with nodules of 4 to 12 mm and streaks to the hilum; half have a cavity.

    A cavity measures 2 to 5 cm, its wall 3 to 8 mm.
    """
    centre = chest.place(UPPER, side, rng)
    spread = rng.uniform(0.08, 0.18)
    around = chest.distance(centre)
    haze = _edge(1 - around / spread + 0.4 * _texture(rng, 18), 0.3)
    opacity = haze * rng.uniform(0.1, 0.5) * (1 + 0.4 * _texture(rng, 60))
    for _ in range(int(rng.integers(6, 19))):
        spot = (centre[0] + rng.normal(0, spread), centre[1] + rng.normal(0, spread))
        size = rng.uniform(0.011, 0.033)
        opacity += rng.uniform(0.3, 0.8) * _edge(1 - chest.distance(spot) / size, 0.3)
    if rng.random() < 0.5:
        radius, wall = rng.uniform(0.055, 0.14), rng.uniform(0.008, 0.022)
        uneven = around * (1 + 0.06 * _texture(rng, 8))
        opacity *= 1 - 0.8 * _edge(radius - uneven, 0.01)  # air
        opacity += rng.uniform(0.4, 0.9) * np.exp(-(((uneven - radius) / wall) ** 2))
    for _ in range(int(rng.integers(0, 5))):
        end = (centre[0] + rng.normal(0, spread), centre[1] + rng.normal(0, spread))
        opacity += rng.uniform(0.1, 0.3) * _streak(chest, end, (side * 0.16, -0.08))
    return opacity.astype(np.float32)


def _streak(chest: Chest, start: tuple[float, float], end: tuple[float, float]) -> Plane:
    """A line of 3 mm."""
    along = np.array(end) - np.array(start)
    part = (chest.x - start[0]) * along[0] + (chest.y - start[1]) * along[1]
    part = np.clip(part / max(float(along @ along), 1e-6), 0, 1)
    off = np.hypot(chest.x - start[0] - part * along[0], chest.y - start[1] - part * along[1])
    line: Plane = np.exp(-((off / 0.008) ** 2))
    return line


FINDINGS: dict[str, Callable[[Chest, Random], Plane]] = {
    "PNEUMONIA": _pneumonia,
    "TUBERCULOSIS": _tuberculosis,
}
