"""Who goes where: contradictory labels, groups that must stay together, and a stratified draw of
whole groups.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from lib.dataset.manifest import FilmRecord
from lib.images.measure import DHASH_SIDE
from lib.run.errors import JobError, UsageError

SPLITS = ("train", "val", "test")
NEAR_DUPLICATE_BITS = (
    10  # of 256; copies differ by 0 to 9, rarely 14, the films of two patients by 18 and more
)


@dataclass(frozen=True)
class Contradiction:
    """The same bytes filed under more than one label."""

    sha256: str
    films: tuple[FilmRecord, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(sorted({film.label for film in self.films}))


def find_contradictions(films: Sequence[FilmRecord]) -> list[Contradiction]:
    """Every sha256 that lies under two or more labels, in the order of the manifest."""
    by_bytes: dict[str, list[FilmRecord]] = defaultdict(list)
    for film in films:
        by_bytes[film.sha256].append(film)
    found = [Contradiction(digest, tuple(same)) for digest, same in by_bytes.items()]
    return [contradiction for contradiction in found if len(contradiction.labels) > 1]


def accuracy_ceiling(films: Sequence[FilmRecord], contradictions: Sequence[Contradiction]) -> float:
    """The best accuracy that any classifier can reach on the labels as filed, in 0..1.

    Identical bytes get identical answers, so of each contradiction only its most frequent label can
    be right.
    """
    lost = sum(
        len(c.films) - max(Counter(film.label for film in c.films).values()) for c in contradictions
    )
    return 1 - lost / len(films)


def check_policy(policy: str, labels: Sequence[str]) -> None:
    """Refuse a contradiction policy that cannot be carried out.

    Raises:
        UsageError: not keep:CLASS, drop or fail, or an unknown class.
    """
    kind, _, kept = policy.partition(":")
    if policy in ("drop", "fail") or (kind == "keep" and kept in labels):
        return
    if kind == "keep":
        raise UsageError(
            f"--on_contradiction keep:{kept}: there is no class {kept!r}; classes are {', '.join(labels)}."
        )
    raise UsageError(f"--on_contradiction takes auto, keep:CLASS, drop or fail, not {policy!r}.")


def apply_policy(contradictions: Sequence[Contradiction], policy: str) -> dict[str, str]:
    """Which films leave the game, as path → reason.

    `keep:CLASS` keeps the copies under CLASS; a contradiction without CLASS loses all copies, as
    `drop` does for all.

    Raises:
        JobError: policy `fail` and there is a contradiction.
    """
    if policy == "fail" and contradictions:
        first = " and ".join(film.path for film in contradictions[0].films)
        raise JobError(
            f"{len(contradictions)} films lie under two labels, the first is {first}. "
            "Correct the source, or choose --on_contradiction keep:CLASS or drop."
        )
    kept = policy.partition(":")[2]
    excluded = {}
    for contradiction in contradictions:
        for film in contradiction.films:
            if kept in contradiction.labels and film.label == kept:
                continue
            others = ", ".join(label for label in contradiction.labels if label != film.label)
            excluded[film.path] = f"contradiction: the same bytes lie under {others}"
    return excluded


def near_duplicates(dhashes: Sequence[str], bits: int = NEAR_DUPLICATE_BITS) -> np.ndarray:
    """Pairs of films whose difference hashes differ in at most `bits` of 256, as `(pairs, 2) int`,
    first < second.
    """
    words = np.frombuffer(b"".join(bytes.fromhex(text) for text in dhashes), dtype=np.uint64)
    words = words.reshape(-1, DHASH_SIDE * DHASH_SIDE // 64)
    pairs = []
    for start in range(0, len(words), 256):
        block = words[start : start + 256]
        distance = np.bitwise_count(block[:, None, :] ^ words[None, start:, :]).sum(
            axis=2, dtype=np.uint16
        )
        first, second = np.nonzero(distance <= bits)
        pairs.append(np.stack([first, second], axis=1)[first < second] + start)
    return np.concatenate(pairs) if pairs else np.empty((0, 2), dtype=int)


def patients(films: Sequence[FilmRecord], group_by: str) -> list[str]:
    """The person behind each film, empty where unknown. `auto`: by the known collections; `none`;
    or a regex on paths.

    Raises:
        UsageError: the regex is not one, or matches no file.
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


def group_films(
    films: Sequence[FilmRecord], persons: Sequence[str], near_pairs: np.ndarray
) -> list[str]:
    """Name the group of each film: same person, same bytes or near-duplicates, also by way of a
    third film.
    """
    edges = [tuple(pair) for pair in near_pairs]
    for keys in (persons, [film.sha256 for film in films]):
        first_with: dict[str, int] = {}
        edges += [
            (first_with.setdefault(key, index), index) for index, key in enumerate(keys) if key
        ]
    rows, columns = np.array(edges, dtype=int).reshape(-1, 2).T
    graph = coo_matrix(
        (np.ones(len(rows), dtype=bool), (rows, columns)), shape=(len(films), len(films))
    )
    _, component = connected_components(graph, directed=False)
    name: dict[int, str] = {}
    return [
        name.setdefault(number, film.path)
        for number, film in zip(component.tolist(), films, strict=True)
    ]


def draw_splits(
    labels: Sequence[str],
    groups: Sequence[str],
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> list[str]:
    """Deal whole groups to train, val and test, so that each class comes close to the fractions in
    each.

    Groups are shuffled by the seed, large ones first; each goes where its classes are, relatively,
    missing most.

    Raises:
        JobError: a class has too few groups to appear on every side; the message names it.
    """
    classes = sorted(set(labels))
    counts: dict[str, np.ndarray] = {}
    for label, group in zip(labels, groups, strict=True):
        counts.setdefault(group, np.zeros(len(classes)))[classes.index(label)] += 1
    _require_groups(classes, counts)
    order = sorted(counts)
    np.random.default_rng(seed).shuffle(order)
    order.sort(key=lambda group: -counts[group].sum())
    fractions = np.array([1 - val_fraction - test_fraction, val_fraction, test_fraction])
    target = fractions[:, None] * np.sum(list(counts.values()), axis=0)[None, :]
    filled = np.zeros_like(target)
    place = {}
    for group in order:
        films = counts[group]
        excess = (films * (2 * (filled - target) + films) / np.maximum(target, 1e-9)).sum(axis=1)
        choice = int(np.argmin(excess))
        filled[choice] += films
        place[group] = SPLITS[choice]
    for split, row in zip(SPLITS, filled, strict=True):
        for label, number in zip(classes, row, strict=True):
            if number == 0:
                raise JobError(
                    f"class {label} has too few films to appear in {split} "
                    f"({int(filled[:, classes.index(label)].sum())} in all). Add films of {label} or raise --{split}_fraction."
                )
    return [place[group] for group in groups]


def _require_groups(classes: Sequence[str], counts: dict[str, np.ndarray]) -> None:
    for index, label in enumerate(classes):
        having = [films[index] for films in counts.values() if films[index]]
        if len(having) < len(SPLITS):
            raise JobError(
                f"class {label} has {int(sum(having))} films in {len(having)} group(s) of patients or duplicates; "
                f"train, val and test need one each. Add films of {label}, or see --group_by."
            )
