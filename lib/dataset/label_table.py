"""Tables of labels: labels.csv, any CSV with path and label, Label Studio's export in JSON."""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from lib.dataset.labels import ClassNames, canonical, class_name
from lib.dataset.sources import GENERIC_ALIASES
from lib.run.errors import JobError
from lib.storage.cells import from_cell

COLUMNS = ("path", "label")
PATIENT, SHA256 = "patient", "sha256"  # columns that may be there
NOT_A_CHEST_FILM = "NOT_A_CHEST_FILM"
CANNOT_TELL = "CANNOT_TELL"
NO_CLASS = (NOT_A_CHEST_FILM, CANNOT_TELL)  # answers of a reader that are no class
_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")  # that Label Studio puts before an uploaded file


@dataclass(frozen=True)
class LabelRow:
    """One label of one film."""

    place: str  # in the file: "line 3", "task 17"
    path: str  # as it stands there
    label: str  # as it stands there
    patient: str = ""
    sha256: str = ""  # of the film's bytes
    is_location: bool = False  # path is a URL or a path of another program, with more in front

    def spellings(self, root: Path | None = None) -> Iterator[str]:
        """What the path may mean below `root`: as it stands, or as a cell of our tables."""
        names = [self.path, self.path.replace("\\", "/")]
        with suppress(KeyError):  # a backslash that stands for itself
            names.append(from_cell(self.path))
        for name in names:
            yield name
            yield name.removeprefix("./")
            if root:
                yield name.removeprefix(f"{root.as_posix()}/")
        if self.is_location:
            parts = PurePosixPath(self.path).parts
            yield from ("/".join(parts[start:]) for start in range(1, len(parts)))


@dataclass(frozen=True)
class LabelTable:
    """The labels of a file, in its order."""

    path: Path
    rows: Sequence[LabelRow]

    @staticmethod
    def read(path: Path) -> "LabelTable":
        """Read it whole: a CSV, or Label Studio's export where the name ends in .json.

        Raises:
            JobError: it cannot be read, is neither, lacks a column, or a row has no path or label.
        """
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except FileNotFoundError:
            raise JobError(f"--labels {path}: there is no such file.") from None
        except OSError as error:
            raise JobError(f"--labels {path} cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise JobError(f"--labels {path} is not UTF-8. Save it as CSV in UTF-8.") from error
        is_json = path.suffix.lower() == ".json"
        rows = list(_tasks(path, text) if is_json else _csv_rows(path, text))
        if not rows:
            where = "no annotated task" if is_json else "no row below its first line"
            raise JobError(f"--labels {path} has {where}.")
        return LabelTable(path, rows)

    def two_labels(self, row: LabelRow, label: str, other: LabelRow, before: str) -> JobError:
        """The error of a film that `row` gives one label and the `other` row another, `before`."""
        is_copy = other.path != row.path
        same = f"{other.path}, which is the same film," if is_copy else "it"
        return JobError(
            f"--labels {self.path}: {row.place} gives {row.path} the label {label}, {other.place} "
            f"gives {same} the label {before}. Correct one of them."
        )


@dataclass(frozen=True)
class Meanings:
    """Which class the label of a row means."""

    names: ClassNames

    @staticmethod
    def of(classes: Sequence[str]) -> "Meanings":
        """Labels mean classes as folders do for ingest; one of `classes` comes first."""
        names = ClassNames.of((), (), GENERIC_ALIASES, ())
        own = {canonical(name): name for name in classes}
        return Meanings(ClassNames({**names.by_folder, **own}, (), is_open=True))

    def label(self, row: LabelRow) -> str:
        """The class, or a name in the form of one."""
        return self.names.by_folder.get(canonical(row.label)) or class_name(row.label)


def _csv_rows(path: Path, text: str) -> Iterator[LabelRow]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        if missing := [name for name in COLUMNS if name not in names]:
            raise JobError(
                f"--labels {path} has no column {' and no column '.join(missing)}; its first line "
                f"is {','.join(names)!r}. Columns are separated by commas and named in the first "
                "line: path,label."
            )
        reader.fieldnames = names
        for row in reader:
            cells = {name: (row[name] or "").strip() for name in names}
            if None in row or not cells["path"] or not cells["label"]:
                what = "has too many cells" if None in row else "needs a path and a label"
                raise JobError(f"--labels {path}: line {reader.line_num} {what}.")
            yield LabelRow(
                f"line {reader.line_num}",
                cells["path"],
                cells["label"],
                cells.get(PATIENT, ""),
                cells.get(SHA256, "").lower(),
            )
    except csv.Error as error:
        raise JobError(f"--labels {path} is no CSV: {error}.") from error


def _tasks(path: Path, text: str) -> Iterator[LabelRow]:
    """The rows of Label Studio's export in the format JSON, one per annotation.

    Skipped and cancelled annotations have none. Source: labelstud.io/guide/task_format.
    """
    try:
        tasks = json.loads(text)
        if not isinstance(tasks, list):
            raise TypeError("a list of tasks is expected")
        for number, task in enumerate(tasks, 1):
            place = f"task {task.get('id', number)}"
            for annotation in task["annotations"]:
                if annotation.get("was_cancelled"):
                    continue
                choices = _choices(annotation["result"])
                if len(choices) > 1:
                    raise JobError(
                        f"--labels {path}: {place} has the choices {', '.join(choices)}. A film "
                        "has one class: correct it there and export again."
                    )
                if choices:
                    yield _row_of_task(place, task["data"], choices[0])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JobError(
            f"--labels {path} is no export of Label Studio ({type(error).__name__}: {error}). "
            "Export its project in the format JSON, or give a CSV with the columns path,label."
        ) from error


def _choices(results: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        str(choice)
        for result in results
        if result.get("type") == "choices"
        for choice in result["value"]["choices"]
    ]


def _row_of_task(place: str, data: Mapping[str, Any], label: str) -> LabelRow:
    """`data` is the task's: the film is `path`, else `image`, else the first text in it."""
    texts = [value for value in data.values() if isinstance(value, str) and value]
    location = data.get("path") or data.get("image") or texts[0]
    return LabelRow(
        place,
        _path_of(str(location)),
        label,
        str(data.get(PATIENT, "")),
        str(data.get(SHA256, "")).lower(),
        is_location=True,
    )


def _path_of(location: str) -> str:
    """The path in a URL of Label Studio: of a local file, an upload, or an object of a bucket."""
    url = urlsplit(location)
    local = parse_qs(url.query).get("d")
    if local:
        return local[0]
    path = unquote(url.path) if url.scheme or location.startswith("/data/") else location
    if path.startswith("/data/upload/"):
        name = PurePosixPath(path).name
        return _UPLOADED.sub("", name)
    return path.lstrip("/") if url.scheme else path
