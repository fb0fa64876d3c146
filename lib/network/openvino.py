"""The one place that imports OpenVINO, with its telemetry switched off and one engine per process.

Importing `openvino` reports the import to its maker's analytics when the package openvino_telemetry
can be loaded. A job never phones home: that package is hidden from the import, and OpenVINO falls
back to its own stub.
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
    """The engine of this process, kept to its end.

    Each engine of its own puts a stack for signal handlers of its own into the calling thread.
    Engines that do not end in the reverse order of their making leave one behind that is freed
    memory: the next SIGTERM would crash the process.
    """
    return ov.Core()
