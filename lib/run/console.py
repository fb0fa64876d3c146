"""Messages of a job: to the screen, and through the same logger to the job's log.

A terminal gets progress bars; a file or a pipe gets plain lines, few of them; `--quiet` leaves one
summary line, warnings and errors.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from lib.run.logs import LOGGER, JobLog

Item = TypeVar("Item")

SECONDS_BETWEEN_PLAIN_LINES = 15.0
_STYLES = {logging.WARNING: ("warning", "yellow"), logging.ERROR: ("error", "bold red")}


class Screen(logging.Handler):
    """Shows notes on standard output, warnings and errors on standard error."""

    def __init__(self, quiet: bool = False) -> None:
        super().__init__(logging.WARNING if quiet else logging.INFO)
        self.quiet = quiet

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line, taken literally."""
        message = record.getMessage()
        if record.levelno in _STYLES:
            prefix, style = _STYLES[record.levelno]
            line = f"{prefix}: {message}"
            _print(line, stderr=True, style=style, markup=False, soft_wrap=True)
        else:
            _print(message, markup=False, soft_wrap=True)


class LastNote(logging.Handler):
    """Remembers the last note: the summary of a job."""

    summary = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message of a note that is logged."""
        if record.levelno == logging.INFO and getattr(record, "log_as", None) is None:
            self.summary = record.getMessage()

    def print_if_quiet(self) -> None:
        """With --quiet, print the one line that a scheduler's mail is to hold."""
        if _is_quiet() and self.summary:
            _print(self.summary, markup=False, soft_wrap=True)


LOGGER.addHandler(Screen())


@contextmanager
def logging_to(log: JobLog, quiet: bool) -> Iterator[LastNote]:
    """Send messages to `log` as well while the block runs; with `quiet` few reach the screen."""
    before, note = LOGGER.handlers[:], LastNote()
    LOGGER.handlers[:] = [Screen(quiet), log, note]
    try:
        yield note
    finally:
        LOGGER.handlers[:] = before


def show(message: str) -> None:
    """Print one line that is neither logged nor shown with --quiet."""
    LOGGER.info("%s", message, extra={"log_as": ""})


def say(message: str) -> None:
    """Print and log one line. The last one of a job is its summary."""
    LOGGER.info("%s", message)


def warn(message: str, log_as: str | None = None) -> None:
    """Print `warning: message` and log it.

    `log_as` replaces a message that names people in the log; "" logs nothing.
    """
    LOGGER.warning("%s", message, extra={"log_as": log_as})


def fail(message: str, error: BaseException | None = None) -> None:
    """Print and log the reason of a non-zero exit; the log keeps the traceback of `error`."""
    exc_info = (type(error), error, error.__traceback__) if error else None
    LOGGER.error("%s", message, exc_info=exc_info)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a small table, the first column left-aligned. Not logged: files hold its numbers."""
    if _is_quiet():
        return
    grid = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        grid.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        grid.add_row(*(str(cell) for cell in row))
    _print(grid)


def track(
    items: Iterable[Item], what: str, total: int | Callable[[], int | None]
) -> Iterator[Item]:
    """Yield `items` and show the progress. A `total` that is not known yet is None when asked for.

    A bar on a terminal, a line every 15 seconds elsewhere, nothing with --quiet.
    """
    number = total if callable(total) else lambda: total
    if sys.stderr is not None and sys.stderr.isatty() and not _is_quiet():
        yield from _track_with_bar(items, what, number)
        return
    first = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if done == 1:  # the first item includes the preparation, which is no measure of speed
            first = now
        elif now - last >= SECONDS_BETWEEN_PLAIN_LINES:
            last = now
            if (known := number()) is None:
                show(f"{what}: {done}, and more are being listed")
            else:
                left = (now - first) / (done - 1) * (known - done)
                show(f"{what}: {done} of {known}, about {left:.0f} s left")


def _track_with_bar(
    items: Iterable[Item], what: str, total: Callable[[], int | None]
) -> Iterator[Item]:
    text, bar = TextColumn("{task.description}"), BarColumn()
    columns = (text, bar, MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total())
        for item in items:
            yield item
            progress.update(task, advance=1, total=total())


def _is_quiet() -> bool:
    return any(isinstance(handler, Screen) and handler.quiet for handler in LOGGER.handlers)


def _console(stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else 160)


def _print(what: object, stderr: bool = False, **options: Any) -> None:
    """Print. A closed stream, a full disk or a pipe without a reader never ends the job."""
    stream = sys.stderr if stderr else sys.stdout
    if stream is None:
        return
    try:
        _console(stderr).print(what, **options)
    except (OSError, ValueError, SystemExit):  # rich exits if nobody reads the pipe
        # Buffered text would fail once more at exit.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
