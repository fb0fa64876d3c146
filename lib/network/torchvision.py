"""The only module that imports torchvision, also where its wheel does not match the torch build.

The default torchvision wheel is linked against CUDA. With a CPU-only torch its native operators do
not load, and `import torchvision` fails with "operator torchvision::nms does not exist", because it
registers a fake kernel for an undeclared operator. The program uses no detection operators, so it
is enough to declare their schemas. Where the native operators load, nothing is declared.
"""

import importlib.util
from pathlib import Path
from typing import Any

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: Any = None  # keeps the declarations alive: they vanish with the library object


def _prepare() -> None:
    """Declare the missing schemas once, if the native operators do not load."""
    global _declared
    if _declared is not None or _native_operators_load():
        return
    _declared = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        _declared.define(schema)


def _native_operators_load() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "torchvision is not installed: pip install -r requirements-torch.txt"
        )
    library = next(Path(spec.origin).parent.glob("_C*.so"), None)
    if library is None:
        return False
    try:
        torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
        return True
    except OSError:
        return False


_prepare()

import torchvision  # noqa: E402
import torchvision.transforms.v2  # noqa: E402

__all__ = ["torchvision"]
