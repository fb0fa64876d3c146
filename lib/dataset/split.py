"""The split: groups of films that must stay together, and a stable, stratified draw of groups."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from lib.dataset.duplicates import Pairs
from lib.dataset.manifest import FilmRecord
from lib.run.errors import JobError, UsageError

SPLITS = ("train", "val", "test")
Counts = NDArray[np.int64]  # (groups, classes)


def group_films(
    films: Sequence[FilmRecord], persons: Sequence[str], near_pairs: Pairs
) -> list[str]:
    """Name the group of each film: same person, same bytes or near-duplicates, also by way of a
    third film. A group is named for its first film.
    """
    digests = [film.sha256 for film in films]
    edges = np.concatenate([near_pairs, _links(persons), _links(digests)])
    graph = coo_matrix(
        (np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(len(films), len(films))
    )
    _, component = connected_components(graph, directed=False)
    _, first = np.unique(component, return_index=True)
    return [films[number].path for number in first[component].tolist()]


def _links(keys: Sequence[str]) -> Pairs:
    """Each film with a key, paired with the first film of this key: `(n, 2)`."""
    first_with: dict[str, int] = {}
    pairs = [(first_with.setdefault(key, at), at) for at, key in enumerate(keys) if key]
    return np.array(pairs, np.int64).reshape(-1, 2)


def draw_splits(
    labels: Sequence[str],
    groups: Sequence[str],
    digests: Sequence[str],
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> list[str]:
    """Deal whole groups to train, val and test, so that each class comes close to the fractions in
    each. With a fraction of 0 a side stays empty.

    A group's rank is a hash of the seed and of its smallest digest; digests are those of the films'
    bytes. The lowest ranks fill val, the highest test, the others are training groups. So films
    that are added or removed move no others but those at the borders, and the order of the films
    does not matter.

    Raises:
        JobError: a class has too few groups to appear on every side; the message names it.
    """
    classes = sorted(set(labels))
    films, ranks, members = _ranked_groups(labels, groups, digests, classes, seed)
    fractions = np.array([1 - val_fraction - test_fraction, val_fraction, test_fraction])
    used = [split for split, fraction in zip(SPLITS, fractions, strict=True) if fraction]
    _require_groups(classes, films, used)
    target = fractions[:, None] * films.sum(axis=0)
    side = np.zeros(len(films), np.int64)
    order = np.argsort(ranks, kind="stable")
    side[_chosen(films, order, target[1])] = 1
    side[_chosen(films, order[::-1][side[order[::-1]] == 0], target[2])] = 2
    for split in used:
        filled = films[side == SPLITS.index(split)].sum(axis=0)
        for index, label in enumerate(classes):
            if filled[index] == 0:
                raise JobError(
                    f"class {label} has too few films to appear in {split} "
                    f"({int(films[:, index].sum())} in all). "
                    f"Add films of {label} or raise --{split}_fraction."
                )
    return [SPLITS[number] for number in side[members].tolist()]


def _ranked_groups(
    labels: Sequence[str],
    groups: Sequence[str],
    digests: Sequence[str],
    classes: Sequence[str],
    seed: int,
) -> tuple[Counts, NDArray[np.uint64], NDArray[np.int64]]:
    """Films of each group by class `(groups, classes)`, the groups' ranks `(groups,)`, and the
    number of each film's group `(films,)`.
    """
    number_of: dict[str, int] = {}
    members = np.array([number_of.setdefault(group, len(number_of)) for group in groups], np.int64)
    column = {label: index for index, label in enumerate(classes)}
    cells = members * len(classes) + np.array([column[label] for label in labels], np.int64)
    films = np.bincount(cells, minlength=len(number_of) * len(classes))
    smallest: dict[str, str] = {}
    for group, digest in zip(groups, digests, strict=True):
        smallest[group] = min(smallest.get(group, digest), digest)
    key = str(seed).encode()
    hashes = (hashlib.blake2b(name.encode(), digest_size=8, key=key) for name in smallest.values())
    ranks = np.array([int.from_bytes(found.digest()) for found in hashes], np.uint64)
    return films.reshape(-1, len(classes)).astype(np.int64), ranks, members


def _chosen(films: Counts, order: NDArray[np.int64], target: NDArray[np.float64]) -> list[int]:
    """The groups that a side takes, in this order, until its classes have about `target` films.

    First it takes groups that fit whole, then those that bring it closer to its target. Groups with
    more than half of what the side wants of a class come last, or one patient could be most of it;
    not where most films of a class are in such groups.
    """
    if not target.all():
        return []
    fills_half = films > target / 2
    is_exception = (films * fills_half).sum(axis=0) < films.sum(axis=0) / 2
    is_large = np.any(fills_half & is_exception, axis=1)[order]
    filled = np.zeros(len(target))
    chosen: list[int] = []
    left: list[int] = []
    for group in order[~is_large].tolist():
        added = films[group]
        fits = (filled + added <= target)[added > 0].all()
        (chosen if fits else left).append(group)
        filled += fits * added
    for group in [*left, *order[is_large].tolist()]:
        added = films[group]
        if (added * (2 * (filled - target) + added) / target).sum() < 0:
            chosen.append(group)
            filled += added
    return chosen


def hold_out(
    films: Sequence[FilmRecord], groups: Sequence[str], sources: Sequence[str], source: str
) -> tuple[set[str], dict[str, str]]:
    """The paths of the films of one source, which will be the test films, and why other films can
    be on no side: they belong to the same patient as one of those, or are copies of one.

    Raises:
        UsageError: there is no such source, or no other.
        JobError: a class has films in this source alone.
    """
    present = sorted(set(sources))
    if source not in present or len(present) == 1:
        raise UsageError(
            f"--hold_out {source}: the films come from {', '.join(present)}. Give one of several "
            "sources; the audit lists them."
        )
    held = [own == source for own in sources]
    paths = {film.path for film, is_held in zip(films, held, strict=True) if is_held}
    touched = {group for group, is_held in zip(groups, held, strict=True) if is_held}
    excluded = {
        film.path: f"same patient as a film of {source}, or a copy of one; {source} is held out"
        for film, group, is_held in zip(films, groups, held, strict=True)
        if group in touched and not is_held
    }
    left = {film.label for film in films if film.path not in paths and film.path not in excluded}
    lacking = sorted({film.label for film in films} - left)
    if lacking:
        raise JobError(
            f"--hold_out {source} leaves no film of {', '.join(lacking)} to train on. Hold out a "
            f"source that is not the only one of a class."
        )
    return paths, excluded


def _require_groups(classes: Sequence[str], films: Counts, sides: Sequence[str]) -> None:
    for index, label in enumerate(classes):
        having = films[:, index][films[:, index] > 0]
        if len(having) < len(sides):
            raise JobError(
                f"class {label} has {having.sum()} films in {len(having)} group(s) of "
                f"patients or duplicates; {', '.join(sides[:-1])} and {sides[-1]} need one each. "
                f"Add films of {label}, or see --group_by."
            )
