"""The random sample of a batch: films that are labelled for an estimate of the whole batch."""

import hashlib
import heapq
from collections.abc import Sequence


def draw(names: Sequence[str], number: int, seed: int) -> frozenset[str]:
    """`number` of the names at random, or all if there are fewer.

    The draw depends on nothing else, least of all on the predictions. Names are drawn by a digest:
    where names are added, most of the earlier ones are drawn again.
    """

    def rank(name: str) -> bytes:
        return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).digest()

    return frozenset(heapq.nsmallest(number, names, key=rank) if number else ())
