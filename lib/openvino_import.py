"""The one place that imports OpenVINO, with its telemetry switched off.

Importing `openvino` reports the import to its maker's analytics when the package openvino_telemetry can be loaded.
A job never phones home: that package is hidden from the import, and OpenVINO falls back to its own stub.
"""

import sys
from types import ModuleType

_NOT_IMPORTABLE: ModuleType | None = None
sys.modules["openvino_telemetry"] = _NOT_IMPORTABLE  # type: ignore[assignment]  # documented: None makes the import fail

import openvino as ov  # noqa: E402
from openvino import opset13 as opset  # noqa: E402
from openvino._offline_transformations import apply_moc_transformations as simplify  # noqa: E402

__all__ = ["opset", "ov", "simplify"]
