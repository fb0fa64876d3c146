"""What a run of predict_batch is asked for."""

import numpy as np
import pytest

from lib.prediction.classes import ABNORMAL
from lib.prediction.request import OperatingRule
from lib.prediction.triage import Code, Triage, _require_class
from lib.run.errors import JobError, UsageError

CLASSES = ("NORMAL", "PNEUMONIA", "TUBERCULOSIS")


def test_a_threshold_names_its_class() -> None:
    assert OperatingRule.of("", "TUBERCULOSIS=0.31") == OperatingRule("TUBERCULOSIS", 0.31)
    assert OperatingRule.of("", "A=B=0") == OperatingRule("A=B", 0.0)
    assert OperatingRule.of("TUBERCULOSIS", "") == OperatingRule("TUBERCULOSIS", None)
    assert OperatingRule.of("", "") == OperatingRule()


@pytest.mark.parametrize("text", ["0.31", "=0.31", "TUBERCULOSIS", "TB=31%", "TB=1.2", "TB=nan"])
def test_a_threshold_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="of the form CLASS=X"):
        OperatingRule.of("", text)


def test_a_given_and_a_stored_threshold_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        OperatingRule.of("TUBERCULOSIS", "TUBERCULOSIS=0.31")


@pytest.mark.parametrize(
    ("positive", "threshold", "chosen"),
    [("TUBERCULOSIS", 0.3, 2), ("TUBERCULOSIS", 0.31, 0), (ABNORMAL, 0.5, 2), (ABNORMAL, 0.6, 0)],
)
def test_a_given_threshold_needs_no_calibration(
    positive: str, threshold: float, chosen: int
) -> None:
    triage = Triage(CLASSES, operating_point=positive, threshold=threshold)
    assert triage.choose(np.array([0.45, 0.25, 0.3])) == chosen


def test_a_film_just_below_a_given_threshold_asks_for_a_review() -> None:
    triage = Triage(CLASSES, operating_point="TUBERCULOSIS", threshold=0.5)
    codes = [
        [reason.code for reason in triage._of_threshold(np.array([1 - value, 0, value]))]
        for value in (0.2, 0.3, 0.5)
    ]
    assert codes == [[], [Code.NEAR_THRESHOLD], []]


def test_a_threshold_for_a_class_that_the_model_does_not_know_is_refused() -> None:
    with pytest.raises(JobError, match="this model knows NORMAL, PNEUMONIA"):
        _require_class(CLASSES, "CANCER")
