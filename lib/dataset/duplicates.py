"""Near-duplicate search over difference hashes, exact and without comparing all pairs.

Pigeonhole principle: two hashes that differ in at most `bits` places, cut into `bits + 2` bands,
agree in at least two whole bands. Films that share two bands are candidates; only those are
compared bit by bit. Two bands instead of one, because hashes of chest films resemble each other:
on 1,326 real films one band of eleven leaves 70 times as many candidates as two of twelve.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from lib.images.measure import DHASH_SIDE

NEAR_DUPLICATE_BITS = 10  # of 256: copies differ by 0 to 9, rarely 14; two patients by 18 and more
CROWD = 50  # films with one and the same hash that are paired each with each
_BITS = DHASH_SIDE * DHASH_SIDE

Pairs = NDArray[np.int64]  # (pairs, 2)


def near_duplicates(dhashes: Sequence[str], bits: int = NEAR_DUPLICATE_BITS) -> Pairs:
    """Pairs of films whose difference hashes differ in at most `bits` of 256 places.

    Returns `(pairs, 2) int64`, first < second, in ascending order. Of more than `CROWD` films with
    the same hash (blank ones, mostly) each further film is paired with the first alone: the groups
    are the same, the number of pairs stays linear.
    """
    if not dhashes:
        return np.empty((0, 2), np.int64)
    packed = np.frombuffer(bytes.fromhex("".join(dhashes)), np.uint8).reshape(-1, _BITS // 8)
    words = packed.view(np.uint64)
    order = np.lexsort(words.T)
    is_new = np.ones(len(order), bool)
    is_new[1:] = (words[order[1:]] != words[order[:-1]]).any(axis=1)
    starts = np.flatnonzero(is_new)
    sizes = np.diff(np.append(starts, len(order)))
    close = _close_pairs(packed[order[starts]], bits)
    films = np.concatenate([_members(close, order, starts, sizes), _crowds(order, starts, sizes)])
    films.sort(axis=1)
    return films[np.lexsort((films[:, 1], films[:, 0]))]


def _close_pairs(packed: NDArray[np.uint8], bits: int) -> Pairs:
    """Pairs of the distinct hashes `(n, 32)` within `bits`; each hash is paired with itself too."""
    words, bands = packed.view(np.uint64), bits + 2
    found = [np.arange(len(words)) * (len(words) + 1)]  # a pair as one number: first * n + second
    keys = [_key(packed, np.arange(band, _BITS, bands)) for band in range(bands)]
    for one, other in combinations(keys, 2):
        for first, second in _equal_keys(one << np.uint64(32) | other):
            distance = np.bitwise_count(words[first] ^ words[second]).sum(axis=1)
            near = distance <= bits
            low, high = np.minimum(first[near], second[near]), np.maximum(first[near], second[near])
            found.append(low * len(words) + high)
    pairs = np.unique(np.concatenate(found))
    return np.stack(np.divmod(pairs, len(words)), axis=1)


def _key(packed: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The bits at `places`, at most 32, as one number per hash.

    The bits of a band lie apart: neighbours in a film are alike and tell films apart less well.
    More bits than 32 (a small limit) are left out, which costs candidates and no pair.
    """
    key = np.zeros(len(packed), np.uint64)
    for place in places[:32]:
        bit = packed[:, place // 8] >> np.uint8(7 - place % 8) & np.uint8(1)
        key = key << np.uint64(1) | bit
    return key


def _equal_keys(keys: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], ...]]:
    """All pairs of positions with equal keys, in blocks of at most `len(keys)` pairs.

    Equal keys are neighbours once sorted. The block of step k compares each with its k-th next; who
    differs there differs from all that follow.
    """
    order = np.argsort(keys, kind="stable")
    ordered, step = keys[order], 1
    here = np.arange(len(keys))
    while len(here):
        here = here[: np.searchsorted(here, len(keys) - step)]
        here = here[ordered[here] == ordered[here + step]]
        yield order[here], order[here + step]
        step += 1


def _members(
    close: Pairs, order: NDArray[np.int64], starts: NDArray[np.int64], sizes: NDArray[np.int64]
) -> Pairs:
    """Pairs of films behind pairs of hashes; the films of hash `h` are `order[starts[h]:]`."""
    few = np.minimum(sizes, CROWD)
    close = close[(close[:, 0] != close[:, 1]) | (few[close[:, 0]] > 1)]
    first, second = close.T
    counts = few[first] * few[second]
    pair = np.repeat(np.arange(len(close)), counts)
    within = np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts, counts)
    row, column = np.divmod(within, few[second][pair])
    is_pair = (first[pair] != second[pair]) | (row < column)
    left, right = order[starts[first[pair]] + row], order[starts[second[pair]] + column]
    pairs: Pairs = np.stack([left, right], axis=1)[is_pair]
    return pairs


def _crowds(order: NDArray[np.int64], starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> Pairs:
    """The films beyond `CROWD` of one hash, each with the first film of that hash."""
    rank = np.arange(len(order)) - np.repeat(starts, sizes)
    first = order[np.repeat(starts, sizes)]
    beyond = rank >= CROWD
    return np.stack([first[beyond], order[beyond]], axis=1)
