"""Packages of the peers, in folders of their own: never in the project's environment."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

# By the name that is imported. Without dependencies: torch, numpy and the like are the project's.
REQUIREMENTS = {
    "fastai": (
        "fastai==2.8.12",
        "fastcore==2.2.41",
        "fastprogress<1.1",  # later ones need a web server
        *("fastdownload", "fasttransform", "plum-dispatch", "beartype"),
    ),
    "ultralytics": (
        "ultralytics==8.4.190",
        *("ultralytics-thop", "opencv-python-headless", "polars", "polars-runtime-32"),
        *("psutil", "requests"),
    ),
}


class NotInstalled(Exception):
    """The package is not there and cannot be brought."""


def folder_with(package: str, cache: Path, install: bool) -> Path | None:
    """The folder that has `package`, below `cache`; None: the environment has it.

    Raises:
        NotInstalled: with the reason in one line.
    """
    folder = cache / package
    if (folder / package).is_dir():
        return folder
    spec = importlib.util.find_spec(package)
    if spec and spec.origin:  # without: any folder of that name
        return None
    if not install:
        raise NotInstalled(f"{package} is not installed")
    partial = cache / f"{package}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--retries", "1"]
    done = subprocess.run(
        [*command, "--target", str(partial), *REQUIREMENTS[package]], capture_output=True, text=True
    )
    if done.returncode:
        shutil.rmtree(partial, ignore_errors=True)
        raise NotInstalled(f"{package} cannot be installed: {last_line(done.stderr)}")
    partial.rename(folder)
    return folder


def last_line(text: str) -> str:
    """The last line that says something, or its first 120 characters."""
    said = [line.strip() for line in text.splitlines() if line.strip()]
    return said[-1][:120] if said else "no reason"
