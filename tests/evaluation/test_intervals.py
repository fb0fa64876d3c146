"""Intervals cover what they promise; paired differences."""

import numpy as np
import pytest
from scipy.stats import norm

from lib.evaluation import intervals, scoring
from lib.evaluation.predictions import Floats, LabelledPredictions
from lib.evaluation.results import Estimate
from tests.evaluation.conftest import CLASSES, draw


@pytest.mark.simulation
def test_the_interval_covers_the_true_accuracy_in_93_to_97_percent_of_simulated_studies() -> None:
    """600 studies of 150 patients with two films each: a patient's films are right or wrong
    together.
    """
    covered = 0
    for study in range(600):
        generator = np.random.default_rng(study)
        right = np.repeat(generator.random(150) < 0.8, 2)
        groups = np.repeat(np.arange(150), 2)

        def accuracy(weights: Floats, right: np.ndarray = right) -> scoring.Arrays:
            return {"accuracy": weights @ right / weights.sum(axis=1)}

        found = intervals.interval(intervals.bootstrap(groups, accuracy, study, 1000)["accuracy"])
        assert found is not None
        covered += found[0] <= 0.8 <= found[1]
    assert 0.93 <= covered / 600 <= 0.97


@pytest.mark.simulation
def test_the_interval_covers_the_true_auroc_of_a_class_of_twelve_films() -> None:
    """600 studies of 12 positives and 80 negatives, whose scores are normal and 1.5 apart."""
    covered, studies, true = 0, 600, float(norm.cdf(1.5 / np.sqrt(2)))
    positive = np.arange(92) < 12
    for study in range(studies):
        score = np.random.default_rng(study).normal(size=92) + 1.5 * positive
        point = float(scoring.auroc(positive, score, np.ones((1, 92)))[0])

        def area(weights: Floats, score: np.ndarray = score) -> scoring.Arrays:
            return {"auroc": scoring.auroc(positive, score, weights)}

        found = intervals.area_interval(
            point, intervals.bootstrap(np.arange(92), area, study, 400)["auroc"], 12
        )
        assert found is not None
        covered += found[0] <= true <= found[1]
    assert 0.93 <= covered / studies <= 0.97


@pytest.mark.simulation
@pytest.mark.parametrize(
    ("patients", "per_patient", "true"), [(33, 1, 0.9), (33, 1, 0.95), (100, 2, 0.9)]
)
def test_the_interval_covers_the_true_sensitivity_of_few_films(
    patients: int, per_patient: int, true: float
) -> None:
    """1,000 studies; the films of a patient are found or missed together. Discrete: 98 % is as near
    as 33 films come.
    """
    covered, groups = 0, np.repeat(np.arange(patients), per_patient)
    for study in range(1000):
        found = np.repeat(np.random.default_rng(study).random(patients) < true, per_patient)

        def share(weights: Floats, found: np.ndarray = found) -> scoring.Arrays:
            return {"share": weights @ found / weights.sum(axis=1)}

        values = intervals.bootstrap(groups, share, study, 400)["share"]
        low, high = intervals.share_interval(float(found.mean()), values, patients) or (1, 0)
        covered += low <= true <= high
    assert 0.93 <= covered / 1000 <= 0.985


@pytest.mark.parametrize("films", [(1, 1, 1), (10, 10, 2)])
def test_a_perfect_model_has_a_bound_also_where_a_class_is_too_small_for_a_bootstrap(
    films: tuple[int, ...],
) -> None:
    targets = np.repeat([0, 1, 2], films)
    found = intervals.estimate_scores(
        LabelledPredictions(targets, targets, np.eye(3)[targets], targets.astype(str), CLASSES), 0
    )
    assert found.macro_f1.interval == pytest.approx((0.025, 1.0))
    names = np.arange(len(targets)).astype(str)
    found = intervals.estimate_scores(
        LabelledPredictions(targets, targets, np.eye(3)[targets], names, CLASSES), 0
    )
    assert found.macro_f1.interval == pytest.approx(
        (np.mean([0.025 ** (1 / count) for count in films]), 1.0)
    )


def test_a_perfect_model_keeps_a_bound_drawn_from_its_smallest_class_and_is_not_called_chance() -> (
    None
):
    targets = np.repeat([0, 1], [57, 3])
    perfect = LabelledPredictions(
        targets, targets, np.eye(2)[targets], np.arange(60).astype(str), ("A", "B")
    )
    found = intervals.estimate_scores(perfect, 0)
    for name, patients in (("A", 57), ("B", 3)):
        for what in ("precision", "recall", "f1"):
            assert getattr(found.per_class[name], what).interval == pytest.approx(
                (0.025 ** (1 / patients), 1.0)
            )
    assert found.per_class["A"].auroc.interval == pytest.approx((0.025 ** (1 / 3), 1.0))
    low, high = found.macro_f1.interval or (0, 0)
    assert 0.5 < low < high == 1


def test_a_handful_of_patients_has_no_interval() -> None:
    films = draw(40, 6, per_group=10)
    assert intervals.estimate_scores(films, 0).accuracy.interval is None


def test_films_of_one_patient_do_not_narrow_the_interval() -> None:
    def width(per_group: int) -> float:
        films = draw(300 // per_group, 1)
        repeated = LabelledPredictions(
            np.repeat(films.targets, per_group),
            np.repeat(films.predicted, per_group),
            np.repeat(films.probabilities, per_group, axis=0),
            np.repeat(films.groups, per_group),
            CLASSES,
        )
        low, high = intervals.estimate_scores(repeated, 0).accuracy.interval or (0, 0)
        return high - low

    assert width(5) > 1.8 * width(1)


def test_shuffled_labels_give_intervals_that_cover_chance() -> None:
    films = draw(600, 2, skill=0.0)
    found = intervals.estimate_scores(films, 0)
    for name in CLASSES:
        low, high = found.per_class[name].auroc.interval or (1, 0)
        assert low < 0.5 < high
    low, high = found.accuracy.interval or (1, 0)
    assert low < 1 / 3 < high


def test_a_rate_without_a_single_error_has_an_exact_bound() -> None:
    found = intervals.rate_interval(np.ones(1000), groups=60)
    assert found is not None
    assert found[0] == pytest.approx(0.025 ** (1 / 60))
    assert found[1] == 1.0


def test_the_difference_of_a_run_with_itself_is_nothing_and_of_a_better_one_is_seen() -> None:
    worse, better = draw(400, 3, skill=1.0), draw(400, 3, skill=3.0)
    assert intervals.compare_scores(worse, worse, 0).accuracy == Estimate(0.0, (0.0, 0.0))
    difference = intervals.compare_scores(worse, better, 0).accuracy
    assert difference.interval is not None
    assert 0 < difference.interval[0] < (difference.value or 0) < difference.interval[1]


def test_a_class_without_films_has_no_interval() -> None:
    films = draw(50, 4)
    without = LabelledPredictions(
        np.zeros(50, int), films.predicted, films.probabilities, films.groups, CLASSES
    )
    found = intervals.estimate_scores(without, 0)
    assert found.per_class["B"].recall.interval is None
    assert found.per_class["A"].auroc.interval is None


def test_resamples_do_not_depend_on_how_many_are_held_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    groups = np.array([f"patient {number // 3}" for number in range(90)])

    def drawn() -> np.ndarray:
        return intervals.bootstrap(groups, lambda weights: {"weights": weights}, 5, 50)["weights"]

    kept = drawn()
    assert (kept.sum(axis=1) == 90).all()
    monkeypatch.setattr(intervals, "_DRAWS_KEPT", 0)
    monkeypatch.setattr(intervals, "_WEIGHTS_AT_A_TIME", 1000)
    assert np.array_equal(drawn(), kept)
