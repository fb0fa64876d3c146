"""The log of a job: RUNS_DIR/logs/<job>.jsonl, one JSON object per line, times in UTC.

Credentials and names of films stay out. The name of a film may be that of a patient, so the log
says `<film>`; the manifest and the table of predictions name the file. Folders are kept: whoever
runs the job chose them.
"""

import errno
import json
import logging
import os
import re
import secrets
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from filelock import FileLock

from lib import __version__
from lib.run.errors import ExitCode

LOGGER = logging.getLogger("cxr-jobs")
LOGGER.setLevel(logging.INFO)
LOGGER.propagate = False

LARGEST = 5_000_000  # bytes of one file: 10,000 nights, or a week with a run each minute
KEPT = 5  # older files, <job>.jsonl.1 to .5

SECRETS = (
    "KAGGLE_API_TOKEN",
    "KAGGLE_KEY",
    "KAGGLE_USERNAME",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "RAY_AUTH_TOKEN",
)
OUTPUT_SUFFIXES = {
    *(".bin", ".csv", ".f16", ".html", ".json", ".jsonl", ".npz", ".parquet", ".partial"),
    *(".pt", ".pth", ".safetensors", ".xml"),
}
_SUFFIX = r"\.(?:png|jpe?g|jpe|tiff?|bmp|webp|jp2|j2k|p[gpn]m|gif|dcm|dicom|ima)\b"
_FILM = re.compile(
    rf"'[^'\n]*{_SUFFIX}'|\"[^\"\n]*{_SUFFIX}\"|[^\s'\"]*/[^/\n'\"]*?{_SUFFIX}"
    rf"|[^\s'\"(),;]+{_SUFFIX}",
    re.IGNORECASE,
)
USER_IN_URL = re.compile(r"://(?:[^/\s@]+|[^/\s@:]*:[^\s@]*)@")  # a password may hold a slash
_EVENTS = {logging.INFO: "note", logging.WARNING: "warning", logging.ERROR: "failure"}


class Redaction(logging.Filter):
    """Puts the fields of a record that may be logged into `record.fields`.

    Credentials become `***`, files that may be films `<film>`. The record itself, which other
    handlers show on the screen, keeps its message.
    """

    def __init__(self) -> None:
        super().__init__()
        values = (os.environ.get(name, "") for name in SECRETS)
        self._replacements = {value: "***" for value in values if len(value) > 3}

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact `record`. False for a record that only the screen shows."""
        logged = getattr(record, "log_as", None)
        message = record.getMessage() if logged is None else logged
        details: Mapping[str, Any] = getattr(record, "details", {})
        if not message and not details:
            return False
        error = record.exc_info[1] if record.exc_info else None
        for name in (*_names_in(error), *_values_of(details.get("settings"))):
            if _may_be_film(name):
                self._replacements[name] = "<film>"
        fields: dict[str, Any] = {"message": message} if message else {}
        fields |= details
        if error is not None:
            fields["traceback"] = "".join(traceback.format_exception(error))
        record.fields = {name: self._redacted(value) for name, value in fields.items()}
        return True

    def _redacted(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: self._redacted(part) for name, part in value.items()}
        if not isinstance(value, str):
            return value
        for text in sorted(self._replacements, key=len, reverse=True):
            value = value.replace(text, self._replacements[text])
        return USER_IN_URL.sub("://***@", _FILM.sub("<film>", value))


class JsonLine(logging.Formatter):
    """One JSON object: time, event, job, run, process, and the redacted fields."""

    def __init__(self, job: str) -> None:
        super().__init__()
        # The number of a process repeats in containers, so each run has a name of its own.
        self._of_run = {"job": job, "run": secrets.token_hex(4), "pid": os.getpid()}

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record that passed `Redaction`."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        event = getattr(record, "event", _EVENTS.get(record.levelno, "note"))
        fields: dict[str, Any] = getattr(record, "fields", {})
        line = {"time": moment.replace("+00:00", "Z"), "event": event, **self._of_run, **fields}
        return json.dumps(line, ensure_ascii=False)


class JobLog(logging.Handler):
    """Appends the lines of one run, and rotates the file; several processes may share it.

    Lines wait in memory while RUNS_DIR does not exist: wrong usage makes no folder. A log that
    cannot be written costs one complaint, never the job.
    """

    def __init__(self, job: str, runs_dir: Path, complain: Callable[[str], None]) -> None:
        super().__init__()
        self.path = runs_dir / "logs" / f"{job}.jsonl"
        self._runs_dir, self._complain = runs_dir, complain
        self._waiting = b""
        self._began = time.monotonic()
        self._broken = False
        self.setFormatter(JsonLine(job))
        self.addFilter(Redaction())

    def start(self, settings: Mapping[str, str]) -> None:
        """Log that the run begins, with its settings that are not the defaults."""
        self.write("start", version=__version__, settings=dict(settings))

    def end(self, exit_code: int, summary: str) -> None:
        """Log that the run is over; `summary` is the last line that it printed.

        RUNS_DIR is created here if it does not exist, except after wrong usage.
        """
        if exit_code != ExitCode.WRONG_USAGE:
            self._attempt(lambda: self._runs_dir.mkdir(exist_ok=True))
        seconds = round(time.monotonic() - self._began, 3)
        self.write("end", exit_code=int(exit_code), seconds=seconds, summary=summary)

    def write(self, event: str, **details: Any) -> None:
        """Log an event that has fields instead of a message."""
        record = LOGGER.makeRecord(
            LOGGER.name,
            logging.INFO,
            "",
            0,
            "",
            (),
            None,
            extra={"event": event, "details": details},
        )
        self.handle(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Append the line of `record`, and those that waited."""
        if self._broken:
            return
        self._waiting += self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        if self._runs_dir.is_dir():
            self._attempt(self._append_waiting)

    def _append_waiting(self) -> None:
        self.path.parent.mkdir(exist_ok=True)
        with FileLock(self.path.parent / ".lock"):
            if _is_large(self.path):
                _rotate(self.path)
            _append(self.path, self._waiting)
        self._waiting = b""

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except (OSError, NotImplementedError) as error:  # the latter: no locks on this share
            self._broken = True
            reason = getattr(error, "strerror", None) or error
            self._complain(f"no log is written, {self.path}: {reason}. The job goes on.")


def runs_dir_of(argv: Sequence[str]) -> Path:
    """RUNS_DIR from the flag, the environment or the default.

    It is read before the flags are checked, so that a typo is logged as well.
    """
    for flag, value in pairwise(part for word in argv for part in word.split("=", 1)):
        if flag in ("--runs_dir", "--runs-dir"):
            return Path(value).expanduser()
    return Path(os.environ.get("RUNS_DIR") or "runs").expanduser()


def _names_in(error: BaseException | None) -> Iterator[str]:
    """File names of an error and of what caused it."""
    while error:
        if isinstance(error, OSError):
            yield from (str(name) for name in (error.filename, error.filename2) if name)
        error = error.__cause__ or error.__context__


def _values_of(settings: Any) -> list[str]:
    return list(settings.values()) if isinstance(settings, Mapping) else []


def _may_be_film(text: str) -> bool:
    path = Path(text)
    try:
        return bool(re.search(f"{_SUFFIX}$", text, re.IGNORECASE)) or (
            path.suffix.lower() not in OUTPUT_SUFFIXES and path.is_file()
        )
    except OSError:  # too long for a name
        return False


def _is_large(path: Path) -> bool:
    return path.exists() and path.stat().st_size >= LARGEST


def _rotate(path: Path) -> None:
    """Move <job>.jsonl to .1, .1 to .2 and so on; the oldest is overwritten."""
    names = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, KEPT + 1))]
    for newer, older in reversed(list(pairwise(names))):
        if newer.exists():
            os.replace(newer, older)


def _append(path: Path, lines: bytes) -> None:
    """Write whole lines. A line that a full disk left unfinished is ended first."""
    with open(path, "ab+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        unfinished = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
        content = b"\n" * unfinished + lines
        if file.write(content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
