"""Films from elsewhere as an evaluation set, without copies of films that the model knows."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from lib.dataset import contradictions, provenance
from lib.dataset.duplicates import near_duplicates
from lib.dataset.label_table import LabelTable
from lib.dataset.labels import FoundFilm
from lib.dataset.manifest import FilmRecord
from lib.dataset.patients import patients
from lib.dataset.raw import PlannedFilm, record_of
from lib.dataset.split import group_films
from lib.evaluation.fetched_folder import fetch_folder
from lib.evaluation.films import Elsewhere, EvaluationSet, LabelledFilm, LeftOut
from lib.evaluation.home import HomeFilms
from lib.evaluation.labelled_folder import (
    LabelledFolder,
    films_in_class_folders,
    films_in_table,
    folder_of,
)
from lib.evaluation.reading import Reading
from lib.images.buckets import check as check_url
from lib.images.reader import Examination, examine_in_place, not_examined
from lib.run import console
from lib.run.errors import JobError, UsageError
from lib.storage.cells import to_cell
from lib.workers.processes import map_isolated

TWO_LABELS = "under two labels"


def name_of(location: str) -> str:
    """The name of a folder, or of a bucket's, which is not asked. It never leads to another folder.

    Raises:
        UsageError: an archive.
        JobError: no such folder.
    """
    is_url = "://" in location
    name = PurePosixPath(location).name if is_url else folder_of(location).resolve().name
    return (name.strip(".") if is_url else name) or "films"


@dataclass(frozen=True)
class FolderElsewhere:
    """What --films names, and how its files are read. Nothing in the folder is ever changed."""

    root: Path
    table: LabelTable | None  # None: class folders
    reading: Reading
    unfetched: Sequence[LeftOut] = ()  # objects of a bucket that are not in its copy, `root`

    @staticmethod
    def of(location: str, labels: Path | None, reading: Reading, cache: Path) -> "FolderElsewhere":
        """The folder at `location`, with the table of labels if there is one.

        A bucket's folder is copied to `cache` first.

        Raises:
            UsageError: an archive, or a URL that no bucket can have.
            JobError: no such folder, a damaged table, or a bucket that does not answer.
        """
        table = None if labels is None else LabelTable.read(labels)
        if "://" in location:
            check_url(location)
            digest = hashlib.sha256(location.encode()).hexdigest()[:16]
            copy = fetch_folder(location, cache / digest / name_of(location))
            return FolderElsewhere(copy.root, table, reading, copy.left_out)
        return FolderElsewhere(folder_of(location), table, reading)

    @property
    def name(self) -> str:
        """Of the folder."""
        return name_of(str(self.root))

    def require_apart(self, *written: Path) -> None:
        """Refuse to write into the folder.

        Raises:
            UsageError: one of the folders `written` lies in it.
        """
        for path in written:
            if path.resolve().is_relative_to(self.root.resolve()):
                raise UsageError(
                    f"--films {self.root} would hold {path}, but nothing is written among the "
                    "films. Give another folder for the results (--output, --runs_dir)."
                )

    def labelled(self, classes: Sequence[str]) -> LabelledFolder:
        """The files with their labels.

        Raises:
            JobError: as `films_in_class_folders` and `films_in_table`.
        """
        follow_links = self.reading.follow_links
        if self.table is None:
            labelled = films_in_class_folders(self.root, classes, follow_links)
        else:
            labelled = films_in_table(self.root, self.table, classes, follow_links)
        return replace(labelled, left_out=[*labelled.left_out, *self.unfetched])


def evaluation_set(
    folder: FolderElsewhere, classes: Sequence[str], home: HomeFilms, readers: int
) -> EvaluationSet:
    """Examine the films of a folder, and leave out what the model knows or the labels contradict.

    `classes` are the model's. `readers` is the number of processes that decode.

    Raises:
        JobError: no film is left.
        UsageError: `group_by` is no regular expression, or matches no film.
    """
    labelled = folder.labelled(classes)
    patients([_record(film, Examination()) for film in labelled.films], folder.reading.group_by)
    records = _examine(labelled.films, folder, readers)
    readable = [record for record in records if record.status == "ok"]
    excluded = _contradictory(readable) | home.copies_among(readable)
    kept = [record for record in records if record.path not in excluded]
    left_out = sorted(
        [*labelled.left_out, *excluded.values()], key=lambda one: (one.reason, one.path)
    )
    if not kept:
        raise JobError(_nothing_left(folder.root, left_out))
    file_of = {film.origin: film.path for film in labelled.films}
    known = home.patients
    elsewhere = Elsewhere(
        name=folder.name,
        left_out=left_out,
        no_home=home.why_none,
        namesakes=sum(record.patient in known for record in kept),
    )
    return EvaluationSet(
        films=_labelled_films(kept, folder, labelled, file_of),
        folder=folder.root,
        training=home.training,
        manifest=records,
        raw=folder.root,
        elsewhere=elsewhere,
    )


def _examine(films: Sequence[FoundFilm], folder: FolderElsewhere, readers: int) -> list[FilmRecord]:
    """The manifest of the films, in their order."""
    within = None if folder.reading.follow_links else folder.root.resolve()
    look = partial(
        examine_in_place,
        max_pixels=folder.reading.max_pixels,
        trust_headers=folder.reading.trust_headers,
        within=within,
    )
    paths = (film.path for film in films)
    seen = map_isolated(look, not_examined, paths, readers, folder.reading.seconds)
    tracked: Iterable[Examination] = console.track(seen, "measuring films", len(films))
    return [_record(film, one) for film, one in zip(films, tracked, strict=True)]


def _record(film: FoundFilm, seen: Examination) -> FilmRecord:
    return record_of(PlannedFilm(film, film.origin, None), seen)


def _contradictory(records: Sequence[FilmRecord]) -> dict[str, LeftOut]:
    """Films under two labels, by path: all copies, because no one can say which label is right."""
    pairs = near_duplicates([record.dhash for record in records])
    found = contradictions.find_contradictions(records)
    found += contradictions.find_content_contradictions(records, pairs)
    reasons = contradictions.apply_policy(found, "drop")
    return {
        record.path: LeftOut(record.path, record.label, TWO_LABELS, reasons[record.path])
        for record in records
        if record.path in reasons
    }


def _labelled_films(
    kept: Sequence[FilmRecord],
    folder: FolderElsewhere,
    labelled: LabelledFolder,
    file_of: dict[str, Path],
) -> list[LabelledFilm]:
    """The films to score. Unreadable ones are groups of their own."""
    readable = [record for record in kept if record.status == "ok"]
    by_name = patients(readable, folder.reading.group_by) if readable else []
    persons = [
        f"table:{patient}" if (patient := labelled.patients.get(record.origin)) else person
        for record, person in zip(readable, by_name, strict=True)
    ]
    pairs = near_duplicates([record.dhash for record in readable])
    groups = dict(
        zip(
            (record.path for record in readable),
            group_films(readable, persons, pairs),
            strict=True,
        )
    )
    return [
        LabelledFilm(
            name=to_cell(file_of[record.path].relative_to(folder.root).as_posix()),
            file=file_of[record.path],
            label=record.label,
            group=groups.get(record.path, ""),
            source=source,
            record=record,
        )
        for record, source in zip(kept, provenance.sources(kept), strict=True)
    ]


def _nothing_left(root: Path, left_out: Sequence[LeftOut]) -> str:
    reasons = sorted({one.reason for one in left_out})
    counts = [f"{sum(one.reason == reason for one in left_out)} {reason}" for reason in reasons]
    return f"--films {root}: no film is left to score: {'; '.join(counts)}."
