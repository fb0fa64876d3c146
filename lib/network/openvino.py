"""The only module that imports OpenVINO: no telemetry, one engine per process.

`import openvino` sends a usage report if the package openvino_telemetry can be imported. Jobs must
not send anything: the package is hidden from the import, and OpenVINO falls back to its own stub.
"""

import functools
import sys
from types import ModuleType

_NOT_IMPORTABLE: ModuleType | None = None
sys.modules["openvino_telemetry"] = _NOT_IMPORTABLE  # type: ignore[assignment]  # documented: None makes the import fail

import openvino as ov  # noqa: E402
from openvino import opset13 as opset  # noqa: E402
from openvino._offline_transformations import apply_moc_transformations as simplify  # noqa: E402

__all__ = ["core", "opset", "ov", "simplify"]


@functools.cache
def core() -> ov.Core:
    """The engine of this process, kept until its end.

    Each engine installs an alternate signal stack in the calling thread. Engines that are destroyed
    in another order than the reverse of their creation leave a freed stack installed: the next
    SIGTERM would crash the process.
    """
    return ov.Core()
