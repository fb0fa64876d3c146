"""A job run from the command line: flags checked, Fire called, an exit code returned."""

import errno
import functools
import gc
import inspect
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

from dotenv import load_dotenv

from lib.run import console, logs
from lib.run.errors import ExitCode, JobError, LockedError, StoppedBySignal, UsageError
from lib.run.flags import Job, Parameter, help_text, parameters_of, read_flags, resolve


def run(job: Job) -> NoReturn:
    """Run a job from the command line and exit with its code (see `ExitCode`)."""
    # Occupy descriptors 0 to 2 if they are closed: files opened later must not become stdout.
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
        continue
    os.close(spare)
    _hide_main_from_workers()
    exit_code = execute(job, sys.argv[1:])
    gc.freeze()  # the last collection would visit every object of torch, which takes a second
    sys.exit(exit_code)


def _hide_main_from_workers() -> None:
    """Processes of multiprocessing run the module of the job again, for functions that are defined
    there. None is passed to them, and it takes 0.1 s: a module without name and file is let alone.
    """
    main = sys.modules["__main__"]
    main.__spec__ = None
    vars(main).pop("__file__", None)


def execute(job: Job, argv: Sequence[str]) -> int:
    """Check `argv`, call `job` through Fire, log the run. Returns the exit code."""
    # Of a HOME that cannot be written it would tell each time; it uses TMPDIR then.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    load_dotenv(".env")  # the environment takes precedence
    complain = functools.partial(console.warn, log_as="")
    log = logs.JobLog(job.__name__, logs.runs_dir_of(argv), complain)
    with console.logging_to(log, quiet="--quiet" in argv) as last_note:
        try:
            parameters = parameters_of(job)
            command_line = read_flags(argv, parameters)
            if command_line.help:
                print(help_text(job))
                return ExitCode.DONE
            texts, overrides = resolve(parameters, command_line.values)
            log.start({name: texts[name] for name in overrides})
            if overrides:
                shown = (f"{name} = {texts[name]}{origin}" for name, origin in overrides.items())
                console.show(f"{job.__name__}: {' · '.join(shown)}")
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, _stop)
            exit_code = _call_through_fire(job, parameters, texts)
        except (Exception, StoppedBySignal) as error:
            exit_code = _report(error, job, debug="--debug" in argv)
        log.end(exit_code, last_note.summary)
        if exit_code in (ExitCode.DONE, ExitCode.SOME_INPUTS_UNUSABLE):
            last_note.print_if_quiet()
    return exit_code


def _report(error: BaseException, job: Job, debug: bool) -> int:
    """Print one message for `error`, and its traceback with --debug. Returns the exit code."""
    if debug and not isinstance(error, StoppedBySignal):
        traceback.print_exception(error)
    if isinstance(error, UsageError):
        console.fail(str(error))
        console.show(f"See: python -m jobs.{job.__name__} --help")
    elif isinstance(error, LockedError):
        console.fail(str(error))
    elif isinstance(error, JobError):
        console.fail(str(error), error)
    elif isinstance(error, StoppedBySignal):
        console.fail(f"{error}; finished work is kept. Run the same command to continue.")
    else:
        console.fail(_message_of(error, debug), error)
        return ExitCode.FAILED
    return error.exit_code


def _message_of(error: BaseException, debug: bool) -> str:
    """What to tell the user about an error that no job foresaw."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = error.filename or "while writing"
        return f"the disk is full ({place}). Free some space and run the same command again."
    if isinstance(error, MemoryError):
        return (
            "out of memory. Raise MEMORY in .env, or lower CPUS and --workers; then run the same "
            "command again."
        )
    if isinstance(error, BlockingIOError) or "can't start new thread" in str(error):
        return (
            "no further process or thread can be started: the limit is reached (pids_limit in "
            "compose.yaml, ulimit -u elsewhere). Lower CPUS and WORKERS, or raise the limit."
        )
    hint = "" if debug else " (run again with --debug for the traceback)"
    return f"{type(error).__name__}: {error}{hint}"


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    raise StoppedBySignal(number)


def _call_through_fire(job: Job, parameters: dict[str, Parameter], texts: dict[str, str]) -> int:
    import fire
    from fire.decorators import SetParseFns

    exit_code: int = ExitCode.DONE

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
