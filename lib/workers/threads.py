"""An ordered parallel map on threads, with a bounded lookahead."""

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
    """`map(function, items)` on threads: results in input order, at most `lookahead` in advance.

    The default is 4 per thread. Image decoding, resizing and hashing release the interpreter lock.
    An exception of `function` is raised in place of its result; work that has not begun is
    cancelled.
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
