"""Films that joined data/raw with a reader's labels, beside those of the dataset."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib.dataset.label_table import NO_CLASS, LabelRow, LabelTable, Meanings
from lib.dataset.labels import FoundFilm, origin_of
from lib.dataset.manifest import FilmRecord, read_manifest
from lib.images.files import LARGEST_FILE, find_files
from lib.run.errors import JobError
from lib.storage.atomic import sha256_of
from lib.workers.threads import map_ordered

MARK = "labelled:"  # in front of the origin of a film that joined


@dataclass
class Joining:
    """What the rows of a table of labels are, for the films of one folder."""

    films: list[FoundFilm] = field(default_factory=list)  # new ones, to be copied
    already_there: int = 0  # rows: the same bytes lie under the same label
    without_class: int = 0  # rows whose answer is no class
    unknown: Counter[str] = field(default_factory=Counter)  # label that data/raw lacks → rows
    without_file: list[LabelRow] = field(default_factory=list)


@dataclass(frozen=True)
class _File:
    path: Path
    sha256: str  # empty if it cannot be read


def films_of(records: Sequence[FilmRecord], raw: Path) -> list[FoundFilm]:
    """The films of data/raw as those of a source, so that an ingest keeps them."""
    return [FoundFilm(record.origin, str(raw / record.path), record.label) for record in records]


def records_to_join(data_dir: Path) -> list[FilmRecord]:
    """The rows of data/raw that new films join; none if there is no data/raw yet.

    Raises:
        JobError: its manifest is damaged, so that the films would be lost.
    """
    if not (data_dir / "raw").exists():
        return []
    records = read_manifest(data_dir)
    if not records:
        raise JobError(
            f"{data_dir / 'raw' / 'manifest.csv'} has no row, so the films beside it would be "
            "lost. Run the ingest job of the dataset first (make ingest)."
        )
    return records


def joined(data_dir: Path) -> list[FilmRecord]:
    """The rows of the films that joined with a label; an ingest of a dataset keeps them.

    None if there is no manifest, or one that cannot be read and names no such film.

    Raises:
        JobError: it cannot be read and names such films, which would be lost.
    """
    path = data_dir / "raw" / "manifest.csv"
    try:
        return [record for record in read_manifest(data_dir) if record.origin.startswith(MARK)]
    except JobError as error:
        named = path.read_bytes().count(MARK.encode()) if path.is_file() else 0
        if not named:
            return []
        raise JobError(
            f"{path} cannot be read ({error.__cause__}), and {named} films beside it joined with a "
            "reader's labels. They would be lost, so nothing was changed. Restore the manifest "
            "from a backup; or keep a copy of the folder, delete it, run the ingest job again "
            "(make ingest), and then join the labels again (make labels)."
        ) from error


def join(
    root: Path, table: LabelTable, records: Sequence[FilmRecord], follow_links: bool, threads: int
) -> Joining:
    """Find the films below `root` that a table labels and that data/raw lacks under this label.

    `records` are the rows of data/raw. Their labels are the known classes; without a row any is.
    A film whose bytes lie there under another label is a film to copy: a contradiction, which split
    treats like any other.

    Raises:
        JobError: no film is found, or a film has two labels.
    """
    files = _files_of_rows(root, table.rows, follow_links, threads)
    classes = {record.label for record in records}
    there = {(record.sha256, record.label) for record in records}
    meanings = Meanings.of(sorted(classes))
    joining = Joining()
    label_of: dict[Path, tuple[LabelRow, str]] = {}
    for row, file in zip(table.rows, files, strict=True):
        if file is None:
            joining.without_file.append(row)
            continue
        label = meanings.label(row)
        other, before = label_of.setdefault(file.path, (row, label))
        if before != label:
            raise table.two_labels(row, label, other, before)
        if label in NO_CLASS:
            joining.without_class += 1
        elif classes and label not in classes:
            joining.unknown[label] += 1
        elif (file.sha256, label) in there:
            joining.already_there += 1
        else:
            there.add((file.sha256, label))
            origin = f"{MARK}{file.sha256[:12]}/{label}/{origin_of(file.path, root)}"
            joining.films.append(FoundFilm(origin, str(file.path), label))
    if len(joining.without_file) == len(table.rows):
        raise JobError(
            f"--labels {table.path}: none of its {len(table.rows)} films is in {root}, the first "
            f"is {table.rows[0].path}. Name the folder that was predicted: --dataset folder:PATH."
        )
    return joining


def _files_of_rows(
    root: Path, rows: Sequence[LabelRow], follow_links: bool, threads: int
) -> list[_File | None]:
    """The file of each row: that at its path, unless the row has the digest of other bytes.

    The whole folder is read only for rows with a digest whose file was moved or replaced.
    """
    listed = find_files(root, follow_links).files
    paths = {path.relative_to(root).as_posix(): path for path in listed}
    at_path = [
        next((paths[name] for name in row.spellings(root) if name in paths), None) for row in rows
    ]
    wanted = list(dict.fromkeys(path for path in at_path if path))
    digest_of = dict(zip(wanted, map_ordered(_digest, wanted, threads), strict=True))

    def is_it(row: LabelRow, path: Path | None) -> bool:
        return path is not None and row.sha256 in ("", digest_of[path])

    moved = any(
        row.sha256 and not is_it(row, path) for row, path in zip(rows, at_path, strict=True)
    )
    others = [path for path in paths.values() if path not in digest_of] if moved else []
    digest_of |= dict(zip(others, map_ordered(_digest, others, threads), strict=True))
    by_content = {digest: path for path, digest in digest_of.items() if digest}
    found = (
        path if is_it(row, path) else by_content.get(row.sha256)
        for row, path in zip(rows, at_path, strict=True)
    )
    return [_File(path, digest_of[path]) if path else None for path in found]


def _digest(path: Path) -> str:
    try:
        is_film = path.is_file() and path.stat().st_size <= LARGEST_FILE
        return sha256_of(path) if is_film else ""
    except OSError:
        return ""
