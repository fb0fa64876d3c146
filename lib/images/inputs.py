"""The inputs of a batch: a film, a folder, or a bucket (lib/images/buckets.py)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from lib.images import buckets
from lib.images.files import LARGEST_FILE, archive_refusal, find_names, unpack_command
from lib.images.reader import Reader, SourceReader
from lib.run.errors import JobError, UsageError
from lib.storage.atomic import sha256_of
from lib.storage.stamp import Stamp


class Inputs(Protocol):
    """The films of a batch by name."""

    @property
    def names(self) -> Sequence[str]:
        """Sorted; `/` between folders. Their number may have to wait for the listing."""

    @property
    def is_listed(self) -> bool:
        """Whether all names are there: their number is known at once."""

    @property
    def passed_over(self) -> int:
        """Number of hidden and operating-system files, which are not inputs."""

    def source(self, name: str, listed: Stamp | None = None) -> Any:
        """What a reader takes to read the film; picklable.

        `listed` is the stamp from `listed`; inputs `without_names` need it.
        """

    def stamp(self, name: str) -> Stamp:
        """Stamp of the film; tells whether it has changed."""

    def listed(self, name: str) -> Stamp | None:
        """Stamp of the film from the listing; None if the listing has none."""

    def sha256(self, name: str) -> str:
        """Digest of the film's bytes; empty if they cannot be read."""

    def reader(self, reader: Reader) -> SourceReader[Any]:
        """`reader` for the sources of these inputs."""

    def without_names(self) -> "Inputs":
        """The same inputs without their names, small enough to send to worker processes."""

    def prepare(self) -> None:
        """Load what decoding processes will need here. Call it before anything is read."""

    @property
    def mounts(self) -> Sequence[Path]:
        """Paths that must exist on a machine that reads the films."""


def inputs_of(location: str, written: Sequence[Path], follow_links: bool = False) -> Inputs:
    """The film, folder or bucket at `location`, without the files that the job has `written`.

    `follow_links` enters linked folders, and reads links that lead out of the folder.

    Raises:
        JobError: nothing is there, or the store does not answer.
        UsageError: an archive, or as `buckets.check`.
    """
    buckets.check(location)
    if "://" in location:
        return buckets.Bucket(location)
    path = Path(location).expanduser()
    if not path.exists():
        raise JobError(f"--input {location} does not exist.")
    if path.is_file() and (command := unpack_command(path)):
        raise UsageError(archive_refusal(f"--input {location}", path, command))
    return Folder.of(path, written, follow_links)


@dataclass(frozen=True)
class Folder:
    """`Inputs` on a disk. Names are text, which takes a quarter of the memory of paths."""

    root: Path  # absolute
    names: Sequence[str]
    passed_over: int
    within: Path | None  # resolved folder that links must not lead out of

    @staticmethod
    def of(path: Path, written: Sequence[Path], follow_links: bool = False) -> "Folder":
        """A folder with all its subfolders, or a single file.

        Raises:
            JobError: it cannot be listed.
        """
        root = path.absolute()
        if not path.is_dir():
            return Folder(root.parent, [root.name], 0, None)
        names, passed_over, _ = find_names(root, follow_links)
        if names == ["."]:
            raise JobError(
                f"--input {path} cannot be listed. The user of this job needs the permissions to "
                "read and to enter the folder."
            )
        outputs = [
            output.absolute().relative_to(root).as_posix()
            for output in written
            if output.absolute().is_relative_to(root)
        ]
        if outputs:
            folders = tuple(f"{output}/" for output in outputs)
            names = [n for n in names if n not in outputs and not n.startswith(folders)]
        return Folder(root, names, passed_over, None if follow_links else root.resolve())

    @property
    def is_listed(self) -> bool:
        """See `Inputs`."""
        return True

    def source(self, name: str, listed: Stamp | None = None) -> Path:  # noqa: ARG002
        """See `Inputs`."""
        return self.root / name

    def stamp(self, name: str) -> Stamp:
        """See `Inputs`."""
        return Stamp.of(self.root / name)

    def listed(self, name: str) -> None:
        """See `Inputs`: a stamp costs nothing where the film is read."""

    def sha256(self, name: str) -> str:
        """See `Inputs`."""
        path = self.root / name
        try:
            return sha256_of(path) if path.is_file() and path.stat().st_size <= LARGEST_FILE else ""
        except OSError:
            return ""

    def reader(self, reader: Reader) -> SourceReader[Path]:
        """See `Inputs`."""
        return replace(reader, within=self.within)

    def without_names(self) -> "Folder":
        """See `Inputs`."""
        return replace(self, names=())

    def prepare(self) -> None:
        """See `Inputs`."""

    @property
    def mounts(self) -> Sequence[Path]:
        """See `Inputs`."""
        return (self.root,)
