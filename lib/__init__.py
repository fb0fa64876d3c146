"""The library that the jobs share. docs/ARCHITECTURE.md lists its rooms and modules."""

import os

__version__ = "0.1.0"  # the only place; pyproject.toml and the image label read it

# Switch telemetry of libraries off, however a job is started; OpenVINO's: lib/network/openvino.py.
for _name in ("DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE"):
    os.environ.setdefault(_name, "1")
