"""The only module that imports OpenVINO: no telemetry, one engine per process.

`import openvino` sends a usage report if the package openvino_telemetry can be imported. Jobs must
not send anything: the package is hidden from the import, and OpenVINO falls back to its own stub.
"""

import functools
import sys
from types import ModuleType

_NOT_IMPORTABLE: ModuleType | None = None
sys.modules["openvino_telemetry"] = _NOT_IMPORTABLE  # type: ignore[assignment]  # documented: None makes the import fail

import numpy as np  # noqa: E402
import openvino as ov  # noqa: E402
from openvino import opset13 as opset  # noqa: E402
from openvino._offline_transformations import apply_moc_transformations as simplify  # noqa: E402

# The bindings build a table of types at the first use of a tensor's data. They do it behind a lock
# whose holder lets go of the interpreter: a second thread that comes just then takes the
# interpreter, waits for the lock, and both stand still for ever. So the first use is here.
ov.Tensor(np.zeros(1, np.float32)).data[:]
ov.Tensor(ov.Type.u8, ov.Shape([1])).data[:]

__all__ = ["core", "opset", "ov", "simplify"]


@functools.cache
def core() -> ov.Core:
    """The engine of this process, kept until its end.

    Each engine installs an alternate signal stack in the calling thread. Engines that are destroyed
    in another order than the reverse of their creation leave a freed stack installed: the next
    SIGTERM would crash the process.
    """
    return ov.Core()
