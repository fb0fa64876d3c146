"""The films of a training run: which ones the split assigns, and how one becomes the network's
input. Torch-free.
"""

import functools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lib.dataset.manifest import SplitRecord, read_split, read_split_digest
from lib.evaluation.films import LabelledFilm
from lib.images.decode import ANY_SIZE, read_grey
from lib.images.files import find_files
from lib.network.backbones import BACKBONES
from lib.network.crop import LungCropper
from lib.network.lungs import require_segmenter, segmenter_digest
from lib.network.numerics import Grey
from lib.run.errors import JobError
from lib.training.plan import Plan
from lib.workers.cores import usable_cores

Part = Literal["train", "val"]
PARTS: tuple[Part, ...] = ("train", "val")


@dataclass(frozen=True)
class TrainingFilm:
    """A training or validation film: its file, the index of its class, and its content."""

    path: Path
    target: int
    sha256: str  # of the file: what is cached of a film is found by it

    @property
    def key(self) -> bytes:
        """The content in 32 bytes."""
        return bytes.fromhex(self.sha256)

    @property
    def number(self) -> int:
        """The content as a number, which seeds the views of the film."""
        return int(self.sha256, 16)


@dataclass(frozen=True)
class FilmReader:
    """The preparation of a film before augmentation and network.

    Training with and without a cache, nodes of a cluster and the publication all read films through
    this class. Its fields are part of the cache's key.
    """

    input_side: int  # pixels
    segmenter: str = ""  # digest of the lung segmenter that films are cropped with; "": whole films
    even_exposure: bool = False  # crops get the same mean and deviation of grey levels
    film_side: int = 0  # pixels that films are brought to before the crop; 0: the input's

    @staticmethod
    def of(plan: Plan) -> "FilmReader":
        """The preparation that a plan's network needs."""
        segmenter = segmenter_digest() if plan.crop == "lungs" else ""
        side = BACKBONES[plan.backbone].input_side
        return FilmReader(side, segmenter, plan.even_exposure, plan.film_side)

    def read(self, film: TrainingFilm) -> Grey:
        """The film as the network sees it, `(input_side, input_side) uint8`.

        Raises:
            JobError: the file cannot be read any more; the split job could read it. Or the program
                of this machine has another segmenter.
        """
        return self.view_of(self.decode(film))

    def view_of(self, whole: Grey) -> Grey:
        """What the network sees of a film that `decode` gave, `(input_side, input_side) uint8`."""
        if not self.segmenter:
            return whole
        cropper = _cropper_of(self.segmenter, self.even_exposure)
        return cropper.view(whole, self.input_side).grey

    def decode(self, film: TrainingFilm) -> Grey:
        """The whole film as a square of `film_side` pixels, or of the input's.

        Raises:
            JobError: the file cannot be read any more; the split job could read it.
        """
        side = self.film_side or self.input_side
        try:
            return read_grey(film.path, side, ANY_SIZE, trust_headers=True)
        except JobError as error:
            raise JobError(
                f"{film.path}: {error}. The films changed during the training: run the jobs again "
                "from ingest."
            ) from error


_compilation = threading.Lock()


def _cropper_of(segmenter: str, even_exposure: bool) -> LungCropper:
    """This process's cropper, for all threads. It is compiled once."""
    with _compilation:
        return _compiled_cropper(segmenter, even_exposure)


@functools.cache
def _compiled_cropper(segmenter: str, even_exposure: bool) -> LungCropper:
    require_segmenter(segmenter)
    return LungCropper(usable_cores(0), even_exposure=even_exposure)


@dataclass(frozen=True)
class SplitFilms:
    """The training and validation films that split.csv assigns."""

    data_dir: Path
    digest: str  # sha256 of split.csv
    classes: tuple[str, ...]  # in alphabetical order, as ImageFolder numbers them
    films: Mapping[Part, Sequence[TrainingFilm]]

    def training_film(self, film: LabelledFilm) -> TrainingFilm:
        """A film of an evaluation, with the number of its class here."""
        return TrainingFilm(film.file, self.classes.index(film.label), film.record.sha256)

    @staticmethod
    def read(data_dir: Path) -> "SplitFilms":
        """Read split.csv and compare it with the files in train/ and val/.

        Raises:
            JobError: no split, a class without films, or files that split.csv does not name.
        """
        digest = read_split_digest(data_dir)  # first: a later change of the rows is then noticed
        rows = read_split(data_dir)
        classes = tuple(sorted({row.label for row in rows if row.split}))
        films = {part: _films_of(part, rows, classes, data_dir) for part in PARTS}
        return SplitFilms(data_dir, digest, classes, films)

    @property
    def cache_dir(self) -> Path:
        """The folder of weights and activations."""
        return self.data_dir / "cache"

    def require_unchanged(self) -> None:
        """Refuse to publish a model of a split that was replaced during the training.

        Raises:
            JobError: split.csv is another file now.
        """
        if read_split_digest(self.data_dir) != self.digest:
            raise JobError(
                "split.csv changed during the training; nothing was published. Run the train job "
                "again."
            )


def _films_of(
    part: Part, rows: Sequence[SplitRecord], classes: Sequence[str], data_dir: Path
) -> list[TrainingFilm]:
    members = [row for row in rows if row.split == part]
    missing = [label for label in classes if not any(row.label == label for row in members)]
    if missing:
        raise JobError(
            f"{data_dir / part} has no film of {', '.join(missing)}. Run the split job again."
        )
    on_disk = {path.relative_to(data_dir).as_posix() for path in find_files(data_dir / part)[0]}
    differing = on_disk ^ {row.file for row in members}
    if differing:
        raise JobError(
            f"{data_dir / part} and split.csv disagree about {len(differing)} films, the first is "
            f"{min(differing)}. Add or remove films at the source, then run the ingest and split "
            "jobs again."
        )
    return [
        TrainingFilm(data_dir / row.file, classes.index(row.label), row.sha256) for row in members
    ]
