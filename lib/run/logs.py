"""The log of a job: RUNS_DIR/logs/<job>.jsonl, a JSON object per line, in UTC, without credentials
or names of films.

A film's name may be a patient's, so the log says `<film>`: the manifest and the table of
predictions name the file and its problem. Folders are kept: whoever runs the job chose them.
"""

import errno
import fcntl
import json
import os
import re
import secrets
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from lib import __version__
from lib.run.errors import WRONG_USAGE

LARGEST = 5_000_000  # bytes of one file: 10,000 nights, or a week of a run each minute
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
OURS = {
    ".bin",
    ".csv",
    ".f16",
    ".html",
    ".json",
    ".jsonl",
    ".npz",
    ".parquet",
    ".partial",
    ".pt",
    ".pth",
    ".safetensors",
    ".xml",
}
_ENDINGS = r"\.(?:png|jpe?g|jpe|tiff?|bmp|webp|jp2|j2k|p[gpn]m|gif|dcm|dicom|ima)\b"
_FILM = re.compile(
    rf"'[^'\n]*{_ENDINGS}'|\"[^\"\n]*{_ENDINGS}\"|[^\s'\"]*/[^/\n'\"]*?{_ENDINGS}|[^\s'\"(),;]+{_ENDINGS}",
    re.IGNORECASE,
)
_USER_IN_ADDRESS = re.compile(r"://(?:[^/\s@]+|[^/\s@:]*:[^\s@]*)@")  # a password may hold a slash


class JobLog:
    """Appends what one run of a job has to say. A log that cannot be written is complained about
    once, then left alone.
    """

    def __init__(self, job: str, runs_dir: Path, complain: Callable[[str], None]) -> None:
        self.path = runs_dir / "logs" / f"{job}.jsonl"
        self._runs_dir = runs_dir
        self._waiting = b""
        self._complain = complain
        self._same = {
            "job": job,
            "run": secrets.token_hex(4),
            "pid": os.getpid(),
        }  # pids repeat in containers
        self._began = time.monotonic()
        self._hidden = {
            os.environ[name]: "***" for name in SECRETS if len(os.environ.get(name, "")) > 3
        }
        self._broken = False

    def start(self, settings: Mapping[str, str]) -> None:
        """The run begins, with these non-default settings."""
        self._hidden |= {text: "<film>" for text in settings.values() if _is_film(text)}
        self.write(
            "start",
            version=__version__,
            settings={name: self._discreet(text) for name, text in settings.items()},
        )

    def failure(self, message: str, error: BaseException | None = None) -> None:
        """Why the run ends, with the traceback of `error`: the one place that keeps it."""
        link = error
        while link:
            names = (link.filename, link.filename2) if isinstance(link, OSError) else ()
            self._hidden |= {str(name): "<film>" for name in names if name and _is_film(str(name))}
            link = link.__cause__ or link.__context__
        told = (
            {"traceback": self._discreet("".join(traceback.format_exception(error)))}
            if error
            else {}
        )
        self.write("failure", message=message, **told)

    def end(self, exit_code: int, summary: str) -> None:
        """The run is over; `summary` is the last line that it printed. Makes RUNS_DIR, but never
        for wrong usage.
        """
        if exit_code != WRONG_USAGE:
            self._try(lambda: self._runs_dir.mkdir(exist_ok=True))
        self.write(
            "end",
            exit_code=exit_code,
            seconds=round(time.monotonic() - self._began, 3),
            summary=summary,
        )

    def write(self, event: str, **fields: Any) -> None:
        """Append one line. Lines wait in memory where RUNS_DIR does not exist: wrong usage makes no
        folders.
        """
        if self._broken:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        told = {
            name: self._discreet(value) if name in ("message", "summary") else value
            for name, value in fields.items()
        }
        line = json.dumps({"time": now, "event": event, **self._same, **told}, ensure_ascii=False)
        self._waiting += line.encode("utf-8", "backslashreplace") + b"\n"
        if self._runs_dir.is_dir():
            self._try(self._flush)

    def _flush(self) -> None:
        self.path.parent.mkdir(exist_ok=True)
        with open(
            self.path.parent / ".lock", "w"
        ) as lock:  # two processes take turns; the kernel frees it for the dead
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_large(self.path):
                _rotate(self.path)
            _append(self.path, self._waiting)
        self._waiting = b""

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            self._broken = True
            self._complain(
                f"no log is written, {self.path}: {error.strerror or error}. The job goes on."
            )

    def _discreet(self, text: str) -> str:
        for hidden in sorted(self._hidden, key=len, reverse=True):
            text = text.replace(hidden, self._hidden[hidden])
        return _USER_IN_ADDRESS.sub("://***@", _FILM.sub("<film>", text))


def runs_dir_of(argv: Sequence[str]) -> Path:
    """RUNS_DIR as a flag, the environment or the default says; read before flags are checked, so
    that a typo is logged.
    """
    for flag, value in pairwise(part for word in argv for part in word.split("=", 1)):
        if flag in ("--runs_dir", "--runs-dir"):
            return Path(value).expanduser()
    return Path(os.environ.get("RUNS_DIR") or "runs").expanduser()


def _is_film(text: str) -> bool:
    path = Path(text)
    try:
        return bool(re.search(f"{_ENDINGS}$", text, re.IGNORECASE)) or (
            path.suffix.lower() not in OURS and path.is_file()
        )
    except OSError:  # a text too long for a name
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
    """Write whole lines; a line that a full disk has torn is ended first."""
    with open(path, "ab+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        torn = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
        whole = b"\n" * torn + lines
        if file.write(whole) < len(whole):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
