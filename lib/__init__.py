"""What the five jobs share. A module knows one thing; imports go downwards: docs/ARCHITECTURE.md
has the floors.
"""

import os

__version__ = "0.1.0"  # pyproject.toml says the same; the image holds no pyproject.toml

# No library reports its use, whichever way a job is started. OpenVINO's reports end in
# lib/network/openvino.py.
for _name in ("DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE"):
    os.environ.setdefault(_name, "1")
