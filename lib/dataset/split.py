"""The split: groups of films that must stay together, and a stratified draw of whole groups."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from lib.dataset.duplicates import Pairs
from lib.dataset.manifest import FilmRecord
from lib.run.errors import JobError

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
                    f"({int(filled[:, classes.index(label)].sum())} in all). "
                    f"Add films of {label} or raise --{split}_fraction."
                )
    return [place[group] for group in groups]


def _require_groups(classes: Sequence[str], counts: dict[str, np.ndarray]) -> None:
    for index, label in enumerate(classes):
        having = [films[index] for films in counts.values() if films[index]]
        if len(having) < len(SPLITS):
            raise JobError(
                f"class {label} has {int(sum(having))} films in {len(having)} group(s) of "
                f"patients or duplicates; train, val and test need one each. "
                f"Add films of {label}, or see --group_by."
            )
