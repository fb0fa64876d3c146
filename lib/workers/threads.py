"""A parallel map that keeps order and never runs ahead of its reader, so memory does not grow with
the input.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ordered(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    lookahead: int | None = None,
) -> Iterator[Result]:
    """`map(function, items)` on threads, results in input order, at most `lookahead` (default 4 per
    thread) waiting.

    Threads suffice because image decoding, resizing and hashing release Python's lock. The first
    exception of `function` is raised where its result would have come; what had not begun by then
    is cancelled.
    """
    ahead = lookahead or 4 * threads
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
