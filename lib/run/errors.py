"""The one hierarchy of errors that reach a person, and the exit codes that reach a scheduler."""

DONE = 0
FAILED = 1
WRONG_USAGE = 2
SOME_INPUTS_UNUSABLE = 3
LOCKED = 75  # EX_TEMPFAIL of sysexits.h: try again later


class JobError(Exception):
    """Something the person can mend: shown as one message without a traceback, exit 1.

    The message says what was wrong, what would be right, and what was kept.
    """

    exit_code = FAILED


class UsageError(JobError):
    """A flag, a value or a combination of flags that the job does not take, exit 2."""

    exit_code = WRONG_USAGE


class LockedError(JobError):
    """Another run works on the same folder or file right now, exit 75."""

    exit_code = LOCKED


class UnreadableFilmError(JobError):
    """One file could not be read as a radiograph. Jobs turn it into a row, never into a stop."""


class StoppedBySignal(BaseException):
    """SIGTERM or SIGINT arrived. Not an Exception, so that no handler on the way swallows it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by signal {signal_number}")
        self.exit_code = 128 + signal_number
