"""Where a batch of films lies: a folder, or a bucket (lib/images/buckets.py). Both give names, and
films to read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from lib.images import buckets
from lib.images.files import LARGEST_FILE, archive_refusal, find_files, unpack_command
from lib.images.reader import FilmReader, Reader
from lib.run.errors import JobError, UsageError
from lib.storage.atomic import sha256_of
from lib.storage.stamp import Stamp


class Place(Protocol):
    """The films of a batch by name."""

    @property
    def names(self) -> Sequence[str]:
        """Sorted, `/` between folders."""

    @property
    def passed_over(self) -> int:
        """Hidden and operating-system files, which are not inputs."""

    def source(self, name: str, listed: Stamp | None = None) -> Any:
        """What a reader takes to read the film; picklable. `listed` as from `listed`, for a place
        without its names.
        """

    def stamp(self, name: str) -> Stamp:
        """What tells that the film is still the same."""

    def listed(self, name: str) -> Stamp | None:
        """What the listing told of the film, if it told anything."""

    def sha256(self, name: str) -> str:
        """Of its bytes; empty where they cannot be read."""

    def reader(self, reader: Reader) -> FilmReader[Any]:
        """`reader` for the sources of this place."""

    def anywhere(self) -> "Place":
        """The place without its names, small enough to travel."""

    def prepare(self) -> None:
        """Let reading processes begin with what they need here. To be called before anything is
        read.
        """

    @property
    def mounts(self) -> Sequence[Path]:
        """Paths that a machine must have to read the films."""


def place_of(given: str, own: Sequence[Path], follow_links: bool = False) -> Place:
    """The folder, film or bucket that `given` names. `own` are files and folders that the job
    itself writes: no films. `follow_links` enters links to folders and reads links that lead out.

    Raises:
        JobError: there is no such place, or it does not answer.
        UsageError: an archive, or as `buckets.check`.
    """
    buckets.check(given)
    if "://" in given:
        return buckets.Bucket(given)
    path = Path(given).expanduser()
    if not path.exists():
        raise JobError(f"--input {given} does not exist.")
    if path.is_file() and (command := unpack_command(path)):
        raise UsageError(archive_refusal(f"--input {given}", path, command))
    return Folder.of(path, own, follow_links)


@dataclass(frozen=True)
class Folder:
    """Films on a disk. `names` is text alone, which takes a quarter of the memory of paths."""

    root: Path  # absolute
    names: Sequence[str]
    passed_over: int
    within: Path | None  # resolved folder that links must not lead out of

    @staticmethod
    def of(given: Path, own: Sequence[Path], follow_links: bool = False) -> "Folder":
        """A folder with all its subfolders, or a single file.

        Raises:
            JobError: it cannot be listed.
        """
        root = given.absolute()
        if not given.is_dir():
            return Folder(root.parent, [root.name], 0, None)
        files, passed_over, _ = find_files(root, follow_links)
        if files == [root]:
            raise JobError(
                f"--input {given} cannot be listed. "
                "The user of this job needs the rights to read it and to enter it."
            )
        names = sorted(path.relative_to(root).as_posix() for path in files)
        places = [
            path.absolute().relative_to(root).as_posix()
            for path in own
            if path.absolute().is_relative_to(root)
        ]
        inputs = [
            name
            for name in names
            if not any(name == place or name.startswith(f"{place}/") for place in places)
        ]
        return Folder(root, inputs, passed_over, None if follow_links else root.resolve())

    def source(self, name: str, listed: Stamp | None = None) -> Path:  # noqa: ARG002
        return self.root / name

    def stamp(self, name: str) -> Stamp:
        return Stamp.of(self.root / name)

    def listed(self, name: str) -> None:  # noqa: ARG002
        return None

    def sha256(self, name: str) -> str:
        path = self.root / name
        try:
            return sha256_of(path) if path.is_file() and path.stat().st_size <= LARGEST_FILE else ""
        except OSError:
            return ""

    def reader(self, reader: Reader) -> FilmReader[Path]:
        return replace(reader, within=self.within)

    def anywhere(self) -> "Folder":
        return replace(self, names=())

    def prepare(self) -> None:
        pass

    @property
    def mounts(self) -> Sequence[Path]:
        return (self.root,)
