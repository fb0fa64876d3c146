"""Films behind a URL that fsspec knows, such as s3://bucket/folder: `Inputs`, as folders are."""

import errno
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from lib.images.files import is_passed_over
from lib.images.listing import Listing, Page
from lib.images.reader import Film, Reader, SourceReader
from lib.run.errors import JobError, UnreadableFilmError, UsageError, mapped
from lib.storage.atomic import sha256_of
from lib.storage.stamp import Stamp
from lib.workers.processes import start_server

S3 = ("s3", "s3a")  # protocols
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
        """List the films; of an S3 store, those that a first request finds, the others meanwhile.

        An S3 store that does not answer is an error after a minute.

        Raises:
            JobError: no object is there, or the store does not answer.
        """
        self._protocol = url.partition("://")[0]
        self._single = ""  # name of the only film, if the URL is that of an object
        self._passed_over = 0
        with _store_errors(url):
            store = _file_system(self._protocol)
            self.prepare()
            self.root = store._strip_protocol(url).rstrip("/")
            pages = _pages_of_s3(store, self.root) if self._protocol in S3 else iter(())
            first = next(pages, [])
            if not _is_sorted(first):
                first, pages = self._all_objects(store), iter(())
        if not first:
            raise JobError(
                f"{url}: no object found. Check the name; an empty folder needs an object "
                "of no bytes whose name ends in /."
            )
        self._listing: Listing | None = Listing(self._films(url, chain([first], pages)))

    def _all_objects(self, store: Any) -> "Objects":
        """All objects at once, in order. A single object's folder becomes the root."""
        try:
            found = store.find(self.root, detail=True)
        except FileNotFoundError:
            return []
        if set(found) == {self.root} and found[self.root]["type"] == "file":
            self.root, _, self._single = self.root.rpartition("/")
        return sorted(found.items())

    def _films(self, url: str, pages: Iterable["Objects"]) -> Iterator[Page]:
        """The films among the objects, page by page."""
        with _store_errors(url):
            for objects in pages:
                films = []
                for path, info in objects:
                    name = path.removeprefix(f"{self.root}/")
                    if _is_folder_marker(path, self.root, info):
                        continue
                    if name != self._single and is_passed_over(name):
                        self._passed_over += 1
                        continue
                    films.append((name, Stamp(int(info["size"] or 0), _nanoseconds(info))))
                yield films

    @property
    def names(self) -> Sequence[str]:
        """See `Inputs`."""
        return () if self._listing is None else self._listing

    @property
    def is_listed(self) -> bool:
        """See `Inputs`."""
        return self._listing is None or self._listing.is_complete

    @property
    def passed_over(self) -> int:
        """See `Inputs`. Waits for the last name."""
        len(self.names)
        return self._passed_over

    def source(self, name: str, listed: Stamp | None = None) -> RemoteFilm:
        """See `Inputs`."""
        return RemoteFilm(f"{self._protocol}://{self.root}/{name}", listed or self.stamp(name))

    def listed(self, name: str) -> Stamp:
        """See `Inputs`."""
        return self.stamp(name)

    def stamp(self, name: str) -> Stamp:
        """See `Inputs`."""
        return Stamp() if self._listing is None else self._listing.stamp(name)

    def sha256(self, name: str) -> str:
        """See `Inputs`."""
        try:
            with fetched(self.source(name)) as path:
                return sha256_of(path)
        except UnreadableFilmError:
            return ""

    def reader(self, reader: Reader) -> SourceReader[RemoteFilm]:
        """See `Inputs`."""
        return RemoteReader(reader)

    def without_names(self) -> "Bucket":
        """See `Inputs`."""
        other = copy(self)
        other._listing = None
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
    """A `SourceReader` that downloads each film to a temporary file."""

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
        """See `SourceReader`.

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
    if protocol in S3:  # else a silent store would block the job for an hour
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


Objects = Sequence[tuple[str, Mapping[str, Any]]]  # paths with what fsspec knows of each


def _pages_of_s3(store: Any, root: str) -> Iterator[Objects]:
    """The objects below `root`, up to a thousand per request; none if `root` is no folder."""
    bucket, folder, _ = store.split_path(root)
    prefix = f"{folder}/" if folder else ""
    token: dict[str, str] = {}
    while bucket:
        try:
            answer = store.call_s3(
                "list_objects_v2", Bucket=bucket, Prefix=prefix, **token, **store.req_kw
            )
        except FileNotFoundError:
            return
        contents = answer.get("Contents", [])
        yield [
            (f"{bucket}/{found['Key']}", found | {"type": "file", "size": found["Size"]})
            for found in contents
        ]
        if not answer.get("IsTruncated"):
            return
        token = {"ContinuationToken": answer["NextContinuationToken"]}


def _is_sorted(objects: Objects) -> bool:
    """Whether names follow one another, of at least one object."""
    paths = [path for path, _ in objects]
    return bool(paths) and all(one < other for one, other in pairwise(paths))


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
