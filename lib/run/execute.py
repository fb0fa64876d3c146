"""A job run from the command line: flags checked, Fire called, every ending an exit code and one
message.
"""

import errno
import inspect
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

from dotenv import load_dotenv

from lib.run import console, logs
from lib.run.errors import (
    DONE,
    FAILED,
    SOME_INPUTS_UNUSABLE,
    JobError,
    LockedError,
    StoppedBySignal,
    UsageError,
)
from lib.run.flags import Job, Parameter, help_text, parameters_of, read_flags, resolve


def run(job: Job) -> NoReturn:
    """Run a job from the command line and leave the process with its exit code
    (docs/ARCHITECTURE.md lists them).
    """
    while (
        spare := os.open(os.devnull, os.O_RDWR)
    ) <= 2:  # closed streams: other files must not take their numbers
        continue
    os.close(spare)
    sys.exit(execute(job, sys.argv[1:]))


def execute(job: Job, argv: Sequence[str]) -> int:
    """Check `argv`, call `job` through Fire, turn every ending into an exit code and at most one
    message, log all of it.
    """
    load_dotenv(".env")  # what is set already wins
    log = logs.JobLog(
        job.__name__, logs.runs_dir_of(argv), lambda message: console.warn(message, log_as="")
    )
    with console.speaking(log, quiet="--quiet" in argv) as lines:
        try:
            parameters = parameters_of(job)
            command_line = read_flags(argv, parameters)
            if command_line.help:
                print(help_text(job))
                return DONE
            texts, overrides = resolve(parameters, command_line.values)
            log.start({name: texts[name] for name in overrides})
            if overrides:
                console.show(
                    f"{job.__name__}: {' · '.join(f'{name} = {texts[name]}{of}' for name, of in overrides.items())}"
                )
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, _stop)
            exit_code = _call_through_fire(job, parameters, texts)
        except (Exception, StoppedBySignal) as error:
            exit_code = _explain(error, job, debug="--debug" in argv)
        log.end(exit_code, lines.summary)
        if exit_code in (DONE, SOME_INPUTS_UNUSABLE):
            lines.print_summary()
    return exit_code


def _explain(error: BaseException, job: Job, debug: bool) -> int:
    """Print one message for `error`, and its traceback with --debug. Returns the exit code."""
    if debug and not isinstance(error, StoppedBySignal):
        traceback.print_exception(error)
    if isinstance(error, UsageError | LockedError):
        console.fail(str(error))
        if isinstance(error, UsageError):
            console.show(f"See: python -m jobs.{job.__name__} --help")
        return error.exit_code
    if isinstance(error, JobError):
        console.fail(str(error), error)
        return error.exit_code
    if isinstance(error, StoppedBySignal):
        console.fail(f"{error}; what was finished is kept, the same command takes it up again.")
        return error.exit_code
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = error.filename or "while writing"
        console.fail(
            f"the disk is full ({place}). Free some space and run the same command again.", error
        )
    elif isinstance(error, MemoryError):
        console.fail(
            "out of memory. Raise MEMORY in .env, or lower CPUS and --workers; then run the same command again.",
            error,
        )
    else:
        hint = "" if debug else " (run again with --debug for the traceback)"
        console.fail(f"{type(error).__name__}: {error}{hint}", error)
    return FAILED


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    raise StoppedBySignal(number)


def _call_through_fire(job: Job, parameters: dict[str, Parameter], texts: dict[str, str]) -> int:
    import fire
    from fire.decorators import SetParseFns

    exit_code = DONE

    def component(**values: Any) -> None:
        nonlocal exit_code
        exit_code = job(**values)

    component.__name__ = job.__name__
    component.__signature__ = inspect.signature(job)  # type: ignore[attr-defined]
    SetParseFns(**{name: parameter.parse for name, parameter in parameters.items()})(component)
    fire.Fire(
        component, command=[f"--{name}={text}" for name, text in texts.items()], name=job.__name__
    )
    return exit_code
