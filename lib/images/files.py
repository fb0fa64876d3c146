"""Folders of films: which files are inputs, in which order, and which symbolic links are followed."""

import os
from collections.abc import Iterator
from pathlib import Path

LARGEST_FILE = 4 * 2**30  # bytes; films of MAX_PIXELS are smaller, a sparse file can be terabytes
MAX_PIXELS = 200_000_000  # a film of 14k x 14k; the default of --max_megapixels
FILE_SECONDS = 20.0  # to decode one file; the default of --file_timeout
TOO_LARGE_FILE = "file is larger than 4 GB, which no film is"


def describe_non_file(path: Path) -> str:
    """Why something that is no regular file cannot be read."""
    if path.is_dir():
        return "link to a folder is not followed" if path.is_symlink() else "folder cannot be read"
    return "not a regular file" if path.exists() else "file not found (or a broken link)"


def is_link(path: Path) -> bool:
    """Whether `path` is a symbolic link; not, where that cannot be known: a folder that may be
    listed and not entered.
    """
    try:
        return path.is_symlink()
    except OSError:
        return False


def leads_out(path: Path, folder: Path) -> bool:
    """Whether `path` is a link to something outside `folder`, which is resolved."""
    return is_link(path) and not Path(os.path.realpath(path)).is_relative_to(folder)


def is_passed_over(name: str) -> bool:
    """Whether a file `folder/name` is no input: hidden, in a hidden folder, or an operating
    system's own.
    """
    *_, last = parts = name.split("/")
    return any(part.startswith(".") for part in parts) or last.lower() in (
        "thumbs.db",
        "desktop.ini",
        "dicomdir",
    )


def find_files(root: Path) -> tuple[list[Path], int]:
    """Every file below `root` in a stable order, and how many hidden or operating-system files were
    passed over.

    A file is found once: folders behind symbolic links are not entered. A folder that cannot be
    listed is found in place of its files, so that reading it tells the reason.
    """
    found: list[Path] = []
    passed_over = 0
    for path in _walk(root):
        if is_passed_over(path.name):
            passed_over += 1
        else:
            found.append(path)
    return sorted(found, key=lambda path: path.relative_to(root).as_posix()), passed_over


def _walk(root: Path) -> Iterator[Path]:
    closed: list[Path] = []
    for parent, folders, names in os.walk(
        root, onerror=lambda error: closed.append(Path(error.filename))
    ):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names)
        yield from (Path(parent, name) for name in folders if is_link(Path(parent, name)))
    yield from closed
