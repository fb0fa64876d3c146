"""Scores are computed from tables: nothing that computes them loads decoders or the engine."""

import subprocess
import sys

import pytest

from tests.conftest import environment

HEAVY = ("openvino", "PIL", "kornia_rs", "pydicom", "pebble", "torch", "matplotlib")


def _loaded(module: str) -> set[str]:
    """Which of `HEAVY` a fresh interpreter holds after importing `module`."""
    program = f"import {module}, sys; print(*sys.modules)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
    return set(HEAVY) & set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "lib.evaluation.metrics",
        "lib.evaluation.intervals",
        "lib.evaluation.evaluation",
        "lib.prediction.calibration",
    ],
)
def test_scores_are_computed_without_decoders_and_engine(module: str) -> None:
    assert _loaded(module) == set()


def test_the_check_sees_a_module_that_loads_them() -> None:
    assert {"PIL", "kornia_rs"} <= _loaded("lib.images.decode")
