"""A folder of films from elsewhere: which files it holds, and the label of each."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib.dataset.label_table import LabelRow, LabelTable, Meanings
from lib.dataset.labels import FoundFilm, label_files, origin_of
from lib.evaluation.films import LeftOut
from lib.images.files import NOT_FOLLOWED, FoundFiles, archive_refusal, find_files, unpack_command
from lib.run.errors import JobError, UsageError

UNKNOWN_CLASS = "class that the model does not know"
NO_LABEL = "in no class folder"
LINK = f"link to a folder, which {NOT_FOLLOWED}"
MASK = "segmentation mask"
NO_ROW = "no row in the table of labels"
NO_FILE = "row of the table of labels without a file"


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
    found = label_files(root, listing, Meanings.of(classes).names)
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
    listing, meanings = _listing(root, follow_links), Meanings.of(classes)
    files = {path.relative_to(root).as_posix(): path for path in listing.files}
    films: dict[str, FoundFilm] = {}
    row_of: dict[str, LabelRow] = {}
    patients: dict[str, str] = {}
    left_out = []
    for row in table.rows:
        name = next((name for name in row.spellings(root) if name in files), None)
        label = meanings.label(row)
        if name is None:
            left_out.append(LeftOut(row.path, label, NO_FILE, row.place))
            continue
        if name in films and films[name].label != label:
            raise table.two_labels(row, label, row_of[name], films[name].label)
        film = FoundFilm(origin_of(files[name], root), str(files[name]), label)
        films[name], row_of[name] = film, row
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


def _by_class(
    films: Sequence[FoundFilm], classes: Sequence[str]
) -> tuple[list[FoundFilm], list[LeftOut]]:
    """The films of the model's classes, and the others."""
    known = [film for film in films if film.label in classes]
    others = [film for film in films if film.label not in classes]
    return known, [LeftOut(film.origin, film.label, UNKNOWN_CLASS) for film in others]


def _listing(root: Path, follow_links: bool) -> FoundFiles:
    listing = find_files(root, follow_links)
    if listing.files == [root]:
        raise JobError(
            f"--films {root} cannot be listed. The user of this job needs the permissions to read "
            "and to enter the folder."
        )
    return listing


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False
