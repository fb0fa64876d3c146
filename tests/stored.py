"""Folders that take long to build, kept between test runs in .make/tests.

A stored folder is named by a digest of everything that decides its contents, so a change to the
program builds it again. It appears by one rename, so a killed run leaves no half of it, and of two
runs at a time the first one's stays. Tests get copies and may change them.
"""

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
STORE = PROJECT / ".make" / "tests"
KEPT = 2  # of each name
IN_USE_SECONDS = 3600.0  # a folder that was used this recently is not deleted
SOURCES = ("lib", "jobs", "tests/conftest.py", "tests/stored.py")


def restore_or_build(
    name: str, folder: Path, build: Callable[[], None], *more_sources: str, store: Path = STORE
) -> bool:
    """Fill the empty `folder` from the store, else by `build`, and then keep a copy.

    `more_sources` are files and folders of the project, besides SOURCES, that decide the contents.
    Returns whether the folder came from the store.
    """
    stored = store / f"{name}-{digest(*more_sources)}"
    if stored.is_dir() and _restore(stored, folder):
        return True
    build()
    _keep(folder, stored)
    _prune(name, store)
    return False


def digest(*more_sources: str) -> str:
    """Name the program, its packages, the Python and the CPU in 16 hexadecimal digits."""
    total = hashlib.sha256(f"{sys.version} {platform.machine()} {_cpu()}".encode())
    locks = sorted(path.name for path in PROJECT.glob("requirements*"))
    for path in _files((*SOURCES, *locks, *more_sources)):
        total.update(f"\0{path.relative_to(PROJECT)}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def _files(names: tuple[str, ...]) -> Iterator[Path]:
    for name in names:
        path = PROJECT / name
        if path.is_dir():
            inside = (one for one in path.rglob("*") if "__pycache__" not in one.parts)
            yield from sorted(one for one in inside if one.is_file())
        else:
            yield path


@functools.cache
def _cpu() -> str:
    """The model and the instructions of the CPU: they decide the last bits of the weights."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return " ".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))


def _copy(source: Path, target: Path) -> None:
    """Copy the contents of a folder with its links, hard links and time stamps."""
    command = ["cp", "-a", f"{source}/.", str(target)]
    subprocess.run(command, check=True, capture_output=True)


def _restore(stored: Path, folder: Path) -> bool:
    """Copy from the store. False, with the folder empty again, when another run deletes it."""
    try:
        os.utime(stored)
        _copy(stored, folder)
    except (OSError, subprocess.CalledProcessError):
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        return False
    os.utime(folder)
    return True


def _keep(folder: Path, stored: Path) -> None:
    stored.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{stored.name}.", suffix=".partial", dir=stored.parent))
    try:
        _copy(folder, partial)
        os.utime(partial)
        partial.rename(stored)  # refused where another run was first
    except (OSError, subprocess.CalledProcessError):
        shutil.rmtree(partial, ignore_errors=True)


def _prune(name: str, store: Path) -> None:
    """Delete the folders of a name beyond the KEPT latest, and what killed runs left."""
    whole, partial = [], []
    for path in store.glob(f"{name}-*"):
        (partial if path.suffix == ".partial" else whole).append((path.stat().st_mtime, path))
    whole.sort(reverse=True)
    for used, path in [*whole[KEPT:], *partial]:
        if time.time() - used > IN_USE_SECONDS:
            doomed = path.with_name(f"{path.name}.{os.getpid()}.partial")
            try:
                path.rename(doomed)
            except OSError:  # another run prunes too
                continue
            shutil.rmtree(doomed, ignore_errors=True)
