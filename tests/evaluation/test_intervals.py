"""Intervals: the scores are scikit-learn's, and the intervals cover what they promise."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from sklearn import metrics as sk

from lib.evaluation import intervals
from lib.evaluation.intervals import Answers

CLASSES = ("A", "B", "C")


def _answers(films: int, seed: int, skill: float = 2.0, per_group: int = 1) -> Answers:
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, 3, films)
    logits = (
        generator.normal(size=(films, 3)).round(1) + skill * np.eye(3)[targets]
    )  # rounded: there are ties
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    groups = np.array([f"g{number // per_group}" for number in range(films)])
    return Answers(targets, probabilities.argmax(axis=1), probabilities, groups, CLASSES)


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_scikit_learn_also_with_weights(seed: int) -> None:
    answers = _answers(300, seed)
    weights = np.random.default_rng(seed).integers(0, 4, (3, 300)).astype(float)
    found = intervals.scores(answers, weights)
    labels: dict[str, Any] = {"labels": [0, 1, 2], "zero_division": 0}
    for row, weight in enumerate(weights):
        arguments = (answers.targets, answers.predicted)
        precision, recall, f1, _ = sk.precision_recall_fscore_support(
            *arguments, sample_weight=weight, **labels
        )
        assert found["accuracy"][row] == pytest.approx(
            sk.accuracy_score(*arguments, sample_weight=weight), abs=1e-9
        )
        assert found["macro_f1"][row] == pytest.approx(f1.mean(), abs=1e-9)
        for number, name in enumerate(CLASSES):
            positive, score = answers.targets == number, answers.probabilities[:, number]
            values = (
                precision[number],
                recall[number],
                f1[number],
                sk.roc_auc_score(positive, score, sample_weight=weight),
            )
            for what, value in zip(("precision", "recall", "f1", "auroc"), values, strict=True):
                assert found[f"{what}.{name}"][row] == pytest.approx(value, abs=1e-9)
            negatives = sk.recall_score(
                ~positive, answers.predicted != number, sample_weight=weight
            )
            assert found[f"specificity.{name}"][row] == pytest.approx(negatives, abs=1e-9)
        one_hot = ((answers.probabilities - np.eye(3)[answers.targets]) ** 2).sum(axis=1)
        assert found["brier"][row] == pytest.approx(np.average(one_hot, weights=weight), abs=1e-9)


def test_the_interval_covers_the_true_accuracy_in_93_to_97_percent_of_simulated_studies() -> None:
    """600 studies of 150 patients with two films each: a patient's films are right or wrong
    together.
    """
    covered = 0
    for study in range(600):
        generator = np.random.default_rng(study)
        right = np.repeat(generator.random(150) < 0.8, 2)
        groups = np.repeat(np.arange(150), 2)

        def accuracy(weights: np.ndarray, right: np.ndarray = right) -> intervals.Scores:
            return {"accuracy": weights @ right / weights.sum(axis=1)}

        found = intervals.interval(intervals.bootstrap(groups, accuracy, study, 1000)["accuracy"])
        assert found is not None
        covered += found[0] <= 0.8 <= found[1]
    assert 0.93 <= covered / 600 <= 0.97


def test_the_interval_covers_the_true_auroc_of_a_class_of_twelve_films() -> None:
    """600 studies of 12 positives and 80 negatives, whose scores are normal and 1.5 apart."""
    covered, studies, true = 0, 600, float(norm.cdf(1.5 / np.sqrt(2)))
    positive = np.arange(92) < 12
    for study in range(studies):
        score = np.random.default_rng(study).normal(size=92) + 1.5 * positive
        point = float(intervals.auroc(positive, score, np.ones((1, 92)))[0])

        def area(weights: np.ndarray, score: np.ndarray = score) -> intervals.Scores:
            return {"auroc": intervals.auroc(positive, score, weights)}

        found = intervals.area_interval(
            point, intervals.bootstrap(np.arange(92), area, study, 400)["auroc"], 12
        )
        assert found is not None
        covered += found[0] <= true <= found[1]
    assert 0.93 <= covered / studies <= 0.97


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

        def share(weights: np.ndarray, found: np.ndarray = found) -> intervals.Scores:
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
    found = intervals.all_intervals(
        Answers(targets, targets, np.eye(3)[targets], targets.astype(str), CLASSES), 0
    )
    assert found["macro_f1"] == pytest.approx((0.025, 1.0))
    names = np.arange(len(targets)).astype(str)
    found = intervals.all_intervals(
        Answers(targets, targets, np.eye(3)[targets], names, CLASSES), 0
    )
    assert found["macro_f1"] == pytest.approx(
        (np.mean([0.025 ** (1 / count) for count in films]), 1.0)
    )


def test_a_perfect_model_keeps_a_bound_drawn_from_its_smallest_class_and_is_not_called_chance() -> (
    None
):
    targets = np.repeat([0, 1], [57, 3])
    perfect = Answers(targets, targets, np.eye(2)[targets], np.arange(60).astype(str), ("A", "B"))
    found = intervals.all_intervals(perfect, 0)
    for name, patients in (("A", 57), ("B", 3)):
        for what in ("precision", "recall", "f1"):
            assert found[f"{what}.{name}"] == pytest.approx((0.025 ** (1 / patients), 1.0))
    assert found["auroc.A"] == pytest.approx((0.025 ** (1 / 3), 1.0))
    low, high = found["macro_f1"] or (0, 0)
    assert 0.5 < low < high == 1


def test_macro_f1_is_the_mean_over_classes_that_a_resample_has() -> None:
    answers = _answers(40, 5)
    weights = (
        np.random.default_rng(0).integers(0, 3, (20, 40)).astype(float)
        * (answers.targets != 2)
        * (answers.predicted != 2)
    )
    alone = intervals.macro_f1(answers, weights)
    assert alone == pytest.approx(intervals.scores(answers, weights)["macro_f1"])
    assert alone == pytest.approx(
        [
            sk.f1_score(
                answers.targets,
                answers.predicted,
                labels=[0, 1],
                average="macro",
                sample_weight=row,
            )
            for row in weights
        ]
    )


def test_a_handful_of_patients_has_no_interval() -> None:
    answers = _answers(40, 6, per_group=10)
    assert intervals.all_intervals(answers, 0)["accuracy"] is None


def test_films_of_one_patient_do_not_narrow_the_interval() -> None:
    def width(per_group: int) -> float:
        answers = _answers(300 // per_group, 1)
        repeated = Answers(
            *(
                np.repeat(values, per_group, axis=0)
                for values in (answers.targets, answers.predicted, answers.probabilities)
            ),
            np.repeat(answers.groups, per_group),
            CLASSES,
        )
        low, high = intervals.all_intervals(repeated, 0)["accuracy"] or (0, 0)
        return high - low

    assert width(5) > 1.8 * width(1)


def test_shuffled_labels_give_intervals_that_cover_chance() -> None:
    answers = _answers(600, 2, skill=0.0)
    found = intervals.all_intervals(answers, 0)
    for name in CLASSES:
        low, high = found[f"auroc.{name}"] or (1, 0)
        assert low < 0.5 < high
    low, high = found["accuracy"] or (1, 0)
    assert low < 1 / 3 < high


def test_a_rate_without_a_single_error_has_an_exact_bound() -> None:
    found = intervals.rate_interval(np.ones(1000), groups=60)
    assert found is not None
    assert found[0] == pytest.approx(0.025 ** (1 / 60))
    assert found[1] == 1.0


def test_the_difference_of_a_run_with_itself_is_nothing_and_of_a_better_one_is_seen() -> None:
    worse, better = _answers(400, 3, skill=1.0), _answers(400, 3, skill=3.0)
    assert intervals.differences(worse, worse, 0)["accuracy"] == (0.0, (0.0, 0.0))
    difference, interval = intervals.differences(worse, better, 0)["accuracy"]
    assert interval is not None
    assert 0 < interval[0] < difference < interval[1]


def test_a_class_without_films_has_no_interval() -> None:
    answers = _answers(50, 4)
    without = Answers(
        np.zeros(50, int), answers.predicted, answers.probabilities, answers.groups, CLASSES
    )
    found = intervals.all_intervals(without, 0)
    assert found["recall.B"] is None
    assert found["auroc.A"] is None
