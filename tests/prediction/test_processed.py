"""Contents that earlier runs have classified, and failures that may pass."""

import errno
import os
import time
from pathlib import Path

import pytest

from lib.images.inputs import Folder
from lib.prediction.processed import ATTEMPTS, Seen, may_pass
from lib.workers.processes import map_isolated
from tests.conftest import film


def _lost(_: float, reason: str) -> str:
    return reason


def test_a_content_whose_failure_may_pass_is_tried_again_and_not_for_ever(tmp_path: Path) -> None:
    film(tmp_path / "in/a.png", seed=1)
    film(tmp_path / "in/b.png", seed=2)
    place = Folder.of(tmp_path / "in", [])
    tries = []
    for _ in range(ATTEMPTS + 1):
        seen = Seen(tmp_path / "seen.sqlite")
        tries.append(seen.unseen(place, 1))
        seen.record(place, ["b.png"] if "b.png" in tries[-1] else [])
    assert tries == [["a.png", "b.png"], ["b.png"], ["b.png"], []]


def test_a_file_that_took_too_long_may_pass() -> None:
    (error,) = map_isolated(time.sleep, _lost, [30.0], 1, 0.2)
    assert may_pass(str(error))


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (f"damaged or unreadable: {os.strerror(errno.EIO)}", True),
        ("reading it was killed, most likely for want of memory", True),
        ("decoding it takes more memory than a film needs", True),
        ("damaged or unreadable: image file is truncated", False),
        ("file is empty", False),
        ("", False),
    ],
)
def test_only_time_memory_and_input_output_may_pass(error: str, passes: bool) -> None:
    assert may_pass(error) == passes
