"""A folder of films from elsewhere: which files it holds, and the label of each."""

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lib.dataset.labels import ClassNames, FoundFilm, canonical, class_name, label_files, origin_of
from lib.dataset.sources import GENERIC_ALIASES
from lib.evaluation.films import LeftOut
from lib.images.files import NOT_FOLLOWED, Listing, archive_refusal, find_files, unpack_command
from lib.run.errors import JobError, UsageError
from lib.storage.cells import from_cell

COLUMNS = ("path", "label")
PATIENT = "patient"  # a third column that may be there
UNKNOWN_CLASS = "class that the model does not know"
NO_LABEL = "in no class folder"
LINK = f"link to a folder, which {NOT_FOLLOWED}"
MASK = "segmentation mask"
NO_ROW = "no row in the table of labels"
NO_FILE = "row of the table of labels without a file"


@dataclass(frozen=True)
class LabelRow:
    """A row of the table of labels."""

    line: int
    path: str  # as it stands there
    label: str  # as it stands there
    patient: str  # empty where the table has no such column


@dataclass(frozen=True)
class LabelTable:
    """A CSV with the columns path and label, and perhaps patient, in any order."""

    path: Path
    rows: Sequence[LabelRow]

    @staticmethod
    def read(path: Path) -> "LabelTable":
        """Read it whole.

        Raises:
            JobError: it cannot be read, lacks a column, or a row has no path or no label.
        """
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                rows = list(_label_rows(path, csv.DictReader(file, strict=True)))
        except FileNotFoundError:
            raise JobError(f"--labels {path}: there is no such file.") from None
        except OSError as error:
            raise JobError(f"--labels {path} cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise JobError(f"--labels {path} is not UTF-8. Save it as CSV in UTF-8.") from error
        except csv.Error as error:
            raise JobError(f"--labels {path} is no CSV: {error}.") from error
        if not rows:
            raise JobError(f"--labels {path} has no row below its first line.")
        return LabelTable(path, rows)


@dataclass(frozen=True)
class LabelledFolder:
    """The films of a folder that have a label of the model, and all other files."""

    root: Path
    films: Sequence[FoundFilm]
    left_out: Sequence[LeftOut]
    patients: Mapping[str, str] = field(default_factory=dict)  # origin → patient in the table

    def require_films(self, classes: Sequence[str]) -> "LabelledFolder":
        """This folder.

        Raises:
            JobError: none of its films can be scored.
        """
        if self.films:
            return self
        if not self.left_out:
            raise JobError(f"--films {self.root}: there is no file in this folder.")
        counts = Counter(one.label for one in self.left_out if one.reason == UNKNOWN_CLASS)
        labels = ", ".join(f"{label} ({count})" for label, count in sorted(counts.items()))
        raise JobError(
            f"--films {self.root}: no film has a label that this model knows "
            f"({', '.join(classes)}); its {len(self.left_out)} entries have "
            f"{labels or 'no label'}. Films belong in one folder per class, such as normal/ and "
            "tuberculosis/, or in a table with the columns path,label (--labels)."
        )


def folder_of(location: str) -> Path:
    """The folder that --films names: PATH or folder:PATH.

    Raises:
        UsageError: an archive.
        JobError: no such folder.
    """
    root = Path(location.removeprefix("folder:")).expanduser()
    if root.is_file() and (command := unpack_command(root)):
        raise UsageError(archive_refusal(f"--films {location}", root, command))
    if not root.is_dir():
        raise JobError(
            f"there is no folder {root}. Give --films PATH with class folders below PATH, or "
            "--films PATH --labels FILE.csv."
        )
    return root


def films_in_class_folders(
    root: Path, classes: Sequence[str], follow_links: bool
) -> LabelledFolder:
    """The films below the class folders of `root`; folders mean classes as they do for ingest.

    Raises:
        JobError: the folder cannot be listed, or holds no film of the model's classes.
    """
    listing = _listing(root, follow_links)
    found = label_files(root, listing, _class_names(classes))
    known, left_out = _by_class(found.films, classes)
    left_out += [
        *(
            LeftOut(origin, "", LINK if origin in found.links else NO_LABEL)
            for origin in found.outside
        ),
        *(LeftOut(origin, "", MASK) for origin in found.masks),
    ]
    return LabelledFolder(root, known, left_out).require_films(classes)


def films_in_table(
    root: Path, table: LabelTable, classes: Sequence[str], follow_links: bool
) -> LabelledFolder:
    """The films below `root` that have a row in a table with the columns path and label.

    Raises:
        JobError: the folder cannot be listed, the table is damaged, or no row is a film of the
            model's classes.
    """
    listing, names = _listing(root, follow_links), _class_names(classes)
    files = {path.relative_to(root).as_posix(): path for path in listing.files}
    films: dict[str, FoundFilm] = {}
    lines: dict[str, int] = {}
    patients: dict[str, str] = {}
    left_out = []
    for row in table.rows:
        name = next((name for name in _spellings(row.path, root) if name in files), None)
        label = names.by_folder.get(canonical(row.label)) or class_name(row.label)
        if name is None:
            left_out.append(LeftOut(row.path, label, NO_FILE, f"line {row.line}"))
            continue
        if name in films and films[name].label != label:
            raise JobError(
                f"--labels {table.path}: line {row.line} gives {row.path} the label {label}, line "
                f"{lines[name]} the label {films[name].label}. Correct one of them."
            )
        film = FoundFilm(origin_of(files[name], root), files[name], label)
        films[name], lines[name] = film, row.line
        patients[film.origin] = row.patient
    known, unknown = _by_class([films[name] for name in sorted(films)], classes)
    without_row = [path for name, path in files.items() if name not in films]
    left_out += unknown
    left_out += [
        LeftOut(origin_of(path, root), "", NO_ROW)
        for path in without_row
        if not _is_same(path, table.path)
    ]
    return LabelledFolder(root, known, left_out, patients).require_films(classes)


def _label_rows(path: Path, reader: "csv.DictReader[str]") -> Iterator[LabelRow]:
    names = [name.strip() for name in reader.fieldnames or ()]
    if missing := [name for name in COLUMNS if name not in names]:
        raise JobError(
            f"--labels {path} has no column {' and no column '.join(missing)}; its first line is "
            f"{','.join(names)!r}. Columns are separated by commas and named in the first line: "
            "path,label."
        )
    reader.fieldnames = names
    for row in reader:
        cells = {name: (row[name] or "").strip() for name in names}
        if None in row or not cells["path"] or not cells["label"]:
            what = "has too many cells" if None in row else "needs a path and a label"
            raise JobError(f"--labels {path}: line {reader.line_num} {what}.")
        yield LabelRow(reader.line_num, cells["path"], cells["label"], cells.get(PATIENT, ""))


def _spellings(path: str, root: Path) -> Iterator[str]:
    """What a path of the table may mean below `root`: as it stands, or as a cell of our tables."""
    names = [path, path.replace("\\", "/")]
    with suppress(KeyError):  # a backslash that stands for itself
        names.append(from_cell(path))
    for name in names:
        yield name
        yield name.removeprefix("./")
        yield name.removeprefix(f"{root.as_posix()}/")


def _by_class(
    films: Sequence[FoundFilm], classes: Sequence[str]
) -> tuple[list[FoundFilm], list[LeftOut]]:
    """The films of the model's classes, and the others."""
    known = [film for film in films if film.label in classes]
    others = [film for film in films if film.label not in classes]
    return known, [LeftOut(film.origin, film.label, UNKNOWN_CLASS) for film in others]


def _listing(root: Path, follow_links: bool) -> Listing:
    listing = find_files(root, follow_links)
    if listing.files == [root]:
        raise JobError(
            f"--films {root} cannot be listed. The user of this job needs the permissions to read "
            "and to enter the folder."
        )
    return listing


def _class_names(classes: Sequence[str]) -> ClassNames:
    """Names of folders as for ingest; the model's own class of a name comes first."""
    names = ClassNames.of((), (), GENERIC_ALIASES, ())
    own = {canonical(name): name for name in classes}
    return ClassNames({**names.by_folder, **own}, (), is_open=True)


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False
