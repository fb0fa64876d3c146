"""Films behind a URL that fsspec knows, such as s3://bucket/folder: `Inputs`, as folders are."""

import errno
import re
import tempfile
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from lib.images.files import is_passed_over
from lib.images.reader import Film, FilmReader, Reader
from lib.run.errors import JobError, UnreadableFilmError, UsageError, mapped
from lib.storage.atomic import sha256_of
from lib.storage.stamp import Stamp
from lib.workers.processes import start_server

LARGEST_OBJECT = 128_000_000  # bytes; larger objects are not fetched
CONNECT_SECONDS = 5.0  # S3; botocore tries a request twice, and s3fs tries that twice
READ_SECONDS = 15.0  # without a byte of the response; less than FILE_TIMEOUT
_PASSWORD = re.compile(r"[^/:]*:[^@]*@")
_PATH_IN_ADDRESS = re.compile(r"(?<=://)([^/\s'\"]+)/[^\s'\"]*")


def check(location: str) -> None:
    """Refuse a URL that no bucket can have. Paths are accepted unseen.

    Raises:
        UsageError: an unknown kind of URL, or one that holds a password.
        JobError: the package for it is missing.
    """
    protocol, mark, rest = location.partition("://")
    if not mark:
        return
    if _PASSWORD.match(rest):
        raise UsageError(
            f"{protocol}://***@…: other users can see a password in a URL. Give the URL "
            "without it, and the credentials in the environment (AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY)."
        )
    with _store_errors(location):
        import fsspec

        fsspec.get_filesystem_class(protocol)


@dataclass(frozen=True)
class RemoteFilm:
    """A film in a bucket, with its stamp from the listing."""

    url: str
    stamp: Stamp


class Bucket:
    """`Inputs` behind a URL that fsspec knows: s3://bucket/folder, gs://, abfs://, …

    Address and credentials come from the environment, with the names that the store's own tools
    use (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, …).
    """

    def __init__(self, url: str) -> None:
        """List the films. An S3 store that does not answer is an error after a minute.

        Raises:
            JobError: no object is there, or the store does not answer.
        """
        self._protocol = url.partition("://")[0]
        with _store_errors(url):
            store = _file_system(self._protocol)
            self.prepare()
            root = store._strip_protocol(url).rstrip("/")
            try:
                objects = store.find(root, detail=True)
            except FileNotFoundError:
                objects = {}
        if not objects:
            raise JobError(
                f"{url}: no object found. Check the name; an empty folder needs an object "
                "of no bytes whose name ends in /."
            )
        is_single = set(objects) == {root} and objects[root]["type"] == "file"
        if is_single:
            root = root.rpartition("/")[0]
        self.root = root
        names = {
            path.removeprefix(f"{root}/"): info
            for path, info in objects.items()
            if not _is_folder_marker(path, root, info)
        }
        films = sorted(name for name in names if is_single or not is_passed_over(name))
        self.names: Sequence[str] = films
        self.passed_over = len(names) - len(films)
        self._sizes = array("q", (int(names[name]["size"] or 0) for name in films))
        self._times = array("q", (_nanoseconds(names[name]) for name in films))

    def source(self, name: str, listed: Stamp | None = None) -> RemoteFilm:
        """See `Inputs`."""
        return RemoteFilm(f"{self._protocol}://{self.root}/{name}", listed or self.stamp(name))

    def listed(self, name: str) -> Stamp:
        """See `Inputs`."""
        return self.stamp(name)

    def stamp(self, name: str) -> Stamp:
        """See `Inputs`."""
        index = bisect_left(self.names, name)
        if index == len(self.names) or self.names[index] != name:
            return Stamp()  # a row of an earlier run; the object is gone
        return Stamp(self._sizes[index], self._times[index])

    def sha256(self, name: str) -> str:
        """See `Inputs`."""
        try:
            with fetched(self.source(name)) as path:
                return sha256_of(path)
        except UnreadableFilmError:
            return ""

    def reader(self, reader: Reader) -> FilmReader[RemoteFilm]:
        """See `Inputs`."""
        return RemoteReader(reader)

    def without_names(self) -> "Bucket":
        """See `Inputs`."""
        other = copy(self)
        other.names, other._sizes, other._times = (), array("q"), array("q")
        return other

    def prepare(self) -> None:
        """See `Inputs`."""
        start_server(type(_file_system(self._protocol)).__module__)

    @property
    def mounts(self) -> Sequence[Path]:
        """See `Inputs`."""
        return ()


@dataclass(frozen=True)
class RemoteReader:
    """A `FilmReader` that downloads each film to a temporary file."""

    reader: Reader

    def __call__(self, film: RemoteFilm) -> Film:
        """As `Reader`.

        Raises:
            JobError: the store does not answer. The job stops, or every film would be an error.
        """
        try:
            with fetched(film) as path:
                return replace(self.reader(path), path=Path(film.url), stamp=film.stamp)
        except UnreadableFilmError as error:
            return Film(Path(film.url), str(error), stamp=film.stamp)

    def lost(self, film: RemoteFilm, reason: str) -> Film:
        """See `FilmReader`.

        Raises:
            JobError: the process was lost because the store does not answer.
        """
        with _store_errors(film.url):
            _require_answer(film.url)
        return Film(Path(film.url), reason, stamp=film.stamp)


@contextmanager
def fetched(film: RemoteFilm) -> Iterator[Path]:
    """A local copy, with the same suffix, while the block runs.

    Raises:
        UnreadableFilmError: this object is gone, not ours to read, too large, or has changed.
        JobError: the store does not answer any more.
    """
    if film.stamp.size > LARGEST_OBJECT:
        raise UnreadableFilmError(
            f"has {film.stamp.size / 1e6:.0f} MB; films of up to {LARGEST_OBJECT / 1e6:.0f} MB are "
            "fetched"
        )
    protocol, _, key = film.url.partition("://")
    with tempfile.TemporaryDirectory(prefix="cxr-") as folder:
        path = Path(folder, f"film{PurePosixPath(key).suffix[:10]}")
        with _store_errors(film.url):
            try:
                _file_system(protocol).get_file(key, str(path))
            except ValueError as error:  # a name that no request can carry
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

    options: dict[str, Any] = {}
    if protocol in ("s3", "s3a"):  # else a silent store would block the job for an hour
        configured = conf.get(protocol, {}).get("config_kwargs", {})
        retries = {"total_max_attempts": 2, "mode": "standard"}
        options = {
            "config_kwargs": {
                "connect_timeout": CONNECT_SECONDS,
                "read_timeout": READ_SECONDS,
                "retries": retries,
                **configured,
            }
        }
    store = fsspec.filesystem(
        protocol, use_listings_cache=False, skip_instance_cache=True, **options
    )
    if options:
        store.retries = 2
    return store


def _require_answer(url: str) -> None:
    """Distinguish one unreadable film from an unreachable store, which would fail every film.

    Raises:
        OSError: the store does not answer, or refuses access.
    """
    protocol, _, key = url.partition("://")
    if not _file_system(protocol).exists(key.partition("/")[0]):
        raise OSError("no access")


def _store_errors(url: str) -> AbstractContextManager[None]:
    """Map the errors of fsspec and of the packages below it. Their causes are left out of the log:
    they name films.
    """
    protocol, _, key = url.partition("://")

    def not_installed(error: ImportError) -> JobError:
        return JobError(
            f"{protocol}://…: {error}. requirements-ray.txt installs s3://; other stores "
            "have packages of their own."
        )

    def no_url(error: ValueError) -> JobError:
        return UsageError(f"{url}: {error}. Give a folder, or a URL such as s3://bucket/folder.")

    def no_answer(error: Exception) -> JobError:
        reason = _PATH_IN_ADDRESS.sub(r"\1", f"{type(error).__name__}: {error}")
        return JobError(
            f"{protocol}://{key.partition('/')[0]} does not answer: {reason}. Finished rows are "
            "kept; check address, credentials and network, then run the same command again."
        )

    return mapped(
        {ImportError: not_installed, ValueError: no_url, Exception: no_answer}, keep_cause=False
    )


def _is_folder_marker(path: str, root: str, info: Mapping[str, Any]) -> bool:
    """Whether the object only marks a folder."""
    return info["type"] != "file" or path.endswith("/") or path == root


def _nanoseconds(info: Mapping[str, Any]) -> int:
    """Modification time of the object; 0 if its store has none."""
    names = ("LastModified", "mtime", "last_modified", "updated", "created")
    when = next((info[name] for name in names if info.get(name)), 0)
    if isinstance(when, int | float):
        return int(1e9 * when)
    return int(1e9 * when.timestamp()) if hasattr(when, "timestamp") else 0
