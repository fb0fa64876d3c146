"""The verdict: a planted shortcut is found and named, an honest set is not accused."""

import pytest

from lib.evaluation.results import (
    BaselineScores,
    Estimate,
    Interval,
    LeftOutBaseline,
    LeftOutSource,
    Verdict,
)
from lib.evaluation.verdict import verdict

Rival = tuple[float, Interval | None]  # macro-F1, interval of the margin


def _verdict(model: float, interval: Interval, **rivals: Rival) -> Verdict:
    baselines = {
        name: BaselineScores(name, macro_f1, Estimate(model - macro_f1, margin))
        for name, (macro_f1, margin) in rivals.items()
    }
    return verdict(Estimate(model, interval), baselines, chance=1 / 3)


@pytest.mark.parametrize(
    ("baseline", "margin", "level"),
    [
        (0.99, (-0.01, 0.02), "shortcut"),
        (0.85, (-0.20, 0.25), "undecided"),
        (0.85, (0.05, 0.15), "confounded"),
        (0.40, (0.40, 0.60), "clear"),
    ],
)
def test_each_level_has_its_words(baseline: float, margin: Interval, level: str) -> None:
    found = _verdict(0.95, (0.9, 0.98), metadata=(baseline, margin), thumbnail=(0.35, (0.5, 0.7)))
    assert found.level == level
    assert f"{baseline:.3f}" in found.words


def test_a_thumbnail_that_is_not_beaten_does_not_prove_how_the_files_were_made() -> None:
    found = _verdict(0.9, (0.85, 0.95), metadata=(0.4, (0.3, 0.5)), thumbnail=(0.89, (-0.02, 0.05)))
    assert "sees no detail of a lung" in found.words
    assert "by properties of the files" not in found.words


def test_a_margin_without_an_interval_counts_as_not_beaten() -> None:
    found = _verdict(0.9, (0.85, 0.95), metadata=(0.4, None), thumbnail=(0.4, (0.3, 0.5)))
    assert found.level == "shortcut"


def test_a_model_that_guesses_is_said_to_guess() -> None:
    found = _verdict(
        0.33, (0.27, 0.42), metadata=(0.34, (-0.1, 0.1)), thumbnail=(0.31, (-0.1, 0.1))
    )
    assert found.level == "chance"
    assert found.share_without_lungs == 1
    assert "Nothing here shows that the model does better than guessing" in found.words


def test_a_guessing_model_beside_a_baseline_that_knows_the_classes_is_a_shortcut() -> None:
    found = _verdict(0.33, (0.27, 0.42), metadata=(1.0, (-0.7, -0.6)), thumbnail=(0.3, None))
    assert found.level == "shortcut"


def test_the_verdict_names_the_control_also_behind_a_better_baseline() -> None:
    rivals: dict[str, Rival] = {
        "thumbnail": (0.8, (0.1, 0.2)),
        "without_lung_box": (0.7, (0.15, 0.3)),
        "without_lung_mask": (0.6, (0.3, 0.4)),
    }
    found = _verdict(0.95, (0.9, 0.98), **rivals)
    control = (
        "What the same network scores without seeing a lung: a macro-F1 of 0.700 with the box "
        "around the lungs black, 0.600 with the lungs alone black."
    )
    assert control in found.words
    assert "A 32 x 32 thumbnail reaches" in found.words
    found = _verdict(0.95, (0.9, 0.98), **rivals | {"thumbnail": (0.6, (0.3, 0.4))})
    assert control not in found.words
    assert "The same network without seeing a lung" in found.words


def _left_out(area: float, interval: Interval | None, baseline: float = 0.5) -> LeftOutSource:
    margin = Estimate(area - baseline, (area - baseline - 0.1, area - baseline + 0.1))
    home = {"A": Estimate(0.96, (0.9, 0.99)), "B": Estimate(0.94, (0.9, 0.99))}
    return LeftOutSource(
        source="nih",
        films={"A": 100, "B": 100},
        training_films=500,
        phase="a",
        mean_auroc=Estimate(area, interval),
        auroc={"A": Estimate(area, interval), "B": Estimate(area, interval)},
        baselines={"thumbnail": LeftOutBaseline(baseline, {}, margin)},
        home_films=40,
        home=home,
        change={},
    )


@pytest.mark.parametrize(
    ("left_out", "level", "reason"),
    [
        (_left_out(0.90, (0.85, 0.94)), "clear", "trained with them 0.950. The model clearly"),
        (_left_out(0.55, (0.48, 0.62), 0.2), "confounded", "not clearly better than guessing"),
        (_left_out(0.60, None, 0.2), "confounded", "not clearly better than guessing"),
        (
            _left_out(0.80, (0.75, 0.85), 0.75),
            "confounded",
            "where a 32 x 32 thumbnail reaches 0.750",
        ),
        (_left_out(0.70, (0.65, 0.75)), "confounded", "loses more than half of what it gains"),
    ],
)
def test_a_clear_verdict_needs_sources_that_training_did_not_see(
    left_out: LeftOutSource, level: str, reason: str
) -> None:
    rivals = {
        name: BaselineScores(name, 0.4, Estimate(0.55, (0.4, 0.6)))
        for name in ("metadata", "thumbnail")
    }
    found = verdict(Estimate(0.95, (0.9, 0.98)), rivals, 1 / 3, [left_out])
    assert found.level == level
    assert reason in found.words
    assert found.words.startswith("Trained without nih, the model reaches a mean AUROC of 0.")


def test_a_source_that_was_left_out_never_makes_a_verdict_better() -> None:
    rivals = {"metadata": BaselineScores("metadata", 0.94, Estimate(0.01, (-0.01, 0.02)))}
    found = verdict(Estimate(0.95, (0.9, 0.98)), rivals, 1 / 3, [_left_out(0.9, (0.85, 0.94))])
    assert found.level == "shortcut"
