"""Files and folders that are whole or absent, after a kill and after a power loss; and locks.

The order is always the same: write beside the final name, fsync what was written, rename, fsync the
parent folder. A rename that reaches the disk before the content leaves a torn file.
"""

import csv
import errno
import hashlib
import io
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from lib.run.errors import JobError, LockedError

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
PARTIAL = ".partial"  # suffix of everything unfinished: safe to delete when no job runs


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; it takes the name once the block ends without an error.

    Content and name are on the disk when this returns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A short name: that of `path` may be as long as the file system allows.
    partial = path.with_name(f".{secrets.token_hex(8)}{PARTIAL}")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Write the names in `folder` to the disk; file systems that cannot do so are left alone."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(number)


def sync_tree(folder: Path, names_alone: bool = False) -> None:
    """Write every file below `folder`, and every folder itself, to the disk: the deepest first.

    `names_alone`: the contents of the files are there already, as those of hard links are.
    """
    for parent, _, names in os.walk(folder, topdown=False):
        for name in () if names_alone else names:
            path = Path(parent, name)
            if path.is_symlink() or not path.is_file():
                continue
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(parent))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8; raw bytes of odd file names become backslash escapes."""
    with whole_file(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON, keys in the order given. NaN, which is no JSON, is a ValueError."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write RFC 4180 quoting with "\\n" line ends, one column per name in `columns`."""
    with whole_file(path) as file, _text(file) as text:
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


@contextmanager
def _text(file: BinaryIO) -> Iterator[Any]:
    wrapper = io.TextIOWrapper(
        file, encoding="utf-8", errors="backslashreplace", newline="", write_through=True
    )
    try:
        yield wrapper
    finally:
        wrapper.flush()
        wrapper.detach()


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_file(source: Path, target: Path) -> None:
    """Copy bytes and modification time; `target` is whole or absent."""
    stat = source.stat()
    with whole_file(target) as out, open(source, "rb") as file:
        shutil.copyfileobj(file, out, 1 << 20)
        out.flush()
        os.utime(out.fileno(), ns=(stat.st_atime_ns, stat.st_mtime_ns))


def link_or_copy(source: Path, target: Path) -> None:
    """Hard link, or copy where the file system cannot link."""
    try:
        try:
            os.link(source, target)
        except FileNotFoundError:  # the folder is missing, as for the first film alone
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)
    except OSError:
        copy_file(source, target)


def swap_folder(new: Path, final: Path, names_alone: bool = False) -> None:
    """Put the finished folder `new` in the place of `final`, then delete what stood there.

    Everything below `new` is on the disk before it takes the name, and the name is on the disk
    before the old content is deleted. `names_alone` as for `sync_tree`.
    """
    old = hidden_neighbour(final, f"old{PARTIAL}")
    _delete(old)
    sync_tree(new, names_alone)
    if os.path.lexists(final):
        os.rename(final, old)
    os.rename(new, final)
    sync_folder(final.parent)
    _delete(old)


def _delete(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def copy_folder(source: Path, final: Path) -> None:
    """Put a copy of the flat folder `source` in the place of `final`, by hard links if possible."""
    partial = final.with_name(f".{final.name}.new{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    for path in source.iterdir():
        link_or_copy(path, partial / path.name)
    swap_folder(partial, final)


def recover_folder(final: Path) -> None:
    """Undo a `swap_folder` that was killed between its two renames."""
    old = hidden_neighbour(final, f"old{PARTIAL}")
    if os.path.lexists(old) and not os.path.lexists(final):
        os.rename(old, final)
        sync_folder(final.parent)


def require_room(folder: Path, bytes_needed: int, purpose: str) -> None:
    """Refuse before the work if the disk of `folder` lacks `bytes_needed` plus 200 MB.

    Raises:
        JobError: names what is needed, what is free and where.
    """
    free = shutil.disk_usage(folder).free
    needed = bytes_needed + 200_000_000
    if free < needed:
        raise JobError(
            f"{purpose} needs {needed / 1e9:.1f} GB in {folder}, {free / 1e9:.1f} GB are free. "
            "Free some space or set DATA_DIR to a larger disk; nothing was changed."
        )


def hidden_neighbour(path: Path, ending: str) -> Path:
    """`.NAME.ending` beside `path`; a digest stands for a name that leaves no room for it."""
    name, encoded = path.name, os.fsencode(path.name)
    if len(encoded) > 200:
        name = hashlib.sha256(encoded).hexdigest()
    return path.with_name(f".{name}.{ending}")


@contextmanager
def lock(folder: Path, what: str, name: str = ".lock") -> Iterator[None]:
    """Hold the lock file `folder`/`name` while the block runs.

    The kernel releases the lock however the holding process ends. On a share without locks the lock
    is the file `name`.soft, which exists as long as it is held.

    Raises:
        LockedError: another process holds it (exit 75).
    """
    make_folder(folder)
    held: BaseFileLock = FileLock(folder / name, fallback_to_soft=False)
    try:
        try:
            held.acquire(timeout=0)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            held = SoftFileLock(folder / f"{name}.soft")
            held.acquire(timeout=0)
    except Timeout:
        stale = (
            f" {folder} has no locks of its own: if no run is alive, delete {held.lock_file}."
            if isinstance(held, SoftFileLock)
            else ""
        )
        raise LockedError(
            f"another run is working on {what} ({folder}). Wait for it to end, then start again."
            f"{stale}"
        ) from None
    except OSError as error:
        raise JobError(f"cannot write to {folder}: {error.strerror}. {OWNER_HINT}") from error
    try:
        yield
    finally:
        held.release()


def lock_of(file: Path) -> AbstractContextManager[None]:
    """The lock of one file that is about to be written."""
    return lock(file.parent, file.name, hidden_neighbour(file, "lock").name)


def sweep(folder: Path) -> None:
    """Delete temporary files that killed runs left in `folder`, whose lock the caller holds."""
    for path in folder.glob(f".*{PARTIAL}"):
        if path.is_file():
            path.unlink(missing_ok=True)


OWNER_HINT = (
    "In a container, UID and GID in .env must be those of the folder's owner (`id -u`, `id -g`)."
)


def make_folder(folder: Path) -> None:
    """Create `folder` with its parents.

    Raises:
        JobError: it cannot be created; says why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JobError(f"cannot create {folder}: {error.strerror}. {OWNER_HINT}") from error
