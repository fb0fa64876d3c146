"""data/raw: which films of a source are there already, and how the others get there."""

import errno
import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lib.dataset.collections import source_and_patient
from lib.dataset.labels import FoundFilm
from lib.dataset.manifest import FilmRecord, read_manifest
from lib.dataset.sources import Source
from lib.images.files import (
    LARGEST_FILE,
    NOT_FOLLOWED,
    TOO_LARGE_FILE,
    describe_non_file,
    leads_out,
)
from lib.images.measure import Measurements
from lib.images.reader import Examination
from lib.run import console
from lib.run.errors import JobError, UnreadableFilmError
from lib.storage import atomic
from lib.storage.atomic import sha256_of
from lib.workers.threads import map_ordered

# A copy waits for the disk twice, and copies wait together: 8 are 6 to 20 times as fast as one.
COPIES_AT_A_TIME = 8
LONGEST_NAME = 255  # bytes, of nearly every file system
_OUR_ERRORS = {  # trouble of this machine or its disk, not of one film
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
}


@dataclass(frozen=True, slots=True)
class PlannedFilm:
    """A film of the source and its place in data/raw."""

    film: FoundFilm
    name: str  # path below data/raw, forward slashes
    copy: FilmRecord | None  # row of the copy in data/raw, if it is that of the unchanged file

    @property
    def measured(self) -> FilmRecord | None:
        """What an earlier run measured; unreadable films are tried again."""
        return self.copy if self.copy and self.copy.status == "ok" else None


@dataclass(frozen=True)
class RawPlan:
    """What an ingest does with each film: keep or copy, reuse its measurements or measure it."""

    films: tuple[PlannedFilm, ...]
    earlier: tuple[FilmRecord, ...]  # rows of data/raw as it is

    @staticmethod
    def of(films: Sequence[FoundFilm], data_dir: Path) -> "RawPlan":
        """Compare the films of a source with what an earlier ingest left in data/raw."""
        earlier = tuple(earlier_records(data_dir))
        known = {record.origin: record for record in earlier}
        names = _names(films, known)
        planned = (
            PlannedFilm(
                film, names[film.origin], _unchanged(film, data_dir / "raw", known.get(film.origin))
            )
            for film in films
        )
        return RawPlan(tuple(planned), earlier)

    @property
    def to_copy(self) -> list[FoundFilm]:
        """Films without an unchanged copy."""
        return [planned.film for planned in self.films if not planned.copy]

    @property
    def measured(self) -> list[FilmRecord]:
        """Rows that are taken over."""
        return [planned.measured for planned in self.films if planned.measured]

    @property
    def is_carried_out(self) -> bool:
        """Whether data/raw holds these films and no others, all of them measured."""
        return len(self.measured) == len(self.films) == len(self.earlier)

    def known(self, staging: Path, threads: int) -> dict[str, FilmRecord]:
        """Rows by origin of bytes that an earlier run measured, under another name or label.

        Only staged files with the size of a known film are read.
        """
        earlier = {record.sha256: record for record in self.earlier if record.status == "ok"}
        sizes = {record.bytes for record in earlier.values()}
        staged = [
            planned
            for planned in self.films
            if not planned.measured and _size(staging / planned.name) in sizes
        ]
        digests = map_ordered(lambda planned: sha256_of(staging / planned.name), staged, threads)
        found = {}
        for planned, digest in zip(staged, digests, strict=True):
            record = earlier.get(digest)
            if record and _names_its_patient(planned.film.origin) >= _names_its_patient(
                record.origin
            ):
                found[planned.film.origin] = record_of(planned, _examination_in(record))
        return found

    def stage(self, staging: Path, raw: Path, source: Source, follow_links: bool) -> dict[str, str]:
        """Fill `staging`, with unchanged films from `raw` and with what an interrupted run copied.

        Returns origin → reason of the films that could not be copied.

        Raises:
            JobError: the source went away.
            OSError: trouble of the data folder, such as a full disk.
        """
        wanted = {planned.name for planned in self.films}
        for path in [path for path in staging.rglob("*") if path.is_file()]:
            if path.relative_to(staging).as_posix() not in wanted:
                path.unlink()
        within = None if follow_links else source.root.resolve()
        identity = source.root.stat().st_dev, source.root.stat().st_ino

        def reason_against(planned: PlannedFilm) -> str:
            try:
                _stage_film(planned, staging, raw, source.may_link, within)
            except (UnreadableFilmError, OSError) as error:
                if isinstance(error, OSError):
                    _require_row_error(error, source.root, identity)
                return f"cannot be copied: {getattr(error, 'strerror', None) or error}"
            return ""

        reasons = map_ordered(reason_against, self.films, COPIES_AT_A_TIME)
        tracked = console.track(reasons, "copying films", len(self.films))
        pairs = zip(self.films, tracked, strict=True)
        return {planned.film.origin: reason for planned, reason in pairs if reason}

    def records(
        self, examined: Mapping[str, FilmRecord], refused: Mapping[str, str]
    ) -> list[FilmRecord]:
        """Rows of the manifest, sorted by path. Both mappings are by origin."""
        rows = (
            planned.measured
            or examined.get(planned.film.origin)
            or record_of(planned, Examination(problem=refused[planned.film.origin]))
            for planned in self.films
        )
        return sorted(rows, key=lambda record: record.path)


def record_of(planned: PlannedFilm, seen: Examination) -> FilmRecord:
    """The manifest's row of a film that was examined."""
    collection, patient = source_and_patient(PurePosixPath(planned.film.origin).name)
    return FilmRecord(
        path=planned.name,
        label=planned.film.label,
        sha256=seen.sha256,
        dhash=seen.measured.dhash,
        width=seen.measured.width,
        height=seen.measured.height,
        mode=sys.intern(seen.measured.mode),
        bytes=seen.bytes,
        tint=seen.measured.tint,
        brightness=seen.measured.brightness,
        contrast=seen.measured.contrast,
        source=collection,
        patient=patient or seen.patient,
        status="unreadable" if seen.problem else "ok",
        problem=seen.problem,
        origin=planned.film.origin,
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _names_its_patient(origin: str) -> bool:
    """Whether the row's patient comes from the name, which hides the one in a DICOM header."""
    return bool(source_and_patient(PurePosixPath(origin).name)[1])


def _examination_in(record: FilmRecord) -> Examination:
    """What `examine` found when the row was written."""
    measured = Measurements(
        width=record.width,
        height=record.height,
        mode=record.mode,
        dhash=record.dhash,
        tint=record.tint,
        brightness=record.brightness,
        contrast=record.contrast,
    )
    return Examination(measured, record.sha256, record.bytes, patient=record.patient)


def is_same_file(original: Path, copy: Path) -> bool:
    """Whether `copy` holds the bytes of `original`.

    Equal size and time are enough. Where only the time differs, the bytes decide: FAT keeps even
    seconds, network shares keep whole ones or another time zone. The copy then gets the time of the
    original, as exactly as its file system can keep it.
    """
    try:
        source, target = original.stat(), copy.stat()
        if source.st_size != target.st_size or source.st_size > LARGEST_FILE:
            return False
        if source.st_mtime_ns == target.st_mtime_ns:
            return True
        if sha256_of(original) != sha256_of(copy):
            return False
        os.utime(copy, ns=(source.st_atime_ns, source.st_mtime_ns))
    except OSError:
        return False
    return True


def earlier_records(data_dir: Path) -> list[FilmRecord]:
    """Rows of an earlier ingest; none if its manifest is missing, damaged or of an older form."""
    try:
        return read_manifest(data_dir)
    except JobError:
        return []


def _unchanged(film: FoundFilm, raw: Path, record: FilmRecord | None) -> FilmRecord | None:
    if record is None or record.label != film.label:
        return None
    return record if is_same_file(film.path, raw / record.path) else None


def _names(films: Sequence[FoundFilm], known: Mapping[str, FilmRecord]) -> dict[str, str]:
    """Origin → path below data/raw. A name already taken in its class gets a suffix from a digest
    of the origin.

    Names given by an earlier ingest are kept, so that adding films renames none. Names are compared
    without case: some file systems do not tell a.png from A.png.
    """
    names = {
        film.origin: known[film.origin].path
        for film in films
        if film.origin in known and known[film.origin].label == film.label
    }
    taken = {name.casefold() for name in names.values()}
    for film in films:
        if film.origin in names:
            continue
        file = PurePosixPath(film.origin).name.replace("\\", "_")
        path = f"{film.label}/{file}"
        if path.casefold() in taken or len(os.fsencode(file)) > LONGEST_NAME:
            path = f"{film.label}/{_suffixed(file, film.origin)}"
        names[film.origin] = path
        taken.add(path.casefold())
    return names


def _suffixed(file: str, origin: str) -> str:
    digest = hashlib.sha256(origin.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    ending = f"~{digest}{PurePosixPath(file).suffix[:16]}"
    stem = PurePosixPath(file).stem.encode("utf-8", "surrogateescape")
    kept = stem[: LONGEST_NAME - len(os.fsencode(ending))].decode("utf-8", "ignore")
    return f"{kept}{ending}"


def _stage_film(
    planned: PlannedFilm, staging: Path, raw: Path, may_link: bool, within: Path | None
) -> None:
    """Copy or link one film. `within`: resolved folder that links must not lead out of.

    Raises:
        UnreadableFilmError: it is no regular file, too large, or behind a link.
        OSError: it cannot be read or written.
    """
    path, target = planned.film.path, staging / planned.name
    if is_same_file(path, target):
        return
    target.unlink(missing_ok=True)
    if not path.is_file():
        raise UnreadableFilmError(describe_non_file(path))
    if path.stat().st_size > LARGEST_FILE:
        raise UnreadableFilmError(TOO_LARGE_FILE)
    if planned.copy:
        atomic.link_or_copy(raw / planned.name, target)
    elif within and leads_out(path, within):
        raise UnreadableFilmError(f"link leads out of the source and {NOT_FOLLOWED}")
    elif may_link:
        atomic.link_or_copy(path.resolve(), target)
    else:
        atomic.copy_file(path, target)


def _require_row_error(error: OSError, root: Path, identity: tuple[int, int]) -> None:
    """Let an error of one film pass; raise one that concerns them all.

    Raises:
        OSError: `error`, of the data folder or of this machine.
        JobError: the source is no longer what it was: a share that was unmounted.
    """
    if error.errno in _OUR_ERRORS:
        raise error
    try:
        now = root.stat().st_dev, root.stat().st_ino
        os.scandir(root).close()
    except OSError as gone:
        raise JobError(_source_is_gone(root, str(gone.strerror))) from gone
    if now != identity:
        raise JobError(_source_is_gone(root, "another folder is there now"))


def _source_is_gone(root: Path, reason: str) -> str:
    return (
        f"the source {root} went away while its films were copied: {reason}. data/raw is as it "
        "was. Connect the source and run the same command again; copied films are not copied twice."
    )
