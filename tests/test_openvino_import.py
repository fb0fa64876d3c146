"""OpenVINO without its telemetry."""

import subprocess
import sys

from tests.conftest import environment


def test_the_telemetry_package_cannot_be_loaded_and_openvino_works() -> None:
    code = (
        "from lib.openvino_import import ov; import sys; ov.Core(); "
        "assert sys.modules['openvino_telemetry'] is None; "
        "assert not any(name.startswith('openvino_telemetry.') for name in sys.modules); "
        "from openvino.tools.ovc.telemetry_utils import tm; assert 'stub' in tm.__name__"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)
