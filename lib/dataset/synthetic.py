"""Generated chest films of invented patients, for the demo and the tests.

The classes differ by what lies in the lungs alone: pneumonia has consolidations in the lower zones,
tuberculosis has cavities, nodules and streaks in the apices. Exposure, contrast, noise, pose, file
type and size are drawn from the same distributions for every class.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom

from lib.storage.atomic import whole_file
from lib.workers.threads import map_ordered

SIDE = 512
CLASSES = ("NORMAL", "PNEUMONIA", "TUBERCULOSIS")
_Y, _X = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j].astype(np.float32)


@dataclass(frozen=True)
class PlannedFilm:
    """One file of the generated set, before it is drawn."""

    name: str
    label: str
    seed: tuple[int, ...]
    anatomy_seed: tuple[int, ...]
    jpeg_quality: int | None  # None: PNG
    tint: tuple[float, float, float] | None = None
    folder: str | None = None  # the class folder it is filed under, where that is not its own
    truncated: bool = False

    @property
    def relative_path(self) -> str:
        return f"{(self.folder or self.label).lower()}/{self.name}"


def plan_films(count: int, seed: int) -> list[PlannedFilm]:
    """About `count` films plus planted defects; the same for the same arguments.

    Planted: contradictory copies (2 %), re-encoded near-duplicates (2 %), tinted films (3 %), one
    truncated file.
    """
    rng = np.random.default_rng([seed, 1])
    films: list[PlannedFilm] = []
    patient = 0
    while len(films) < count:
        label = CLASSES[patient % len(CLASSES)]
        patient += 1
        for number in range(1, min(int(rng.integers(1, 5)), count - len(films)) + 1):
            quality = int(rng.integers(75, 96)) if rng.random() < 0.5 else None
            tint = (
                (1.0, float(rng.uniform(0.8, 0.95)), float(rng.uniform(0.6, 0.85)))
                if rng.random() < 0.03
                else None
            )
            suffix = "png" if quality is None else "jpg"
            name = f"patient{patient:04d}_film{number}.{suffix}"
            films.append(
                PlannedFilm(name, label, (seed, patient, number), (seed, patient), quality, tint)
            )
    return films + _plan_defects(films, max(1, count // 50), rng)


def _plan_defects(
    films: list[PlannedFilm], each: int, rng: np.random.Generator
) -> list[PlannedFilm]:
    defects = []
    normal = [film for film in films if film.label == "NORMAL"]
    for number, index in enumerate(
        rng.choice(len(normal), min(each, len(normal)), replace=False), start=1
    ):
        film = normal[index]
        folder = CLASSES[1 + number % 2]
        defects.append(
            replace(
                film,
                folder=folder,
                name=f"{folder.lower()}-{9000 + number}{Path(film.name).suffix}",
            )
        )
    for number, index in enumerate(
        rng.choice(len(films), min(each, len(films)), replace=False), start=1
    ):
        film = films[index]
        defects.append(replace(film, name=f"export-{number:03d}.jpg", jpeg_quality=60, tint=None))
    victim = films[int(rng.integers(len(films)))]
    defects.append(
        replace(victim, name="interrupted-transfer.jpg", jpeg_quality=90, tint=None, truncated=True)
    )
    return defects


def write_films(folder: Path, count: int, seed: int, threads: int = 1) -> list[PlannedFilm]:
    """Draw the planned films into `folder`/<class>/; files that are there already are kept."""
    films = plan_films(count, seed)
    for _ in map_ordered(lambda film: _write_film(folder, film), films, threads):
        pass
    return films


def _write_film(folder: Path, film: PlannedFilm) -> None:
    target = folder / film.relative_path
    if target.exists():
        return
    grey = draw(
        film.label, np.random.default_rng(film.seed), np.random.default_rng(film.anatomy_seed)
    )
    image = Image.fromarray(grey)
    if film.tint:
        image = Image.fromarray((grey[:, :, None] * np.array(film.tint)).astype(np.uint8))
    with whole_file(target) as file:
        if film.jpeg_quality is None:
            image.save(file, "PNG", compress_level=1)
        else:
            image.save(file, "JPEG", quality=film.jpeg_quality)
        if film.truncated:
            file.truncate(file.tell() // 3)


def draw(label: str, rng: np.random.Generator, anatomy: np.random.Generator) -> np.ndarray:
    """Draw one film, `(512, 512) uint8`.

    `rng` draws the exposure, the pose and the disease; `anatomy` draws the patient.
    """
    x, y = _pose(rng)
    lungs, film = _thorax(x, y, anatomy)
    vessels = _texture(rng, 20) * np.exp(-4 * (np.abs(x) - 0.15) ** 2 - 2 * y**2)
    film += lungs * (0.05 * vessels + 0.025 * _texture(rng, 60))
    if label == "PNEUMONIA":
        film += lungs * _consolidations(x, y, rng)
    elif label == "TUBERCULOSIS":
        film += lungs * _apical_disease(x, y, rng)
    return _expose(film, rng)


def _pose(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    angle, scale = rng.normal(0, 0.04), rng.uniform(0.92, 1.08)
    shift_x, shift_y = rng.normal(0, 0.03, 2)
    x = (_X * np.cos(angle) + _Y * np.sin(angle)) / scale - shift_x
    y = (-_X * np.sin(angle) + _Y * np.cos(angle)) / scale - shift_y
    return x, y


def _blob(
    x: np.ndarray,
    y: np.ndarray,
    centre: tuple[float, float],
    radii: tuple[float, float],
    edge: float,
) -> np.ndarray:
    """A filled ellipse with a soft edge: 1 inside, 0 outside."""
    distance = np.hypot((x - centre[0]) / radii[0], (y - centre[1]) / radii[1])
    return 1 / (1 + np.exp(np.clip((distance - 1) / edge, -30, 30)))


def _thorax(
    x: np.ndarray, y: np.ndarray, anatomy: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Lung mask in 0..1, and the film without disease.

    It has body, lungs, mediastinum, heart, diaphragm, ribs and clavicles.
    """
    width, height = anatomy.uniform(0.30, 0.36), anatomy.uniform(0.60, 0.70)
    heart = anatomy.uniform(0.22, 0.32)
    lungs = np.zeros_like(x)
    for side in (-1, 1):
        dome = 0.52 + anatomy.normal(0, 0.03) + 0.6 * (x - side * 0.4) ** 2
        lung = _blob(x, y, (side * 0.42, -0.05), (width, height), 0.06)
        lungs = np.maximum(lungs, lung / (1 + np.exp(np.clip((y - dome) / 0.02, -30, 30))))
    shadow = np.maximum(
        _blob(x, y, (0.0, 0.0), (anatomy.uniform(0.11, 0.15), 1.3), 0.10),  # mediastinum and spine
        _blob(
            x, y, (0.14, 0.28), (heart, 0.27), 0.07
        ),  # the heart lies to the patient's left: the viewer's right
    )
    lungs = lungs * (1 - 0.85 * shadow)
    film = 0.55 * _blob(x, y, (0.0, 0.1), (anatomy.uniform(0.88, 0.98), 1.15), 0.05)
    film += 0.25 * shadow - 0.42 * lungs
    spacing, slope = anatomy.uniform(0.125, 0.15), anatomy.uniform(0.35, 0.55)
    for number in range(9):
        centre = -0.72 + number * spacing + slope * (np.abs(x) - 0.35) ** 2 - 0.12 * np.abs(x)
        film += (
            0.075 * np.exp(-(((y - centre) / 0.028) ** 2)) * (np.abs(x) > 0.08) * (np.abs(x) < 0.82)
        )
    clavicle = -0.66 - 0.18 * np.abs(x)
    film += 0.12 * np.exp(-(((y - clavicle) / 0.03) ** 2)) * (np.abs(x) > 0.07) * (np.abs(x) < 0.7)
    return lungs, film


def _texture(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Smooth noise with about `cells` blobs across the film, unit variance."""
    field: np.ndarray = zoom(rng.standard_normal((cells, cells)), (SIDE + 8) / cells, order=1)[
        :SIDE, :SIDE
    ]
    return (field / max(float(field.std()), 1e-6)).astype(np.float32)


def _consolidations(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    opacity = np.zeros_like(x)
    for _ in range(int(rng.integers(1, 3))):
        side = rng.choice((-1, 1))
        centre = (side * rng.uniform(0.28, 0.52), rng.uniform(0.05, 0.42))
        patch = _blob(x, y, centre, (rng.uniform(0.13, 0.24), rng.uniform(0.11, 0.22)), 0.25)
        opacity = np.maximum(
            opacity, patch * rng.uniform(0.16, 0.32) * (1 + 0.25 * _texture(rng, 28))
        )
    return opacity


def _apical_disease(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    opacity = np.zeros_like(x)
    side = rng.choice((-1, 1))
    centre = (side * rng.uniform(0.30, 0.46), rng.uniform(-0.52, -0.28))
    if rng.random() < 0.7:  # a cavity: a bright wall around air
        radius = rng.uniform(0.06, 0.11)
        distance = np.hypot(x - centre[0], y - centre[1])
        opacity += rng.uniform(0.2, 0.35) * np.exp(-(((distance - radius) / 0.022) ** 2))
    for _ in range(int(rng.integers(4, 11))):
        spot = (centre[0] + rng.normal(0, 0.11), centre[1] + rng.normal(0, 0.12))
        size = rng.uniform(0.014, 0.035)
        opacity += rng.uniform(0.12, 0.3) * np.exp(
            -((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / size**2
        )
    haze = _blob(x, y, centre, (0.2, 0.17), 0.3)
    return opacity + haze * rng.uniform(0.02, 0.12) * (1 + 0.6 * _texture(rng, 40))


def _expose(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur, grain, a collimated border, then brightness and contrast, independent of the class."""
    film = gaussian_filter(film, rng.uniform(0.6, 1.4)) + rng.normal(
        0, rng.uniform(0.008, 0.03), film.shape
    )
    film = (film - film.mean()) / film.std()
    film = rng.uniform(0.38, 0.56) + rng.uniform(0.17, 0.24) * film
    for axis in (0, 1):
        margin = int(rng.integers(0, 14))
        if margin:
            edge = [slice(None), slice(None)]
            edge[axis] = slice(0, margin)
            film[tuple(edge)] = 0.02
    return (np.clip(film, 0, 1) * 255).astype(np.uint8)
