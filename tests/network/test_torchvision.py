"""torchvision beside any build of torch."""

import numpy as np
import pytest
import torch
from PIL import Image

from lib.network import torchvision as loader
from lib.network.torchvision import torchvision


def test_everything_we_use_works() -> None:
    image = Image.fromarray(np.full((32, 32), 100, dtype=np.uint8))
    bright = torchvision.transforms.v2.functional.adjust_brightness(image, 2.0)
    assert int(np.asarray(bright)[0, 0]) == 200
    assert torchvision.models.get_model("resnet18", weights=None).eval()(
        torch.zeros(1, 3, 32, 32)
    ).shape == (1, 1000)


def test_the_schemas_exist_whoever_declared_them() -> None:
    assert torch.ops.torchvision.nms.default
    assert (loader._declared is None) == loader._native_operators_load()


def test_where_the_native_operators_load_nothing_is_declared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loader, "_declared", None)
    monkeypatch.setattr(loader, "_native_operators_load", lambda: True)
    loader._prepare()
    assert loader._declared is None
