"""Errors that reach a person, and the exit codes that reach a scheduler."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """How a job ended. A job that a signal stopped ends with 128 + the signal's number."""

    DONE = 0
    FAILED = 1
    WRONG_USAGE = 2
    SOME_INPUTS_UNUSABLE = 3  # done; rows name the inputs
    LOCKED = 75  # EX_TEMPFAIL of sysexits.h: try again later


DONE, SOME_INPUTS_UNUSABLE = ExitCode.DONE, ExitCode.SOME_INPUTS_UNUSABLE


class JobError(Exception):
    """An error that the user can correct: shown as one message without a traceback, exit 1.

    The message says what was wrong, what would be right, and what was kept.
    """

    exit_code = ExitCode.FAILED


class UsageError(JobError):
    """A flag, a value or a combination of flags that the job does not take, exit 2."""

    exit_code = ExitCode.WRONG_USAGE


class LockedError(JobError):
    """Another run is using the same folder or file, exit 75."""

    exit_code = ExitCode.LOCKED


class UnreadableFilmError(JobError):
    """One file could not be read as a radiograph. Jobs turn it into a row, never into a stop.

    The message is one printable line, whatever the file holds that it quotes.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(one if one.isprintable() else " " for one in message))


class StoppedBySignal(BaseException):
    """SIGTERM or SIGINT arrived. Not an Exception, so that no `except Exception` catches it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by signal {signal_number}")
        self.exit_code = 128 + signal_number


@contextmanager
def mapped(
    errors: Mapping[type[Exception], Callable[[Any], JobError]], *, keep_cause: bool = True
) -> Iterator[None]:
    """Turn errors of other packages into errors of this program while the block runs.

    `errors` gives the `JobError` to raise for an error of each type; the first type that fits
    counts. Errors of other types, and a `JobError`, pass unchanged. `keep_cause=False` leaves the
    first error out of the traceback, for packages whose messages name a film.
    """
    try:
        yield
    except JobError:
        raise
    except Exception as error:
        for kind, translate in errors.items():
            if isinstance(error, kind):
                raise translate(error) from (error if keep_cause else None)
        raise
