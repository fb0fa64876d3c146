"""A copy of a bucket's folder on this disk: films from elsewhere are read several times."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.evaluation.films import LeftOut
from lib.images.buckets import Bucket, fetched
from lib.run import console
from lib.run.errors import UnreadableFilmError
from lib.storage.atomic import PARTIAL, lock, make_folder, require_room
from lib.storage.stamp import Stamp

UNFETCHED = "could not be fetched"


@dataclass(frozen=True)
class FetchedFolder:
    """The copy, and the objects that could not be fetched."""

    root: Path
    left_out: Sequence[LeftOut]


def fetch_folder(url: str, root: Path) -> FetchedFolder:
    """Bring the objects below `url` to the folder `root`; only what is new or changed is fetched.

    A copy has the modification time of its object. Copies of objects that are gone are deleted.

    Raises:
        JobError: no object is there, the store does not answer, or the disk is too small.
    """
    bucket = Bucket(url)
    make_folder(root)
    with lock(root.parent, f"the copy of {url}"):
        wanted = {name: bucket.listed(name) for name in bucket.names}
        missing = [name for name, stamp in wanted.items() if Stamp.of(root / name) != stamp]
        require_room(root, sum(wanted[name].size for name in missing), f"the films of {url}")
        _delete_others(root, set(wanted))
        left_out = []
        for name in console.track(iter(missing), "films to fetch", len(missing)):
            try:
                _fetch(bucket, name, root)
            except UnreadableFilmError as error:
                left_out.append(LeftOut(name, "", UNFETCHED, str(error)))
    return FetchedFolder(root, left_out)


def _fetch(bucket: Bucket, name: str, root: Path) -> None:
    target, source = root / name, bucket.source(name)
    if not target.resolve().is_relative_to(root.resolve()):
        raise UnreadableFilmError("its name leads out of the folder")
    partial = target.with_name(f".fetched{PARTIAL}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with fetched(source) as path:
            shutil.copyfile(path, partial)
        os.utime(partial, ns=(source.stamp.mtime_ns, source.stamp.mtime_ns))
        partial.replace(target)
    except OSError as error:
        raise UnreadableFilmError(f"cannot be stored: {error.strerror}") from error


def _delete_others(root: Path, names: set[str]) -> None:
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(root).as_posix() not in names:
            path.unlink()
