"""SIGTERM and SIGINT, deferred while a block must not be interrupted."""

import importlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from lib.run.errors import StoppedBySignal


@contextmanager
def defer_signals() -> Iterator[Callable[[], None]]:
    """Defer SIGTERM and SIGINT while the block runs.

    The yielded function raises `StoppedBySignal` if a signal has arrived; call it where stopping
    is safe. A pending signal is raised at the end of the block. A second signal is not deferred.
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
    """Import PyTorch. A signal handler that raises during the first import aborts the process.

    Its threads sleep while they wait for each other: by default they keep their cores busy, which
    made steps three times slower where other programs compute as well (docs/PERFORMANCE.md).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch loads OpenMP
    with defer_signals():
        importlib.import_module("torch")
