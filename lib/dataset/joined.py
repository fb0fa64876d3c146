"""Films that joined data/raw with a reader's labels, beside those of the dataset."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib.dataset.label_table import NO_CLASS, LabelRow, LabelTable, Meanings
from lib.dataset.labels import FoundFilm, origin_of
from lib.dataset.manifest import READER_MARK, FilmRecord, read_manifest
from lib.images.files import LARGEST_FILE, find_files
from lib.run.errors import JobError
from lib.storage.atomic import sha256_of
from lib.workers.threads import map_ordered


@dataclass
class Joining:
    """What the rows of a table of labels are, for the films of one folder."""

    films: list[FoundFilm] = field(default_factory=list)  # new ones, to be copied
    superseded: set[FilmRecord] = field(default_factory=set)  # a reader's earlier, other labels
    already_there: int = 0  # rows: split will use this label of the same bytes anyway
    without_class: int = 0  # rows whose answer is no class
    unknown: Counter[str] = field(default_factory=Counter)  # label that data/raw lacks → rows
    without_file: list[LabelRow] = field(default_factory=list)

    def films_with(self, records: Sequence[FilmRecord], raw: Path) -> list[FoundFilm]:
        """The films of data/raw that stay, and those that join."""
        stay = [record for record in records if record not in self.superseded]
        return [*films_of(stay, raw), *self.films]


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
        return [record for record in read_manifest(data_dir) if record.is_from_reader]
    except JobError as error:
        named = path.read_bytes().count(READER_MARK.encode()) if path.is_file() else 0
        if not named:
            return []
        raise JobError(
            f"{path} cannot be read ({error.__cause__}), and {named} films beside it joined with a "
            "reader's labels. They would be lost, so nothing was changed. Restore the manifest "
            "from a backup; or keep a copy of the folder, delete it, run the ingest job again "
            "(make ingest), and then join the labels again (make labels)."
        ) from error


def join(
    root: Path,
    table: LabelTable,
    records: Sequence[FilmRecord],
    raw: Path,
    follow_links: bool,
    threads: int,
) -> Joining:
    """Find the films below `root` that a table labels and that data/raw lacks under this label.

    `records` are the rows of data/raw, the folder `raw`. Their labels are the known classes;
    without a row any is. A film whose bytes lie there under another label of the dataset is a film
    to copy: split then uses the reader's label. It takes the place of an earlier, other label of a
    reader.

    Raises:
        JobError: no film is found, or a film, which its bytes tell, has two labels.
    """
    files = _files_of_rows(root, table.rows, follow_links, threads)
    classes = {record.label for record in records}
    there = _RowsByBytes(records, {file.sha256 for file in files if file})
    meanings = Meanings.of(sorted(classes))
    joining = Joining()
    label_of: dict[str, tuple[LabelRow, str]] = {}
    for row, file in zip(table.rows, files, strict=True):
        if file is None:
            joining.without_file.append(row)
            continue
        label = meanings.label(row)
        other, before = label_of.setdefault(file.sha256 or str(file.path), (row, label))
        if before != label:
            raise table.two_labels(row, label, other, before)
        origin = f"{READER_MARK}{file.sha256[:12]}/{label}/{origin_of(file.path, root)}"
        if label in NO_CLASS:
            joining.without_class += 1
        elif classes and label not in classes:
            joining.unknown[label] += 1
        elif other is not row:
            joining.already_there += 1
        else:
            earlier = there.under_another_label(file.sha256, label)
            joining.superseded |= earlier
            if there.is_settled(file.sha256, label, origin):
                joining.already_there += 1
            else:
                copies = [raw / record.path for record in earlier]  # no loss if the inbox changes
                path = next((path for path in copies if path.is_file()), file.path)
                joining.films.append(FoundFilm(origin, str(path), label))
    if len(joining.without_file) == len(table.rows):
        raise JobError(
            f"--labels {table.path}: none of its {len(table.rows)} films is in {root}, the first "
            f"is {table.rows[0].path}. Name the folder that was predicted: --dataset folder:PATH."
        )
    return joining


class _RowsByBytes:
    """The rows of data/raw that have the bytes of some films."""

    def __init__(self, records: Sequence[FilmRecord], digests: Collection[str]) -> None:
        self._origins = {record.origin for record in records if record.is_from_reader}
        self._rows: dict[str, set[FilmRecord]] = {digest: set() for digest in digests}
        for record in records:
            if record.sha256 and record.sha256 in digests:
                self._rows[record.sha256].add(record)

    def under_another_label(self, sha256: str, label: str) -> set[FilmRecord]:
        """The rows of these bytes to which a reader has given another label."""
        rows = self._rows[sha256]
        return {row for row in rows if row.is_from_reader and row.label != label}

    def is_settled(self, sha256: str, label: str, origin: str) -> bool:
        """Whether split uses this label for these bytes, once other labels of a reader are gone:
        a reader gave it before, or the dataset has no other.
        """
        if origin in self._origins:  # of a file that could not be read, too
            return True
        rows = self._rows[sha256] - self.under_another_label(sha256, label)
        is_from_reader = any(row.is_from_reader for row in rows)
        return is_from_reader or {row.label for row in rows} == {label}


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
