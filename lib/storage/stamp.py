"""Identity of a stored file: size and modification time."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Stamp:
    """Tells whether a file has changed, without reading it. A missing file has -1 and -1."""

    size: int = -1  # bytes
    mtime_ns: int = -1

    @staticmethod
    def of(path: Path) -> "Stamp":
        """The stamp of a file now."""
        try:
            stat = path.stat()
        except (OSError, ValueError):
            return Stamp()
        return Stamp(stat.st_size, stat.st_mtime_ns)
