"""Datasets of Kaggle, brought by its own client into a cache of ours."""

import os
import re
import zipfile
from pathlib import Path

from lib.run import console
from lib.run.connection import describe_failure, without_credentials
from lib.run.errors import JobError
from lib.storage import atomic

# Bytes. Kaggle tells no size beforehand, and the archive and its films lie side by side.
ROOM_FOR_DOWNLOAD = 4_000_000_000


def download(handle: str, cache: Path) -> Path:
    """Download `OWNER/NAME[/versions/N]` into `cache` and return the folder of its files.

    A download that was cut goes on where it stopped, in this run and in the next. The newest
    complete cached version is taken when Kaggle is out of reach. Credentials are kagglehub's affair
    (KAGGLE_API_TOKEN, KAGGLE_USERNAME and KAGGLE_KEY, or kaggle.json in KAGGLE_CONFIG_DIR); public
    sets need none. They are never read or printed here.

    Raises:
        JobError: no network, no permission or no such dataset, with the ways around it.
    """
    cached = _cached_versions(handle, cache)
    if "/versions/" in handle and cached:
        return cached[-1]
    atomic.make_folder(cache)
    atomic.require_room(cache, ROOM_FOR_DOWNLOAD, "downloading and unpacking the dataset")
    os.environ["KAGGLEHUB_CACHE"] = str(cache.resolve())
    if os.environ.get("KAGGLE_JSON"):
        os.environ.setdefault(
            "KAGGLE_CONFIG_DIR", str(Path(os.environ["KAGGLE_JSON"]).expanduser().parent)
        )
    try:
        import requests

        # A silent network would hang kagglehub for minutes.
        requests.head("https://www.kaggle.com", timeout=10)
        return _download_with_resume(handle, cache)
    except Exception as error:
        reason = _describe(handle, error)
        if cached:
            console.warn(f"{reason} Using the cached copy {cached[-1]}.")
            return cached[-1]
        raise JobError(_refusal(handle, cache, reason)) from error


def _download_with_resume(handle: str, cache: Path) -> Path:
    """Ask kagglehub again as long as each attempt brings more, and once after a wrong checksum."""
    import kagglehub
    import requests
    from kagglehub.exceptions import DataCorruptionError

    was_damaged = False
    while True:
        before = _bytes_arrived(handle, cache)
        try:
            return Path(kagglehub.dataset_download(handle))
        except (
            requests.exceptions.ChunkedEncodingError,
            requests.exceptions.ConnectionError,
            requests.exceptions.Timeout,
        ):
            arrived = _bytes_arrived(handle, cache)
            if arrived <= before:
                raise
            console.warn(f"the connection broke off after {arrived / 1e6:.1f} MB; going on there.")
        except DataCorruptionError:
            if was_damaged:
                raise
            was_damaged = True
            console.warn("the archive arrived damaged (wrong checksum); downloading it again.")
        except (ValueError, zipfile.BadZipFile):
            for archive in _archives(handle, cache):
                archive.unlink()  # kagglehub would take it for complete for ever
            raise


def _archives(handle: str, cache: Path) -> list[Path]:
    """Archives of this dataset that kagglehub has begun to download and not yet unpacked."""
    return list((cache / "datasets" / handle.split("/versions/")[0]).rglob("*.archive"))


def _bytes_arrived(handle: str, cache: Path) -> int:
    return sum(archive.stat().st_size for archive in _archives(handle, cache))


def _cached_versions(handle: str, cache: Path) -> list[Path]:
    """Complete versions in kagglehub's layout: datasets/OWNER/NAME/versions/N beside the marker
    N.complete.
    """
    name, _, version = handle.partition("/versions/")
    home = cache / "datasets" / name
    markers = home.glob(f"{version}.complete" if version else "*.complete")
    numbers = sorted(int(marker.stem) for marker in markers if marker.stem.isdigit())
    return [
        home / "versions" / str(number)
        for number in numbers
        if (home / "versions" / str(number)).is_dir()
    ]


def _describe(handle: str, error: Exception) -> str:
    """One sentence: what went wrong, and what to do about it."""
    import requests

    if sentence := describe_failure(error):
        return f"Kaggle cannot be reached: {sentence}"
    response = getattr(error, "response", None)
    if response is not None:
        return _describe_status(handle, response.status_code, response.headers.get("Retry-After"))
    if type(error).__name__ == "DataCorruptionError":
        return (
            "The archive arrived damaged twice: its MD5 is not the one that Kaggle announced. "
            "Does a proxy change downloads?"
        )
    if isinstance(error, requests.exceptions.ChunkedEncodingError | requests.exceptions.Timeout):
        return (
            "The connection broke off; what arrived is kept, the same command goes on from there."
        )
    if isinstance(error, requests.exceptions.ConnectionError):
        return (
            f"Kaggle cannot be reached ({_short(error)}): is there a network, "
            "or a proxy (HTTPS_PROXY in .env)?"
        )
    if isinstance(error, ValueError | zipfile.BadZipFile):
        return (
            f"What arrived from Kaggle cannot be unpacked ({_short(error)}); "
            "it was deleted, try again."
        )
    return f"Kaggle's client failed: {type(error).__name__}: {_short(error)}."


def _describe_status(handle: str, status: int, retry_after: str | None) -> str:
    name = handle.split("/versions/")[0]
    later = f"in {retry_after} s" if retry_after else "in some minutes"
    sentences = {
        401: "Kaggle does not accept the credentials (401): make a new token on "
        "kaggle.com/settings and set KAGGLE_API_TOKEN in .env; a public set needs none.",
        403: f"Kaggle refuses access to {handle} (403): if it is private or has terms to accept, "
        f"do so on kaggle.com/datasets/{name}, and set KAGGLE_API_TOKEN in .env.",
        404: f"Kaggle has no dataset {handle} (404): check owner, name and version in --dataset.",
        429: "Kaggle asks to wait (429, too many requests): run the same command again "
        f"{later}; what arrived is kept.",
    }
    if status in sentences:
        return sentences[status]
    if status >= 500:
        return (
            f"Kaggle has a fault of its own ({status}): run the same command later; "
            "what arrived is kept."
        )
    return f"Kaggle answers {status} for {handle}, which this program does not know."


def _short(error: Exception) -> str:
    text = without_credentials(str(error)).split("(Caused by")[0].strip()
    return re.sub(r"\s+", " ", text)[:200] or type(error).__name__


def _refusal(handle: str, cache: Path, reason: str) -> str:
    ways = (
        ("make demo", "the whole chain on generated films, no network needed"),
        ("make all DATASET=folder:PATH", "films that are on this machine, in class folders"),
        ("a manual download", f"unpack kaggle.com/datasets/{handle.split('/versions/')[0]}"),
        ("", "anywhere, then make all DATASET=folder:THAT_FOLDER"),
        ("a colleague's cache", f"copy their {cache} folder here"),
        ("a private dataset", "KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY, in .env"),
    )
    lines = [f"  {way:<34}{what}" for way, what in ways]
    return "\n".join([f"cannot download {handle}. {reason}", "What to do instead:", *lines])
