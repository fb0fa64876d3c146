"""What an answer is worth: how likely, how strange the film, when a person should look. Fitted on
validation films.

Nothing here needs the model or torch: logits, features and thumbnails come in, numbers that stand
in model.json come out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lib.network.numerics import softmax
from lib.prediction.classes import WHO_TUBERCULOSIS

COVERAGE = 0.90  # share of films whose true class shall be in the conformal set
SENSITIVITY = WHO_TUBERCULOSIS.sensitivity  # of the stored thresholds
OUTLIERS = 0.02  # share of validation films that each test of strangeness may flag
REFERENCES = 512  # validation films that are kept to compare others with
NEIGHBOURS = 3
REFERENCE_FILE = "reference.npz"


@dataclass(frozen=True)
class Calibration:
    """What validation films taught about the model's answers; part of model.json."""

    films: int
    temperature: float  # logits are divided by it
    coverage: float
    smallest_probability: (
        float  # a class with at least this probability belongs to the conformal set
    )
    sensitivity: float
    thresholds: dict[
        str, float
    ]  # class → probability from which `sensitivity` of its films are found
    largest_distance: float  # to the nearest reference films; beyond it a film is strange
    smallest_likeness: (
        float  # correlation of ordinary films with the mean film; a negative reaches it inverted
    )

    @staticmethod
    def read(content: dict[str, Any] | None) -> "Calibration | None":
        """From model.json; None where the model came without validation films."""
        return Calibration(**content) if content else None


@dataclass(frozen=True)
class Reference:
    """Validation films to compare with: unit features `(N, F)`, and the mean film `(32, 32)`."""

    features: np.ndarray
    mean_film: np.ndarray

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

    def distances(self, features: np.ndarray, left_out: int = 0) -> np.ndarray:
        """Mean Euclidean distance `(M,)` of unit features `(M, F)` to their nearest references, 0
        to 2.

        `left_out` nearest ones are not counted: 1 where the films are among the references
        themselves. Source: Y. Sun et al., "Out-of-Distribution Detection with Deep Nearest
        Neighbors", ICML 2022.
        """
        cosines = _unit(features) @ self.features.T
        count = min(left_out + NEIGHBOURS, cosines.shape[1])
        nearest = -np.sort(-cosines, axis=1)[:, min(left_out, count - 1) : count]
        answer: np.ndarray = np.sqrt(np.maximum(2 - 2 * nearest, 0)).mean(axis=1)
        return answer

    def likeness(self, thumbnails: np.ndarray) -> np.ndarray:
        """Pearson correlation `(M,)` of thumbnails `(M, 32, 32)` with the mean film; negative for
        an inverted film.
        """
        films = thumbnails.reshape(len(thumbnails), -1).astype(np.float64)
        films = films - films.mean(axis=1, keepdims=True)
        mean = self.mean_film.ravel() - self.mean_film.mean()
        scale = np.linalg.norm(films, axis=1) * np.linalg.norm(mean)
        answer: np.ndarray = films @ mean / np.maximum(scale, 1e-9)
        return answer


def calibrate(
    logits: np.ndarray,
    targets: np.ndarray,
    features: np.ndarray,
    thumbnails: np.ndarray,
    classes: Sequence[str],
) -> tuple[Calibration, Reference]:
    """Everything that validation films can teach: `(N, classes)` logits, `(N,)` targets, `(N, F)`,
    `(N, 32, 32)`.
    """
    temperature = fit_temperature(logits, targets)
    probabilities = softmax(logits / temperature)
    chosen = np.linspace(0, len(features) - 1, min(REFERENCES, len(features))).round().astype(int)
    reference = Reference(
        _unit(features[chosen]).astype(np.float16).astype(np.float32), thumbnails.mean(axis=0)
    )
    strange = np.quantile(
        reference.distances(features[chosen], left_out=1), 1 - OUTLIERS, method="higher"
    )
    unlike = np.quantile(reference.likeness(thumbnails), OUTLIERS, method="lower")
    thresholds = {
        name: threshold_for(SENSITIVITY, probabilities[targets == index, index])
        for index, name in enumerate(classes)
        if (targets == index).any()
    }
    calibration = Calibration(
        films=len(targets),
        temperature=temperature,
        coverage=COVERAGE,
        smallest_probability=conformal_threshold(
            probabilities[np.arange(len(targets)), targets], COVERAGE
        ),
        sensitivity=SENSITIVITY,
        thresholds=thresholds,
        largest_distance=float(strange),
        smallest_likeness=float(unlike),
    )
    return calibration, reference


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """The temperature, 0.05 to 20, with the smallest mean cross-entropy of `logits / temperature`.

    The true class counts (N + 1) / (N + 2), the others share the rest: where no film, or hardly
    one, was answered wrong, the plain cross-entropy would have every answer certain, on the word of
    a few films. Sources: C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017; J.
    Platt, "Probabilistic Outputs for Support Vector Machines", 1999, for the counts.
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


def conformal_threshold(of_true_class: np.ndarray, coverage: float) -> float:
    """Smallest probability that puts a class into the set, from the true classes' probabilities
    `(N,)` of films held out.

    For a new film of the same kind the set {class: probability >= threshold} holds the true class
    with at least the probability `coverage`. Source: M. Sadinle et al., "Least Ambiguous Set-Valued
    Classifiers", JASA 114 (2019).
    """
    rank = int(np.floor((len(of_true_class) + 1) * (1 - coverage) + 1e-9))
    return float(np.sort(of_true_class)[rank - 1]) if rank >= 1 else 0.0


def threshold_for(sensitivity: float, of_positives: np.ndarray) -> float:
    """The highest threshold that at least `sensitivity` of the positives' scores `(N,)` reach."""
    needed = int(np.ceil(sensitivity * len(of_positives) - 1e-9))
    return float(np.sort(of_positives)[::-1][max(needed, 1) - 1])


def _unit(features: np.ndarray) -> np.ndarray:
    answer: np.ndarray = features / np.maximum(
        np.linalg.norm(features, axis=1, keepdims=True), 1e-12
    )
    return answer
