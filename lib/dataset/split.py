"""The split: groups of films that must stay together, and a stratified draw of whole groups."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from lib.dataset.duplicates import Pairs
from lib.dataset.manifest import FilmRecord
from lib.run.errors import JobError, UsageError

SPLITS = ("train", "val", "test")


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
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> list[str]:
    """Deal whole groups to train, val and test, so that each class comes close to the fractions in
    each. With a fraction of 0 a side stays empty.

    Groups are shuffled by the seed, large ones first; each goes where its classes are, relatively,
    missing most.

    Raises:
        JobError: a class has too few groups to appear on every side; the message names it.
    """
    classes = sorted(set(labels))
    counts: dict[str, np.ndarray] = {}
    for label, group in zip(labels, groups, strict=True):
        counts.setdefault(group, np.zeros(len(classes)))[classes.index(label)] += 1
    fractions = np.array([1 - val_fraction - test_fraction, val_fraction, test_fraction])
    used = [split for split, fraction in zip(SPLITS, fractions, strict=True) if fraction]
    _require_groups(classes, counts, used)
    order = sorted(counts)
    np.random.default_rng(seed).shuffle(order)
    order.sort(key=lambda group: -counts[group].sum())
    target = fractions[:, None] * np.sum(list(counts.values()), axis=0)[None, :]
    filled = np.zeros_like(target)
    place = {}
    for group in order:
        films = counts[group]
        excess = (films * (2 * (filled - target) + films) / np.maximum(target, 1e-9)).sum(axis=1)
        choice = int(np.argmin(excess))
        filled[choice] += films
        place[group] = SPLITS[choice]
    for split in used:
        for label, number in zip(classes, filled[SPLITS.index(split)], strict=True):
            if number == 0:
                raise JobError(
                    f"class {label} has too few films to appear in {split} "
                    f"({int(filled[:, classes.index(label)].sum())} in all). "
                    f"Add films of {label} or raise --{split}_fraction."
                )
    return [place[group] for group in groups]


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


def _require_groups(
    classes: Sequence[str], counts: dict[str, np.ndarray], sides: Sequence[str]
) -> None:
    for index, label in enumerate(classes):
        having = [films[index] for films in counts.values() if films[index]]
        if len(having) < len(sides):
            raise JobError(
                f"class {label} has {int(sum(having))} films in {len(having)} group(s) of "
                f"patients or duplicates; {', '.join(sides[:-1])} and {sides[-1]} need one each. "
                f"Add films of {label}, or see --group_by."
            )
