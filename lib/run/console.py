"""How a job speaks: bars on a terminal, plain and sparse lines elsewhere, one line with --quiet,
all of it in the log.
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from lib.run.logs import JobLog

Item = TypeVar("Item")

SECONDS_BETWEEN_PLAIN_LINES = 15.0


@dataclass
class Run:
    """What the lines of the job under way go through."""

    log: JobLog | None = None
    quiet: bool = False
    summary: str = ""  # the last line that was said

    def print_summary(self) -> None:
        """With --quiet, the one line that a scheduler's mail is to hold."""
        if self.quiet and self.summary:
            _print(self.summary)


_run = Run()


@contextmanager
def speaking(log: JobLog, quiet: bool) -> Iterator[Run]:
    """While the block runs, lines go to `log` as well, and to the screen only where they must when
    `quiet`.
    """
    global _run
    before, _run = _run, Run(log, quiet)
    try:
        yield _run
    finally:
        _run = before


def _console(stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else 160)


def _put(what: object, stderr: bool = False, **how: Any) -> None:
    """Print. A stream that is closed, on a full disk or without a reader costs its lines, never the
    job.
    """
    stream = sys.stderr if stderr else sys.stdout
    if stream is None:
        return
    try:
        _console(stderr).print(what, **how)
    except (OSError, ValueError, SystemExit):  # rich ends the program where nobody reads any more
        with suppress(
            OSError, ValueError
        ):  # what waits in the stream would fail once more at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _print(message: str) -> None:
    _put(message, markup=False, soft_wrap=True)


def _write(event: str, message: str) -> None:
    if _run.log and message:
        _run.log.write(event, message=message)


def show(message: str) -> None:
    """One line on standard output for the person who watches: neither logged nor shown with
    --quiet.
    """
    if not _run.quiet:
        _print(message)


def say(message: str) -> None:
    """One line on standard output, taken literally. The last one of a job is its summary."""
    _run.summary = message
    _write("note", message)
    show(message)


def warn(message: str, log_as: str | None = None) -> None:
    """One line on standard error that begins with `warning:`. `log_as` replaces what names people;
    "" logs nothing.
    """
    _write("warning", message if log_as is None else log_as)
    _put(f"warning: {message}", stderr=True, style="yellow", markup=False, soft_wrap=True)


def fail(message: str, error: BaseException | None = None) -> None:
    """The line on standard error that explains a non-zero exit; the log keeps the traceback of
    `error` as well.
    """
    if _run.log:
        _run.log.failure(message, error)
    _put(f"error: {message}", stderr=True, style="bold red", markup=False, soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a small table: the first column to the left, the others to the right. Not logged: the
    files hold its numbers.
    """
    if _run.quiet:
        return
    grid = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        grid.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        grid.add_row(*(str(cell) for cell in row))
    _put(grid)


def track(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """Yield `items` and show how far we are: a bar on a terminal, a line every 15 seconds
    elsewhere, nothing with --quiet.
    """
    if sys.stderr is not None and sys.stderr.isatty() and not _run.quiet:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=_console(stderr=True), transient=True) as progress:
            yield from progress.track(items, total=total, description=what)
        return
    first = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if done == 1:  # what came before was preparation, not speed
            first = now
        elif now - last >= SECONDS_BETWEEN_PLAIN_LINES:
            last = now
            left = (now - first) / (done - 1) * (total - done)
            show(f"{what}: {done} of {total}, about {left:.0f} s left")
