"""OpenVINO without its telemetry, and signals that arrive after its models are gone."""

import subprocess
import sys

from tests.conftest import environment


def test_the_telemetry_package_cannot_be_loaded_and_openvino_works() -> None:
    code = (
        "from lib.network.openvino import ov; import sys; ov.Core(); "
        "assert sys.modules['openvino_telemetry'] is None; "
        "assert not any(name.startswith('openvino_telemetry.') for name in sys.modules); "
        "from openvino.tools.ovc.telemetry_utils import tm; assert 'stub' in tm.__name__"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)


def test_a_signal_that_comes_after_several_models_were_used_is_handled() -> None:
    code = (
        "import os, signal; from lib.network.openvino import core, opset, ov\n"
        "def model():\n"
        "    x = opset.parameter([1, 8])\n"
        "    return core().compile_model(ov.Model([opset.relu(x)], [x]), 'CPU')\n"
        "first, came = model(), []; second = model(); del first\n"
        "third = model(); del second, third\n"
        "signal.signal(signal.SIGTERM, lambda *_: came.append(1))\n"
        "os.kill(os.getpid(), signal.SIGTERM); assert came"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)
