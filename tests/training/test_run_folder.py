"""The identity of a run: what makes two runs the same."""

from lib.training.plan import Overrides, plan_of
from lib.training.run_folder import RunIdentity
from tests.training.plans import SETTINGS


def test_a_run_without_a_cache_is_not_one_whose_cache_has_no_room() -> None:
    fingerprints = {
        RunIdentity(
            plan_of("a", Overrides(), cache=cache, **SETTINGS), "fp32", ("A", "B"), "split", "start"
        ).fingerprint(views=0)
        for cache in (True, False)
    }
    assert len(fingerprints) == 2
