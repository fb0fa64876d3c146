"""SIGTERM and SIGINT, deferred while a block must not be interrupted."""

import importlib
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from lib.run.errors import (
    StoppedBySignal,
)


@contextmanager
def defer_signals() -> Iterator[Callable[[], None]]:
    """Hold SIGTERM and SIGINT back while the block runs: the yielded function raises what came,
    when it is called.

    What nobody asked for is raised when the block ends. A second signal is not held back.
    """
    arrived: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        if arrived:
            raise StoppedBySignal(number)
        arrived.append(number)

    def raise_if_stopped() -> None:
        if arrived:
            raise StoppedBySignal(arrived[0])

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield raise_if_stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    raise_if_stopped()


def import_torch() -> None:
    """Import PyTorch for the first time. A signal whose handler raises in the middle of that would
    abort the process.
    """
    with defer_signals():
        importlib.import_module("torch")
