"""Generated chest films of invented patients, for the demo and the tests.

There are three sets. In `phantom` every film comes from one hospital, and the classes differ by
what lies in the lungs alone. `phantom:confounded` has the same patients with the same findings, but
the films of each class come from a hospital of their own. `phantom:elsewhere` has other patients,
films of all classes, from one hospital that works differently.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from lib.dataset import chest, hospitals
from lib.dataset.hospitals import Hospital
from lib.storage.atomic import whole_file
from lib.workers.threads import map_ordered

CLASSES = ("NORMAL", "PNEUMONIA", "TUBERCULOSIS")


@dataclass(frozen=True)
class FilmSet:
    """Which hospital makes the films of each class, and the number before its first patient."""

    hospitals: Mapping[str, Hospital]
    patients_before: int = 0


SETS = {
    "phantom": FilmSet(dict.fromkeys(CLASSES, hospitals.HOME)),
    "phantom:confounded": FilmSet(hospitals.BY_CLASS),
    "phantom:elsewhere": FilmSet(dict.fromkeys(CLASSES, hospitals.ELSEWHERE), 5000),
}


@dataclass(frozen=True)
class DrawnFilm:
    """One file of the generated set, before it is drawn."""

    name: str
    label: str
    seed: tuple[int, ...]
    anatomy_seed: tuple[int, ...]
    hospital: Hospital
    jpeg_quality: int | None  # None: PNG
    tint: tuple[float, float, float] | None = None
    folder: str | None = None  # the class folder it is filed under, where that is not its own
    truncated: bool = False

    @property
    def relative_path(self) -> str:
        return f"{(self.folder or self.label).lower()}/{self.name}"


def plan_films(count: int, seed: int, film_set: FilmSet = SETS["phantom"]) -> list[DrawnFilm]:
    """About `count` films plus planted defects; the same for the same arguments.

    Planted: contradictory copies (2 %), re-encoded near-duplicates (2 %), tinted films (3 %), one
    truncated file.
    """
    rng = np.random.default_rng([seed, 1])
    films: list[DrawnFilm] = []
    patient = film_set.patients_before
    while len(films) < count:
        label = CLASSES[patient % len(CLASSES)]
        hospital = film_set.hospitals[label]
        patient += 1
        for number in range(1, min(int(rng.integers(1, 5)), count - len(films)) + 1):
            jpeg_quality = int(rng.integers(75, 96))
            quality = jpeg_quality if rng.random() < hospital.jpeg else None
            tint = (
                (1.0, float(rng.uniform(0.8, 0.95)), float(rng.uniform(0.6, 0.85)))
                if rng.random() < 0.03
                else None
            )
            suffix = "png" if quality is None else "jpg"
            name = f"patient{patient:04d}_film{number}.{suffix}"
            films.append(
                DrawnFilm(
                    name, label, (seed, patient, number), (seed, patient), hospital, quality, tint
                )
            )
    return films + _plan_defects(films, max(1, count // 50), rng)


def _plan_defects(films: list[DrawnFilm], each: int, rng: np.random.Generator) -> list[DrawnFilm]:
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
                name=f"refiled-{number:03d}{Path(film.name).suffix}",
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


def write_films(
    folder: Path, count: int, seed: int, threads: int = 1, film_set: FilmSet = SETS["phantom"]
) -> list[DrawnFilm]:
    """Draw the planned films into `folder`/<class>/; files that are there already are kept."""
    films = plan_films(count, seed, film_set)
    for _ in map_ordered(lambda film: _write_film(folder, film), films, threads):
        pass
    return films


def _write_film(folder: Path, film: DrawnFilm) -> None:
    target = folder / film.relative_path
    if target.exists():
        return
    grey = draw(film.label, film.seed, film.anatomy_seed, film.hospital)
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


def draw(
    label: str,
    seed: tuple[int, ...],
    anatomy_seed: tuple[int, ...],
    hospital: Hospital = hospitals.HOME,
) -> np.ndarray:
    """Draw one film, `(height, width) uint8`.

    Another hospital changes how the film is made, never what it shows.
    """
    patient = np.random.default_rng(anatomy_seed)
    drawn = chest.draw(label, np.random.default_rng(seed), patient)
    return hospitals.expose(drawn, hospital, np.random.default_rng((*seed, 1)))
