"""Labels of films from the folders that hold them: class folders, their synonyms, masks, splits."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lib.images.files import FoundFiles, is_link, is_passed_over

SPLIT_FOLDERS = ("train", "training", "val", "valid", "validation", "test", "testing")
SYNONYMS = {
    "NORMAL": ("normal", "healthy", "no_finding", "no_findings", "negative"),
    "PNEUMONIA": ("pneumonia",),
    "TUBERCULOSIS": ("tuberculosis", "tb", "tbc", "tuberculosis_tb"),
}
SUBTYPES = {
    "PNEUMONIA": (
        "pneumonia_bacterial",
        "pneumonia_viral",
        "bacterial_pneumonia",
        "viral_pneumonia",
    ),
}
_MASK = re.compile(  # masks, lung masks, infection_mask, mask-1, CHNCXR_0001_0_mask, mask_12
    r"(?:^|[\s_.-])(?:lungs?|infection|heart)?masks?(?:[\s_.-](?:left|right|[lr]|\d+))?$",
    re.IGNORECASE,
)
_CAMEL_MASK = re.compile(r"(?<=[a-z])Masks?$")  # leftMask, ManualMask


@dataclass(frozen=True, slots=True)
class FoundFilm:
    """A file below a class folder; `origin` is its path within the source, with `/`."""

    origin: str
    file: str  # its path as text, which takes a quarter of the memory of a Path
    label: str

    @property
    def path(self) -> Path:
        """Its path."""
        return Path(self.file)


@dataclass(frozen=True)
class LabelledFiles:
    """The files of a source, by what they are."""

    films: list[FoundFilm] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)  # origins of files in no class folder
    masks: list[str] = field(default_factory=list)  # origins of segmentation masks
    links: list[str] = field(default_factory=list)  # origins of links to folders, not entered
    merged: dict[str, list[str]] = field(default_factory=dict)  # class → folder names, two or more
    system_entries: int = 0  # hidden and system entries
    system_examples: tuple[str, ...] = ()

    @property
    def classes(self) -> list[str]:
        return sorted({film.label for film in self.films})


@dataclass(frozen=True)
class ClassNames:
    """Which folder names mean which class.

    `by_folder` maps canonical folder names to classes. With `is_open` other folders are classes of
    their own name.
    """

    by_folder: Mapping[str, str]
    wanted: tuple[str, ...]  # classes that must be found
    is_open: bool

    @staticmethod
    def of(
        classes: Sequence[str],
        expected: Sequence[str],
        aliases: Mapping[str, Sequence[str]],
        folders: Iterable[str],
    ) -> "ClassNames":
        """Of `--classes`, else of the classes that a dataset is expected to have, else any.

        A name in `classes` means the folders of this name; it means the aliases of its class only
        where no folder has the name. `folders` are the names of the folders that are there.
        """
        by_alias = {
            canonical(alias): label for label, names in aliases.items() for alias in (label, *names)
        }
        if not classes:
            if not expected:
                return ClassNames(by_alias, (), is_open=True)
            kept = {alias: label for alias, label in by_alias.items() if label in expected}
            return ClassNames(
                kept | {canonical(name): name for name in expected}, tuple(expected), False
            )
        present = {canonical(folder) for folder in folders}
        by_folder: dict[str, str] = {}
        for name, label in zip(classes, _labels_of(classes), strict=True):
            by_folder[canonical(name)] = label
            if canonical(name) not in present:
                by_folder |= {
                    alias: label
                    for alias, other in by_alias.items()
                    if other == label and alias not in map(canonical, classes)
                }
        return ClassNames(by_folder, tuple(dict.fromkeys(by_folder.values())), is_open=False)

    def label(self, parts: Sequence[str]) -> str | None:
        """The class of the deepest folder that means one."""
        names = (self.by_folder.get(canonical(part)) for part in reversed(parts))
        return next(filter(None, names), None)


def folders_of(root: Path, listing: FoundFiles) -> set[str]:
    """Names of the folders below `root` that hold files at some depth."""
    return {part for parent in _parents(listing.files) for part in parent.relative_to(root).parts}


def _parents(files: Iterable[Path]) -> set[Path]:
    """The folders that hold files: one object each, whatever their number of files."""
    return {path.parent for path in files}


def label_files(root: Path, listing: FoundFiles, names: ClassNames) -> LabelledFiles:
    """Find the films below `root` and their labels.

    A film's class is the deepest folder on the way whose name means one; else the topmost folder
    that is neither a split (`train`, `val`, `test`) nor shared by all films.
    """
    parts_of = {parent: parent.relative_to(root).parts for parent in _parents(listing.files)}
    folders = {path: parts_of[path.parent] for path in listing.files}
    found = LabelledFiles(system_entries=listing.passed_over, system_examples=listing.examples)
    candidates: dict[Path, tuple[str, ...]] = {}
    for path, parts in folders.items():
        if is_link(path) and path.is_dir():
            found.links.append(origin_of(path, root))
        named = [part for part in parts if canonical(part) in names.by_folder]
        if _is_mask(path, [part for part in parts if part not in named]):
            found.masks.append(origin_of(path, root))
        else:
            candidates[path] = tuple(p for p in parts if canonical(p) not in SPLIT_FOLDERS)
    labels, class_folders = _labels(candidates, names)
    for path in candidates:
        if path in labels:
            found.films.append(FoundFilm(origin_of(path, root), str(path), labels[path]))
        else:
            found.outside.append(origin_of(path, root))
    found.merged.update(_merged(class_folders))
    return found


def origin_of(path: Path, root: Path) -> str:
    """Path within the source as text; bytes that are not UTF-8 become backslash escapes."""
    return path.relative_to(root).as_posix().encode("utf-8", "backslashreplace").decode()


def empty_class_folders(root: Path, names: ClassNames, present: Sequence[str]) -> list[str]:
    """Classes whose folder exists without a film: a transfer that stopped, or a mistyped name."""
    inner = (Path(parent, name) for parent, folders, _ in os.walk(root) for name in folders)
    named = {
        names.by_folder[canonical(path.name)]
        for path in inner
        if canonical(path.name) in names.by_folder
        and not is_passed_over(f"{path.relative_to(root).as_posix()}/film")
    }
    return sorted(named - set(present))


def canonical(name: str) -> str:
    """A folder name without case, and with one underscore for blanks and hyphens."""
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())


def class_name(folder: str) -> str:
    """The class that a folder of an unknown name is."""
    return re.sub(r"[^\w-]+", "_", folder.strip()).upper()


def is_class_folder(folder: str, labels: Iterable[str]) -> bool:
    """Whether a folder of this name holds one of `labels`, or is a split."""
    generic = {
        alias: label
        for names in (SYNONYMS, SUBTYPES)
        for label, aliases in names.items()
        for alias in aliases
    }
    meanings = {class_name(folder), generic.get(canonical(folder), "")}
    return canonical(folder) in SPLIT_FOLDERS or bool(meanings & set(labels))


def _labels_of(classes: Sequence[str]) -> list[str]:
    """The class of each name in `--classes`: a synonym (tb) means its class (TUBERCULOSIS), unless
    two of the names would become one.
    """
    by_synonym = {alias: label for label, aliases in SYNONYMS.items() for alias in aliases}
    labels = [by_synonym.get(canonical(name), class_name(name)) for name in classes]
    different = dict.fromkeys(map(canonical, classes))
    if len(set(labels)) == len(different):
        return labels
    return [
        class_name(name) if labels.count(label) > 1 else label
        for name, label in zip(classes, labels, strict=True)
    ]


def _is_mask(path: Path, folders: Sequence[str]) -> bool:
    stem = PurePosixPath(path.name).stem  # of a folder in place of its files: nearly its name
    return any(_MASK.search(name) or _CAMEL_MASK.search(name) for name in (*folders, stem))


def _labels(
    folders: Mapping[Path, tuple[str, ...]], names: ClassNames
) -> tuple[dict[Path, str], dict[str, dict[str, str]]]:
    """Labels by file, and of each class its folders: canonical name → name as it stands there."""
    labels: dict[Path, str] = {}
    class_folders: dict[str, dict[str, str]] = {}
    others: dict[Path, tuple[str, ...]] = {}
    for path, parts in folders.items():
        label = names.label(parts)
        if label:
            labels[path] = label
            part = next(p for p in reversed(parts) if canonical(p) in names.by_folder)
            class_folders.setdefault(label, {}).setdefault(canonical(part), part)
        elif parts and names.is_open:
            others[path] = parts
    # The folder that wraps every class ("chest_xray/") is not a class.
    every = [folders[path] for path in (*labels, *others)]
    depth = 0
    while (
        others
        and all(len(parts) > depth + 1 for parts in others.values())
        and len({parts[depth : depth + 1] for parts in every}) == 1
    ):
        depth += 1
    labels |= {path: class_name(parts[depth]) for path, parts in others.items()}
    return labels, class_folders


def _merged(class_folders: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    return {
        label: sorted(folders.values())
        for label, folders in class_folders.items()
        if len(folders) > 1
    }
