"""Patients of films: by name, by a regular expression, and which folders may name them."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from lib.dataset.labels import is_class_folder
from lib.dataset.manifest import FilmRecord
from lib.run.errors import UsageError

LAYOUTS = (
    ("CheXpert", r"(patient\d+)/"),
    ("MIMIC-CXR", r"(p\d{8})/"),
    ("VinDr", r"([0-9a-f]{32})/"),  # a study: the sets name no patients
)


def patients(films: Sequence[FilmRecord], group_by: str) -> list[str]:
    """The patient of each film, empty where unknown. `auto`: by the known collections; `none`; or a
    regular expression on paths.

    Raises:
        UsageError: the expression is not valid, or matches no file.
    """
    if group_by == "auto":
        return [film.patient for film in films]
    if not group_by:
        raise UsageError("--group_by is empty; give auto, none or a regular expression.")
    if group_by == "none":
        return [""] * len(films)
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise UsageError(f"--group_by {group_by!r} is not a regular expression: {error}.") from None
    matches = [pattern.search(film.origin) for film in films]
    if not any(matches):
        raise UsageError(
            f"--group_by {group_by!r} matches no file, the first is {films[0].origin!r}."
        )
    return [
        (match.group(1) if pattern.groups else match.group(0)) or "" if match else ""
        for match in matches
    ]


@dataclass(frozen=True)
class PatientFolders:
    """Folders below the class folders that may be patients."""

    folders: int
    example: str
    pattern: str  # for --group_by
    layout: str  # collection with this layout, or empty


def find_patient_folders(films: Sequence[FilmRecord]) -> PatientFolders | None:
    """Advice for `--group_by`, from the folders of films without a known patient.

    The folder of a known layout if most films have it; else the topmost folder level below the
    class folders that holds several folders per class. None where no such level exists.
    """
    labels = {film.label for film in films}
    below = [_below_class(film, labels) for film in films if not film.patient]
    below = [path for path in below if path.count("/")]
    if not below:
        return None
    for layout, pattern in LAYOUTS:
        matches = [re.search(f"(?:^|/){pattern}", path, re.ASCII) for path in below]
        names = [match.group(1) for match in matches if match]
        if 2 * len(names) > len(below):
            return PatientFolders(len(set(names)), names[0], f"(?:^|/){pattern}", layout)
    return _topmost_level(below)


def _topmost_level(paths: Sequence[str]) -> PatientFolders | None:
    """The first folder level with several names, counted from the file: class folders may lie at
    any depth.
    """
    depth, _ = Counter(path.count("/") for path in paths).most_common(1)[0]
    usual = [PurePosixPath(path).parts for path in paths if path.count("/") == depth]
    for level in range(depth):
        names = {parts[: level + 1] for parts in usual}
        if len({parts[-1] for parts in names}) > 1:
            rest = depth - level
            behind = "/[^/]+" if rest == 1 else f"(?:/[^/]+){{{rest}}}"
            return PatientFolders(len(names), "/".join(min(names)), f"([^/]+){behind}$", "")
    return None


def _below_class(film: FilmRecord, labels: set[str]) -> str:
    """The path of a film below its class folder."""
    parts = PurePosixPath(film.origin).parts
    depths = [at for at, part in enumerate(parts[:-1]) if is_class_folder(part, labels)]
    return "/".join(parts[depths[-1] + 1 :] if depths else parts)
