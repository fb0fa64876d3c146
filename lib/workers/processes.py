"""An ordered map in worker processes: a file that crashes its decoder costs one result.

The same holds for a decoder that hangs or uses up the memory. Threads decode as fast
(lib/workers/threads.py), but a crash in a C library ends the whole process. Workers are forked from
a small server process that has imported only the decoders: they start in milliseconds and share no
state with the job.
"""

import ctypes
import multiprocessing
import multiprocessing.forkserver
import os
import resource
import signal
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from pebble import CONSTS, ProcessExpired, ProcessFuture, ProcessPool

from lib.run.errors import JobError

Item = TypeVar("Item")
Result = TypeVar("Result")

MEMORY = (
    4 * 2**30
)  # bytes of address space per worker; the largest film that is not refused takes half of it
GRACE = 60.0  # seconds beyond the time limit after which a silent pool counts as dead
_ATTEMPTS = 5  # consecutive pools that may die without a result
_PR_SET_PDEATHSIG = 1
CONSTS.sleep_unit = 0.02  # seconds until a pool notices that it is to stop, or that a worker died
# Bytes: sun_path holds 108 on Linux and 104 elsewhere, the zero at the end included.
_LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103


def start_server(*modules: str) -> None:
    """Start the process that workers are forked from, without waiting for it.

    It imports `modules` besides the decoders. A server that is already running is not changed.
    """
    _require_short_socket_path()
    _context().set_forkserver_preload(["lib.images.preload", *modules])
    multiprocessing.forkserver.ensure_running()


def map_isolated(
    function: Callable[[Item], Result],
    lost: Callable[[Item, str], Result],
    items: Iterable[Item],
    processes: int,
    seconds: float,
    lookahead: int | None = None,
) -> Iterator[Result]:
    """`Isolated.map` with worker processes of its own."""
    with Isolated(function, lost, processes, seconds) as isolated:
        yield from isolated.map(items, lookahead)


class Isolated(Generic[Item, Result]):
    """A function that runs in worker processes, which outlast a `map`. A context manager.

    `lost(item, reason)` is the result of an item whose worker crashed, was killed, or took longer
    than `seconds`. `function`, items and results must be picklable. A worker has `MEMORY` bytes of
    address space; the kernel's out-of-memory killer takes workers first.
    """

    def __init__(
        self,
        function: Callable[[Item], Result],
        lost: Callable[[Item, str], Result],
        processes: int,
        seconds: float,
        prepare: Callable[[], object] | None = None,
    ) -> None:
        """`prepare`, picklable as well, runs in each process before its first item. An exception
        of it is not told: what is still missing then is missing for the first item.
        """
        self._lost, self._processes = lost, processes
        self._new_pool = partial(_Pool[Item, Result], function, processes, seconds, prepare)
        self._pool: _Pool[Item, Result] | None = None

    def __enter__(self) -> "Isolated[Item, Result]":
        """The processes start now, beside whatever comes before the first `map`."""
        self._pool = self._new_pool()
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.stop()
            self._pool = None

    def map(self, items: Iterable[Item], lookahead: int | None = None) -> Iterator[Result]:
        """`map(function, items)`: results in input order, at most `lookahead` items in advance.

        The default is 4 per process. An exception of the function is raised in place of its
        result.

        Raises:
            JobError: worker processes cannot be kept alive on this machine.
        """
        ahead = lookahead or 4 * self._processes
        source, waiting = iter(items), deque[Item]()
        pool = self._pool or self._new_pool()
        self._pool = None  # until all of its results are back
        deaths = 0
        try:
            while True:
                while len(waiting) < ahead and (item := next(source, _END)) is not _END:
                    waiting.append(item)
                    pool.ask(item)
                if not waiting:
                    self._pool = pool
                    return
                try:
                    result = pool.next_result(waiting[0], self._lost)
                except _PoolDiedError as error:
                    deaths += 1
                    if deaths == _ATTEMPTS:
                        raise JobError(
                            f"decoder processes keep dying ({error}); the machine may be out of "
                            "memory"
                        ) from error
                    pool.stop()
                    pool = self._new_pool()
                    for item in waiting:
                        pool.ask(item)
                    continue
                deaths = 0
                waiting.popleft()
                yield result
        finally:
            if self._pool is None:
                pool.stop()


_END: Any = object()


class _PoolDiedError(Exception):
    """The pool as a whole, not a single worker."""


class _Pool(Generic[Item, Result]):
    def __init__(
        self,
        function: Callable[[Item], Result],
        processes: int,
        seconds: float,
        prepare: Callable[[], object] | None,
    ) -> None:
        start_server()
        self._pool = ProcessPool(
            processes, initializer=_begin, initargs=(prepare,), context=_context()
        )
        self._function, self._seconds = function, seconds
        self._futures: deque[ProcessFuture[Result]] = deque()
        self._schedule_error: Exception | None = None
        self._starting = threading.Thread(target=self._start, daemon=True)
        self._starting.start()

    def _start(self) -> None:
        """Fork the workers, which has to wait for the server. `ask` tells what goes wrong."""
        with suppress(Exception):
            _ = self._pool.active

    def ask(self, item: Item) -> None:
        try:
            self._futures.append(
                self._pool.schedule(self._function, args=(item,), timeout=self._seconds)
            )
        except RuntimeError as error:  # the pool has stopped; next_result raises
            self._schedule_error = error

    def next_result(self, item: Item, lost: Callable[[Item, str], Result]) -> Result:
        if not self._futures:
            raise _PoolDiedError(self._schedule_error)
        future = self._futures[0]
        if not wait([future], self._seconds + GRACE).done:
            raise _PoolDiedError("no answer")
        error = future.exception()
        if isinstance(error, BrokenProcessPool):
            raise _PoolDiedError(error)
        self._futures.popleft()
        if isinstance(error, ProcessExpired):
            return lost(item, _describe_end(error.exitcode))
        if isinstance(error, TimeoutError):
            return lost(item, f"reading it took longer than {self._seconds:g} s")
        return future.result()

    def stop(self) -> None:
        self._starting.join()
        with suppress(RuntimeError):
            self._pool.stop()  # type: ignore[no-untyped-call]
            self._pool.join()


def _require_short_socket_path() -> None:
    """The server listens on a socket in TMPDIR, whose path the kernel bounds.

    Raises:
        JobError: the path would be too long, or there is no folder for temporary files.
    """
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError:
        raise JobError(
            "there is no folder for temporary files: set TMPDIR to one that can be written to."
        ) from None
    longest = _LONGEST_SOCKET_PATH - len("/pymp-12345678/listener-12345678")
    if len(os.fsencode(folder)) > longest:
        raise JobError(
            f"TMPDIR {folder} is too long for the socket of the reading processes: "
            f"{len(os.fsencode(folder))} bytes, at most {longest}. Set TMPDIR to a shorter path, "
            "such as /tmp."
        )


def _context() -> Any:
    return multiprocessing.get_context("forkserver")


def _begin(prepare: Callable[[], object] | None) -> None:
    """In a worker, before its first item."""
    _confine()
    if prepare:
        with suppress(Exception):
            prepare()


def _confine() -> None:
    """In a worker: die with the job, be the kernel's first choice when memory runs out, leave no
    core files.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    memory = MEMORY if most == resource.RLIM_INFINITY else min(MEMORY, most)
    with suppress(ValueError):  # macOS reserves more than that from the start
        resource.setrlimit(resource.RLIMIT_AS, (memory, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _describe_end(code: int) -> str:
    if code == -signal.SIGKILL:
        return "reading it was killed, most likely because memory ran out"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"exit code {code}"
    return f"reading it crashed the decoder ({name})"
