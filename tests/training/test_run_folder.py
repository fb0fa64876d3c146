"""The identity of a run: what makes two runs the same; and what is known of an interrupted one."""

from pathlib import Path

import pytest

from lib.training.plan import Overrides, plan_of
from lib.training.run_folder import RunFolder, RunIdentity
from lib.training.starting_weights import StartingWeights
from tests.training.plans import SETTINGS


def test_a_run_without_a_cache_is_not_one_whose_cache_has_no_room() -> None:
    fingerprints = {
        RunIdentity(
            plan_of("a", Overrides(), cache=cache, **SETTINGS), "fp32", ("A", "B"), "split", "start"
        ).fingerprint(views=0)
        for cache in (True, False)
    }
    assert len(fingerprints) == 2


def _run_folder(runs_dir: Path) -> RunFolder:
    plan = plan_of("a", Overrides(), **SETTINGS)
    return RunFolder(runs_dir, RunIdentity(plan, "fp32", ("A", "B"), "split", "start"))


@pytest.mark.parametrize("views", [0, 3])
def test_an_interrupted_run_keeps_its_number_of_views_unless_it_is_given_up(
    tmp_path: Path, views: int
) -> None:
    assert _run_folder(tmp_path).views() is None
    _run_folder(tmp_path).begin(views, StartingWeights(), False, 1)
    assert _run_folder(tmp_path).views() == views
    assert _run_folder(tmp_path).views(restart=True) is None
