"""A recorded training repeated on rows of the cache."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lib.network import checkpoints
from lib.network.choices import Phase
from lib.training.films import SplitFilms
from lib.training.folds import Folds, wanted_by
from lib.training.machines import Machines
from lib.training.plan import Overrides, plan_of
from lib.training.recipe import NotRepeatableError, _plan, recipe_of
from tests.training.plans import SETTINGS


@pytest.mark.parametrize("more", [{}, {"vary_acquisition": False}, {"crop": "lungs"}])
@pytest.mark.parametrize("phase", ["a", "b"])
def test_the_plan_in_config_json_is_read_as_it_was(phase: Phase, more: dict[str, Any]) -> None:
    plan = plan_of(phase, Overrides(epochs=3), **SETTINGS | more)
    recorded = {"plan": plan.resolved(2, "fp32")}
    assert _plan(recorded) == replace(plan, views=2, precision="fp32")


def test_a_setting_of_another_version_is_named() -> None:
    settings = plan_of("a", Overrides(), **SETTINGS).resolved(2, "fp32")
    with pytest.raises(NotRepeatableError, match=r"another version .* with mixing"):
        _plan({"plan": settings | {"mixing": True}})


def _checkpoint(chain: Path, phase: str) -> checkpoints.Checkpoint:
    return checkpoints.load(chain / "runs" / f"phase_{phase}" / "best_efficientnet_lite0.pt")


@pytest.mark.parametrize("phase", ["a", "b"])
def test_a_fold_of_all_films_ends_with_the_weights_of_the_training(chain: Path, phase: str) -> None:
    checkpoint = _checkpoint(chain, phase)
    recipe = recipe_of(chain / "runs", checkpoint.digest)
    split = SplitFilms.read(chain / "data")
    config = json.loads((chain / "runs" / f"phase_{phase}" / "config.json").read_text())
    folds = Folds(recipe, split, Machines(cpus=config["cores"]))  # they decide the last bits
    folds.fill(wanted_by(recipe, split), chain / "runs", 0)
    every = {part: range(len(films)) for part, films in split.films.items()}
    trained = folds.train(every, recipe)
    own = [
        tensor for name, tensor in checkpoint.state.items() if name.startswith(("last_", "head"))
    ]
    again = list(trained.layers.state_dict().values())
    assert all(
        torch.equal(one, other) for one, other in zip(own[-len(again) :], again, strict=True)
    )
    probabilities = trained.of_films(split.films["val"][:5])
    assert probabilities.sum(1) == pytest.approx(1, abs=1e-5)


def test_the_training_of_another_model_cannot_be_repeated(tmp_path: Path) -> None:
    with pytest.raises(NotRepeatableError, match="does not hold the training"):
        recipe_of(tmp_path, "0" * 64)
