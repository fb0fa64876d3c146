"""Films behind a URL that fsspec knows: s3://bucket/folder, and whatever else has a package. A
`Place`, as folders are.
"""

import errno
import re
import tempfile
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from lib.images.files import is_passed_over
from lib.images.reader import Film, FilmReader, Reader
from lib.run.errors import JobError, UnreadableFilmError, UsageError
from lib.storage.atomic import sha256_of
from lib.storage.stamp import Stamp
from lib.workers.processes import start_server

LARGEST_OBJECT = 128_000_000  # bytes that are fetched of one film at most
CONNECT_SECONDS = 5.0  # S3; a request is tried twice by botocore, and this twice by s3fs
READ_SECONDS = 15.0  # of silence in an answer: below FILE_TIMEOUT
_PASSWORD = re.compile(r"[^/:]*:[^@]*@")
_PATH_IN_ADDRESS = re.compile(r"(?<=://)([^/\s'\"]+)/[^\s'\"]*")


def check(given: str) -> None:
    """Refuse a URL that no bucket can have, before any work. Paths are not looked at.

    Raises:
        UsageError: an unknown kind of URL, or one that holds a password.
        JobError: the package for it is missing.
    """
    protocol, mark, rest = given.partition("://")
    if not mark:
        return
    if _PASSWORD.match(rest):
        raise UsageError(
            f"--input {protocol}://***@…: a URL with a password would be seen by others. Give the URL without it, and "
            "credentials in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)."
        )
    with _explained(given):
        import fsspec

        fsspec.get_filesystem_class(protocol)


@dataclass(frozen=True)
class RemoteFilm:
    """A film in a bucket as the listing had it."""

    url: str
    stamp: Stamp


class Bucket:
    """Films behind a URL that fsspec knows: s3://bucket/folder, and whatever else has a package
    (gs://, abfs://, …).

    Where it is and who may read it is said by the environment, as the store's own tools take it
    (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, …).
    """

    def __init__(self, url: str) -> None:
        """List it. An S3 store that is silent is given up after a minute.

        Raises:
            JobError: nothing there, or a store that does not answer.
        """
        self._protocol = url.partition("://")[0]
        with _explained(url):
            store = _file_system(self._protocol)
            self.prepare()
            root = store._strip_protocol(url).rstrip("/")
            try:
                found = store.find(root, detail=True)
            except FileNotFoundError:
                found = {}
        if not found:
            raise JobError(
                f"--input {url}: there is no object there. Is the name right? An empty folder is one with a mark."
            )
        is_single = set(found) == {root} and found[root]["type"] == "file"
        if is_single:
            root = root.rpartition("/")[0]
        self.root = root
        names = {
            path.removeprefix(f"{root}/"): info
            for path, info in found.items()
            if not _is_mark(path, root, info)
        }
        films = sorted(name for name in names if is_single or not is_passed_over(name))
        self.names: Sequence[str] = films
        self.passed_over = len(names) - len(films)
        self._sizes = array("q", (int(names[name]["size"] or 0) for name in films))
        self._times = array("q", (_nanoseconds(names[name]) for name in films))

    def source(self, name: str, listed: Stamp | None = None) -> RemoteFilm:
        return RemoteFilm(f"{self._protocol}://{self.root}/{name}", listed or self.stamp(name))

    def listed(self, name: str) -> Stamp:
        return self.stamp(name)

    def stamp(self, name: str) -> Stamp:
        number = bisect_left(self.names, name)
        if number == len(self.names) or self.names[number] != name:
            return Stamp()  # of an earlier run's table, and gone
        return Stamp(self._sizes[number], self._times[number])

    def sha256(self, name: str) -> str:
        try:
            with fetched(self.source(name)) as path:
                return sha256_of(path)
        except UnreadableFilmError:
            return ""

    def reader(self, reader: Reader) -> FilmReader[RemoteFilm]:
        return RemoteReader(reader)

    def anywhere(self) -> "Bucket":
        other = copy(self)
        other.names, other._sizes, other._times = (), array("q"), array("q")
        return other

    def prepare(self) -> None:
        start_server(type(_file_system(self._protocol)).__module__)

    @property
    def mounts(self) -> Sequence[Path]:
        return ()


@dataclass(frozen=True)
class RemoteReader:
    """A `FilmReader` that brings each film to a file of its own for as long as it is read."""

    reader: Reader

    def __call__(self, film: RemoteFilm) -> Film:
        """As `Reader`.

        Raises:
            JobError: the store does not answer. Every film would become an error, so the job stops.
        """
        try:
            with fetched(film) as path:
                return replace(self.reader(path), path=Path(film.url), stamp=film.stamp)
        except UnreadableFilmError as error:
            return Film(Path(film.url), str(error), stamp=film.stamp)

    def lost(self, film: RemoteFilm, reason: str) -> Film:
        """The film whose reading process did not come back.

        Raises:
            JobError: because the store is silent.
        """
        with _explained(film.url):
            _require_answer(film.url)
        return Film(Path(film.url), reason, stamp=film.stamp)


@contextmanager
def fetched(film: RemoteFilm) -> Iterator[Path]:
    """A local copy with the same ending while the block runs.

    Raises:
        UnreadableFilmError: this object is gone, closed to us, too large, or not the one that was
        listed. JobError: the store does not answer any more.
    """
    if film.stamp.size > LARGEST_OBJECT:
        raise UnreadableFilmError(
            f"has {film.stamp.size / 1e6:.0f} MB; films of up to {LARGEST_OBJECT / 1e6:.0f} MB are fetched"
        )
    protocol, _, place = film.url.partition("://")
    with tempfile.TemporaryDirectory(prefix="cxr-") as folder:
        path = Path(folder, f"film{PurePosixPath(place).suffix[:10]}")
        with _explained(film.url):
            try:
                _file_system(protocol).get_file(place, str(path))
            except ValueError as error:  # a name that no request can hold
                raise UnreadableFilmError(f"cannot be fetched: {error}") from error
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise JobError(
                        f"{folder}: no space left to fetch films to. Set TMPDIR to a larger disk."
                    ) from error
                _require_answer(film.url)
                raise UnreadableFilmError(
                    f"cannot be fetched: {error.strerror or error}"
                ) from error
        if path.stat().st_size != film.stamp.size:
            raise UnreadableFilmError("changed after it was listed: is it still being copied?")
        yield path


@cache
def _file_system(protocol: str) -> Any:
    import fsspec
    from fsspec.config import conf

    patience: dict[str, Any] = {}
    if protocol in ("s3", "s3a"):  # without it a silent store holds the job for an hour
        given = conf.get(protocol, {}).get("config_kwargs", {})
        retries = {"total_max_attempts": 2, "mode": "standard"}
        patience = {
            "config_kwargs": {
                "connect_timeout": CONNECT_SECONDS,
                "read_timeout": READ_SECONDS,
                "retries": retries,
                **given,
            }
        }
    store = fsspec.filesystem(
        protocol, use_listings_cache=False, skip_instance_cache=True, **patience
    )
    if patience:
        store.retries = 2
    return store


def _require_answer(url: str) -> None:
    """Tell one film that cannot be had from a store that cannot be had, which would make an error
    of every film.

    Raises:
        OSError: the store does not let us in, or not any more, or is silent.
    """
    protocol, _, place = url.partition("://")
    if not _file_system(protocol).exists(place.partition("/")[0]):
        raise OSError("no access")


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Every package has errors of its own: here they become ours."""
    protocol, _, place = url.partition("://")
    try:
        yield
    except JobError:
        raise
    except ImportError as error:
        raise JobError(
            f"--input {protocol}://…: {error}. requirements-ray.txt brings s3://; other stores have packages of their own."
        ) from error
    except ValueError as error:
        raise UsageError(
            f"--input {url}: {error}. Give a folder, or a URL such as s3://bucket/folder."
        ) from error
    except Exception as error:
        said = _PATH_IN_ADDRESS.sub(r"\1", f"{type(error).__name__}: {error}")
        raise JobError(
            f"{protocol}://{place.partition('/')[0]} does not answer: {said}. Rows that were written are kept; check address, "
            "credentials and network, then run the same command again."
        ) from None  # packages name the film in their errors, and the log keeps tracebacks


def _is_mark(path: str, root: str, info: Mapping[str, Any]) -> bool:
    """Whether it only says that there is a folder."""
    return info["type"] != "file" or path.endswith("/") or path == root


def _nanoseconds(info: Mapping[str, Any]) -> int:
    """When the object was written, as far as its store says it."""
    when = next(
        (
            info[key]
            for key in ("LastModified", "mtime", "last_modified", "updated", "created")
            if info.get(key)
        ),
        0,
    )
    return (
        int(1e9 * when)
        if isinstance(when, int | float)
        else int(1e9 * when.timestamp())
        if hasattr(when, "timestamp")
        else 0
    )
