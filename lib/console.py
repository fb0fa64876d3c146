"""How a job speaks: tables and bars on a terminal; plain, sparse lines in cron mails and CI logs."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

Item = TypeVar("Item")

SECONDS_BETWEEN_PLAIN_LINES = 15.0


def _console(stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else 160)


def say(message: str) -> None:
    """One line on standard output, taken literally."""
    _console(stderr=False).print(message, markup=False, soft_wrap=True)


def warn(message: str) -> None:
    """One line on standard error that begins with `warning:`."""
    _console(stderr=True).print(f"warning: {message}", style="yellow", markup=False, soft_wrap=True)


def fail(message: str) -> None:
    """The line on standard error that explains a non-zero exit."""
    _console(stderr=True).print(f"error: {message}", style="bold red", markup=False, soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a small table: the first column to the left, the others to the right."""
    grid = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        grid.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        grid.add_row(*(str(cell) for cell in row))
    _console(stderr=False).print(grid)


def track(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """Yield `items` and show how far we are: a bar on a terminal, a line every 15 seconds elsewhere."""
    if sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=_console(stderr=True), transient=True) as progress:
            yield from progress.track(items, total=total, description=what)
        return
    started = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_PLAIN_LINES:
            last = now
            left = (now - started) / done * (total - done)
            say(f"{what}: {done} of {total}, about {left:.0f} s left")
