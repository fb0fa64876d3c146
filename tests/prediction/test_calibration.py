"""Calibration: temperatures are recovered, conformal sets cover, strange films are told apart."""

from pathlib import Path

import numpy as np
import pytest

from lib.evaluation import metrics
from lib.images.reader import Film
from lib.network.numerics import softmax
from lib.prediction import fitting
from lib.prediction.calibration import Calibration, Reference
from lib.prediction.classes import ABNORMAL
from lib.prediction.prediction import Prediction
from lib.prediction.triage import Triage

CLASSES = ("NORMAL", "PNEUMONIA", "TUBERCULOSIS")


def _drawn(films: int, seed: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and targets drawn from their own softmax: a calibrated model whose logits were then
    scaled.
    """
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (films, 3))
    chances = softmax(logits)
    targets = (chances.cumsum(axis=1) < generator.random((films, 1))).sum(axis=1)
    return logits * scale, targets


def test_the_screening_threshold_finds_the_films_of_every_class_but_normal() -> None:
    logits, targets = _drawn(400, seed=4)
    features = np.random.default_rng(5).normal(size=(400, 8)).astype(np.float32)
    films = np.random.default_rng(6).integers(0, 255, (400, 32, 32))
    found, _ = fitting.calibrate(logits, targets, features, films, CLASSES)
    abnormal = 1 - softmax(logits / found.temperature)[targets != 0, 0]
    threshold = found.thresholds[ABNORMAL]
    assert (abnormal >= threshold - 1e-12).mean() >= fitting.SENSITIVITY
    assert (abnormal > threshold + 1e-12).mean() < fitting.SENSITIVITY
    without, _ = fitting.calibrate(logits, targets, features, films, ("A", "B", "C"))
    assert set(without.thresholds) == {"A", "B", "C"}


@pytest.mark.parametrize(
    ("probabilities", "chosen"),
    [
        ([0.69, 0.10, 0.21], "TUBERCULOSIS"),
        ([0.71, 0.10, 0.19], "NORMAL"),
        ([0.05, 0.60, 0.35], "PNEUMONIA"),
    ],
)
def test_at_the_screening_threshold_a_film_is_normal_or_its_likeliest_disease(
    probabilities: list[float], chosen: str
) -> None:
    stored = Calibration(9, 1.0, 0.9, 0.1, 0.9, {ABNORMAL: 0.3}, 1.0, 0.0)
    triage = Triage(CLASSES, stored, operating_point=ABNORMAL)
    assert CLASSES[triage.choose(np.array(probabilities))] == chosen


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_the_temperature_undoes_overconfidence_and_underconfidence(scale: float) -> None:
    logits, targets = _drawn(20_000, 0, scale)
    temperature = fitting.fit_temperature(logits, targets)
    assert temperature == pytest.approx(scale, rel=0.05)
    probabilities = softmax(logits / temperature)
    right = probabilities.argmax(axis=1) == targets
    assert metrics.expected_calibration_error(probabilities.max(axis=1), right) < 0.015


@pytest.mark.parametrize("films", [5, 30, 200])
def test_films_without_a_single_error_do_not_make_every_answer_certain(films: int) -> None:
    targets = np.arange(films) % 3
    logits = np.eye(3)[targets] + np.random.default_rng(0).normal(0, 0.1, (films, 3))
    confidence = softmax(logits / fitting.fit_temperature(logits, targets)).max(axis=1)
    assert confidence.mean() == pytest.approx((films + 1) / (films + 2), abs=0.02)


def test_conformal_sets_hold_the_true_class_as_often_as_stated() -> None:
    """300 studies with 133 validation and 200 test films each."""
    covered = []
    for study in range(300):
        logits, targets = _drawn(333, study)
        of_true = softmax(logits)[np.arange(333), targets]
        threshold = fitting.conformal_threshold(of_true[:133], 0.95)
        covered.append((of_true[133:] >= threshold).mean())
    assert 0.945 <= np.mean(covered) <= 0.965


def test_with_too_few_films_every_class_is_in_the_set() -> None:
    assert fitting.conformal_threshold(np.full(10, 0.9), 0.95) == 0.0


def test_the_threshold_reaches_the_sensitivity_and_no_higher_one_does() -> None:
    scores = np.random.default_rng(0).random(57)
    threshold = fitting.threshold_for(0.9, scores)
    assert (scores >= threshold).mean() >= 0.9
    assert (scores > threshold).mean() < 0.9


@pytest.fixture(scope="module")
def judge() -> tuple[Triage, np.random.Generator]:
    """A judge of films whose features and thumbnails are noise around one centre."""
    generator = np.random.default_rng(0)
    logits, targets = _drawn(400, 1, scale=2.0)
    features = 1 + 0.2 * generator.normal(size=(400, 64))
    films = np.linspace(0, 200, 1024).reshape(1, 32, 32) + generator.normal(0, 20, (400, 32, 32))
    learnt, reference = fitting.calibrate(logits, targets, features, films, CLASSES)
    return Triage(CLASSES, learnt, reference), generator


def _answer(generator: np.random.Generator, **changed: object) -> Prediction:
    film = np.linspace(0, 200, 1024).reshape(32, 32) + generator.normal(0, 20, (32, 32))
    values: dict[str, object] = {
        "logits": np.array([9.0, 0, 0]),
        "probabilities": np.array([0.998, 0.001, 0.001]),
        "features": 1 + 0.2 * generator.normal(size=64),
    }
    read = {"thumbnail": film, "contrast": 60.0} | {
        k: changed.pop(k) for k in ("thumbnail", "contrast") if k in changed
    }
    return Prediction(Film(Path("film.png"), **read), **{**values, **changed})  # type: ignore[arg-type]


def test_what_asks_for_a_human_look(judge: tuple[Triage, np.random.Generator]) -> None:
    judging, generator = judge

    def reasons(**changed: object) -> list[str]:
        return [reason.text for reason in judging.reasons(_answer(generator, **changed))]

    ordinary = [reasons() for _ in range(300)]
    assert sum(bool(found) for found in ordinary) <= 30
    assert reasons(contrast=1.0) == ["blank or nearly blank"]
    assert reasons(probabilities=None) == ["unreadable"]
    doubtful = reasons(probabilities=np.array([0.5, 0.49, 0.01]))
    assert any(found.startswith("low confidence: NORMAL or PNEUMONIA") for found in doubtful)
    assert "unlike the training films" in reasons(features=generator.normal(size=64))
    negative = 255 - np.linspace(0, 200, 1024).reshape(32, 32)
    assert "inverted" in reasons(thumbnail=negative)


def test_a_reference_survives_its_file(
    judge: tuple[Triage, np.random.Generator], tmp_path: object
) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    reference = judge[0].reference
    assert reference is not None
    reference.write(folder)
    again = Reference.read(folder)
    features = judge[1].normal(size=(5, 64))
    assert again.distances(features) == pytest.approx(reference.distances(features), abs=1e-3)


def test_a_model_without_validation_films_judges_blank_films_alone() -> None:
    nobody = Triage(CLASSES)
    generator = np.random.default_rng(0)
    assert nobody.reasons(_answer(generator)) == ()
    assert [reason.text for reason in nobody.reasons(_answer(generator, contrast=0.0))] == [
        "blank or nearly blank"
    ]


def test_offsets_undo_a_class_that_is_said_too_often() -> None:
    logits, targets = _drawn(20_000, 7)
    moved = 2 * (logits + np.array([1.0, -0.5, -0.5]))
    temperature, offsets = fitting.fit_temperature_and_offsets(moved, targets)
    assert temperature == pytest.approx(2, rel=0.05)
    assert offsets == pytest.approx((-1.0, 0.5, 0.5), abs=0.1)
    stored = Calibration(9, temperature, 0.9, 0.1, 0.9, {}, 1.0, 0.0, offsets)
    probabilities = stored.probabilities(moved)
    right = probabilities.argmax(axis=1) == targets
    assert metrics.expected_calibration_error(probabilities.max(axis=1), right) < 0.015
    again = stored.probabilities(stored.logits(probabilities))
    assert np.abs(again - probabilities).max() < 1e-9


def test_a_stated_case_mix_gives_the_probabilities_that_hold_there() -> None:
    """Most TB films are taken away: with the new share stated, their probability is right again."""
    logits, targets = _drawn(60_000, 8)
    shares = np.bincount(targets) / len(targets)
    offsets, new = fitting.shift_priors(shares.tolist(), {2: 0.05})
    assert new == pytest.approx([0.95 * shares[0] / (1 - shares[2]), new[1], 0.05])
    assert new.sum() == pytest.approx(1)
    drawn = np.random.default_rng(9).random(len(targets)) < (new / shares)[targets] / 1.5
    assert np.bincount(targets[drawn])[2] / drawn.sum() == pytest.approx(0.05, abs=0.005)

    here = softmax(logits[drawn])[:, 2].mean()
    there = softmax(logits[drawn] + offsets)[:, 2].mean()
    assert here > 0.09
    assert there == pytest.approx(0.05, abs=0.005)
    weights = (new / shares)[targets]
    probabilities = softmax(logits + offsets)
    right = probabilities.argmax(axis=1) == targets
    weighted = metrics.expected_calibration_error(probabilities.max(axis=1), right, weights=weights)
    assert weighted < 0.015


def test_weights_count_films_as_often_as_copies_would() -> None:
    generator = np.random.default_rng(3)
    scores, copies = generator.random(40), generator.integers(1, 5, 40)
    repeated = np.repeat(scores, copies)
    assert fitting.threshold_for(0.9, scores, copies.astype(float)) == fitting.threshold_for(
        0.9, repeated
    )
