"""What validation films taught: temperature, conformal sets, thresholds, reference films.

model.json holds the numbers, reference.npz the films to compare with. lib/prediction/fitting.py
fits them.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.network.numerics import softmax

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
    offsets: tuple[float, ...] = ()  # of each class, added to the scaled logits; empty: none

    @staticmethod
    def read(content: dict[str, Any] | None) -> "Calibration | None":
        """From model.json; None if the model was made without validation films."""
        return Calibration(**content) if content else None

    def to_json(self) -> dict[str, Any]:
        """For model.json. Without offsets earlier versions read it as well."""
        content = asdict(self)
        if not self.offsets:
            del content["offsets"]
        return content

    def probabilities(self, logits: Floats) -> NDArray[np.float64]:
        """Calibrated probabilities of logits, both `(..., classes)`."""
        scaled = logits / self.temperature
        return softmax(scaled + np.array(self.offsets) if self.offsets else scaled)

    def logits(self, probabilities: Floats) -> NDArray[np.float64]:
        """Logits whose `probabilities` these are, up to a constant per film."""
        scaled = np.log(np.maximum(probabilities, 1e-30))
        logits: NDArray[np.float64] = self.temperature * (
            scaled - np.array(self.offsets) if self.offsets else scaled
        )
        return logits


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
        cosines = unit(features) @ self.features.T
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


def unit(features: Floats) -> Floats:
    """Features `(N, F)` scaled to unit length."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    scaled: Floats = features / np.maximum(lengths, 1e-12)
    return scaled
