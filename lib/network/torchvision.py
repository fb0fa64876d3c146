"""The one place that imports torchvision: it works even where its wheel and the CPU build of torch
do not belong together.

The registry's torchvision wheel is linked against CUDA. Beside a CPU-only torch its native
operators cannot load, and `import torchvision` dies with "operator torchvision::nms does not exist"
because it registers a fake kernel for an operator that nobody declared. Nothing here uses detection
operators, so declaring their schemas is enough. Where the native operators do load, nothing is
declared.
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
    """Declare the missing schemas, once, and only when the native operators cannot load."""
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
