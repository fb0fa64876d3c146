"""Calibration on validation films: temperature, conformal sets, thresholds, distance of a film.

The input is logits, features and thumbnails, the output the numbers that model.json holds. Neither
the model nor torch is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.network.numerics import softmax
from lib.prediction.classes import (
    ABNORMAL,
    WHO_TUBERCULOSIS,
    has_screening_score,
    is_positive,
)

COVERAGE = 0.90  # share of films whose conformal set is to hold the true class
SENSITIVITY = WHO_TUBERCULOSIS.sensitivity  # of the stored thresholds
OUTLIERS = 0.02  # share of validation films that each out-of-distribution test may flag
REFERENCES = 512  # validation films that are kept for comparison
NEIGHBOURS = 3
REFERENCE_FILE = "reference.npz"

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Calibration:
    """What was fitted on validation films; part of model.json."""

    films: int
    temperature: float  # logits are divided by it
    coverage: float
    smallest_probability: float  # of a class that belongs to the conformal set
    sensitivity: float
    thresholds: dict[str, float]  # class, or ABNORMAL → probability that reaches `sensitivity`
    largest_distance: float  # to the nearest reference films; beyond it: out of distribution
    smallest_likeness: float  # correlation of ordinary films with the mean film

    @staticmethod
    def read(content: dict[str, Any] | None) -> "Calibration | None":
        """From model.json; None if the model was made without validation films."""
        return Calibration(**content) if content else None


@dataclass(frozen=True)
class Reference:
    """Validation films to compare with: unit features `(N, F)`, and the mean film `(32, 32)`."""

    features: NDArray[np.float32]
    mean_film: Floats

    @staticmethod
    def read(folder: Path) -> "Reference":
        """From a model folder."""
        with np.load(folder / REFERENCE_FILE) as arrays:
            return Reference(
                arrays["features"].astype(np.float32), arrays["mean_film"].astype(np.float32)
            )

    def write(self, folder: Path) -> None:
        """Into a model folder that is not published yet."""
        np.savez(
            folder / REFERENCE_FILE,
            features=self.features.astype(np.float16),
            mean_film=self.mean_film,
        )

    def distances(self, features: Floats, left_out: int = 0) -> Floats:
        """Mean Euclidean distance `(M,)`, 0 to 2, of features `(M, F)` to their nearest references.

        Features are scaled to unit length. `left_out` nearest references are not counted: 1 if the
        films are among the references themselves. Source: Y. Sun et al., "Out-of-Distribution
        Detection with Deep Nearest Neighbors", ICML 2022.
        """
        cosines = _unit(features) @ self.features.T
        count = min(left_out + NEIGHBOURS, cosines.shape[1])
        nearest = -np.sort(-cosines, axis=1)[:, min(left_out, count - 1) : count]
        distances: Floats = np.sqrt(np.maximum(2 - 2 * nearest, 0)).mean(axis=1)
        return distances

    def likeness(self, thumbnails: NDArray[Any]) -> NDArray[np.float64]:
        """Pearson correlation `(M,)` of thumbnails `(M, 32, 32)` with the mean film.

        It is negative for an inverted film.
        """
        films = thumbnails.reshape(len(thumbnails), -1).astype(np.float64)
        films = films - films.mean(axis=1, keepdims=True)
        mean = self.mean_film.ravel() - self.mean_film.mean()
        scale = np.linalg.norm(films, axis=1) * np.linalg.norm(mean)
        correlations: NDArray[np.float64] = films @ mean / np.maximum(scale, 1e-9)
        return correlations


def calibrate(
    logits: Floats,
    targets: NDArray[np.integer[Any]],
    features: Floats,
    thumbnails: NDArray[Any],
    classes: Sequence[str],
) -> tuple[Calibration, Reference]:
    """Fit everything on validation films.

    Shapes: logits `(N, classes)`, targets `(N,)`, features `(N, F)`, thumbnails `(N, 32, 32)`.
    """
    temperature = fit_temperature(logits, targets)
    probabilities = softmax(logits / temperature)
    chosen = np.linspace(0, len(features) - 1, min(REFERENCES, len(features))).round().astype(int)
    reference = Reference(
        _unit(features[chosen]).astype(np.float16).astype(np.float32), thumbnails.mean(axis=0)
    )
    largest_distance = np.quantile(
        reference.distances(features[chosen], left_out=1), 1 - OUTLIERS, method="higher"
    )
    smallest_likeness = np.quantile(reference.likeness(thumbnails), OUTLIERS, method="lower")
    calibration = Calibration(
        films=len(targets),
        temperature=temperature,
        coverage=COVERAGE,
        smallest_probability=conformal_threshold(
            probabilities[np.arange(len(targets)), targets], COVERAGE
        ),
        sensitivity=SENSITIVITY,
        thresholds=_thresholds(probabilities, targets, classes),
        largest_distance=float(largest_distance),
        smallest_likeness=float(smallest_likeness),
    )
    return calibration, reference


def _thresholds(
    probabilities: Floats, targets: NDArray[np.integer[Any]], classes: Sequence[str]
) -> dict[str, float]:
    """Thresholds of the classes that have films, and of the screening score."""
    names = [*classes, *((ABNORMAL,) if has_screening_score(classes) else ())]
    thresholds = {}
    for name in names:
        positive = is_positive(name, classes)
        cases = positive[targets]
        if cases.any():
            scores = probabilities[cases][:, positive].sum(axis=1)
            thresholds[name] = threshold_for(SENSITIVITY, scores)
    return thresholds


def fit_temperature(logits: Floats, targets: NDArray[np.integer[Any]]) -> float:
    """The temperature, 0.05 to 20, with the smallest mean cross-entropy of `logits / temperature`.

    Logits are `(N, classes)`, targets `(N,)`. The true class counts (N + 1) / (N + 2), the others
    share the rest. With plain cross-entropy, a few films without an error would make every
    probability 0 or 1.

    Sources: C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017; for the counts,
    J. Platt, "Probabilistic Outputs for Support Vector Machines", 1999.
    """
    from scipy.optimize import minimize_scalar  # 40 MB that prediction does not need

    films, classes = logits.shape
    shares = np.full((films, classes), 1 / (films + 2) / max(classes - 1, 1))
    shares[np.arange(films), targets] = (films + 1) / (films + 2)

    def loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        highest = scaled.max(axis=1)
        totals = highest + np.log(np.exp(scaled - highest[:, None]).sum(axis=1))
        return float((totals - (shares * scaled).sum(axis=1)).mean())

    return float(
        np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x)
    )


def conformal_threshold(of_true_class: Floats, coverage: float) -> float:
    """Smallest probability of a class in the conformal set.

    `of_true_class` `(N,)` are the probabilities of the true classes of validation films. For a new
    film from the same distribution the set {class: probability >= threshold} holds the true class
    with a probability of at least `coverage`. Source: M. Sadinle et al., "Least Ambiguous
    Set-Valued Classifiers", JASA 114 (2019).
    """
    rank = int(np.floor((len(of_true_class) + 1) * (1 - coverage) + 1e-9))
    return float(np.sort(of_true_class)[rank - 1]) if rank >= 1 else 0.0


def threshold_for(sensitivity: float, of_positives: Floats) -> float:
    """The highest threshold that at least `sensitivity` of the positives' scores `(N,)` reach."""
    needed = int(np.ceil(sensitivity * len(of_positives) - 1e-9))
    return float(np.sort(of_positives)[::-1][max(needed, 1) - 1])


def _unit(features: Floats) -> Floats:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit: Floats = features / np.maximum(lengths, 1e-12)
    return unit
