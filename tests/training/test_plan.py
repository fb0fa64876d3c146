"""Phases, their defaults, and flags that are refused together."""

import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from jobs.train import train
from lib.run.errors import UsageError
from lib.run.flags import parameters_of
from lib.training.plan import PHASES, Overrides, Plan, defaults_of, plan_of
from tests.training.plans import SETTINGS

ARCHITECTURE = Path(__file__).resolve().parents[2] / "docs" / "ARCHITECTURE.md"


def _plan(phase: Any = "a", overrides: Overrides | None = None, **settings: Any) -> Plan:
    return plan_of(phase, overrides or Overrides(), **{**SETTINGS, **settings})


def test_phase_a_trains_the_head_and_phase_b_the_last_block_from_phase_a() -> None:
    assert asdict(PHASES["a"]) == {
        "epochs": 5,
        "lr": 3e-4,
        "scheduler": "step",
        "freeze_backbone": True,
        "fine_tune_last_block": False,
        "resume_from_checkpoint": False,
    }
    assert asdict(PHASES["b"]) == {
        "epochs": 8,
        "lr": 5e-4,
        "scheduler": "cosine",
        "freeze_backbone": True,
        "fine_tune_last_block": True,
        "resume_from_checkpoint": True,
    }


def test_every_default_of_a_phase_can_be_overridden_by_a_flag_whose_help_names_it() -> None:
    names = [field.name for field in fields(PHASES["a"])]
    assert names == [field.name for field in fields(Overrides)]
    parameters = parameters_of(train)
    for name in names:
        assert parameters[name].optional
        assert defaults_of(name) in parameters[name].flag.help


def test_the_documented_table_of_the_phases_is_that_of_the_program() -> None:
    row = next(
        line for line in ARCHITECTURE.read_text().splitlines() if line.startswith("| defaults |")
    )
    for phase, cell in zip("ab", row.strip("| ").split(" | ")[1:], strict=True):
        documented = dict(pair.split("=") for pair in re.split(", ", cell))
        assert documented == {name: str(value) for name, value in asdict(PHASES[phase]).items()}  # type: ignore[index]


def test_a_flag_overrides_one_default() -> None:
    plan, changed = _plan("b"), _plan("b", Overrides(epochs=12))
    differing = {name for name, value in asdict(plan).items() if asdict(changed)[name] != value}
    assert differing == {"epochs"}


def test_an_unfrozen_phase_b_trains_everything_without_a_cache() -> None:
    plan = _plan("b", Overrides(freeze_backbone=False))
    assert not plan.fine_tune_last_block
    assert not plan.cached


@pytest.mark.parametrize(
    ("overrides", "settings", "message"),
    [
        (
            Overrides(freeze_backbone=False, fine_tune_last_block=True),
            {},
            "already trains the whole network",
        ),
        (Overrides(), {"checkpoint_path": Path("x.pt")}, "--resume_from_checkpoint"),
        (Overrides(), {"cache": False, "precision": "bf16"}, "give --precision fp32 or auto"),
        (Overrides(freeze_backbone=False), {"precision": "bf16"}, "--cache on"),
        (Overrides(), {"precision": "int8"}, "for predict_batch and evaluate"),
        (Overrides(), {"cache": False, "cluster": "auto"}, "--cluster auto"),
        (Overrides(), {"cache": False, "views": 2}, "--views 2"),
        (Overrides(), {"cluster": "head:10001"}, "ray://HEAD:10001"),
    ],
)
def test_flags_that_contradict_each_other_or_would_be_ignored_are_refused(
    overrides: Overrides, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        _plan("a", overrides, **settings)


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_without_a_cache_the_precision_is_fp32(precision: str) -> None:
    assert _plan(cache=False, precision=precision).precision == "fp32"


def test_the_settings_of_a_run_have_the_views_and_the_precision_in_use() -> None:
    settings = _plan(precision="auto").resolved(3, "bf16")
    assert settings["views"] == 3
    assert settings["precision"] == "bf16"
    assert set(settings) == {field.name for field in fields(Plan)} - {
        "cached",
        "crop",
        "even_exposure",
        "film_side",
    }


def test_the_crop_is_a_setting_of_a_run_only_where_there_is_one() -> None:
    assert "crop" not in _plan(crop="none").resolved(3, "bf16")
    assert "film_side" not in _plan(crop="none").resolved(3, "bf16")
    settings = _plan(crop="lungs", film_side=300).resolved(3, "bf16")
    assert (settings["crop"], settings["film_side"]) == ("lungs", 300)


def test_exposure_is_made_even_only_where_the_lungs_are_known() -> None:
    assert "even_exposure" not in _plan(crop="none").resolved(3, "bf16")
    assert _plan(crop="lungs").resolved(3, "bf16")["even_exposure"]
    assert "even_exposure" not in _plan(crop="lungs", even_exposure=False).resolved(3, "bf16")
