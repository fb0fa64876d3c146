"""Identity of a stored file: size and modification time."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Stamp:
    """What tells without reading that a file is still the same. A file that is not there has -1,
    -1.
    """

    size: int = -1  # bytes
    mtime_ns: int = -1

    @staticmethod
    def of(path: Path) -> "Stamp":
        """The file's, now."""
        try:
            found = path.stat()
        except (OSError, ValueError):
            return Stamp()
        return Stamp(found.st_size, found.st_mtime_ns)
