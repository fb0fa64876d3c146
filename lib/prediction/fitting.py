"""Fit a calibration on labelled films: temperature, conformal sets, thresholds, reference films.

The input is logits, features and thumbnails. Neither the model nor torch is needed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.network.numerics import softmax
from lib.prediction.calibration import Calibration, Floats, Reference, unit
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
    return calibrate_scaled(
        fit_temperature(logits, targets), (), logits, targets, features, thumbnails, classes
    )


def calibrate_scaled(
    temperature: float,
    offsets: tuple[float, ...],
    logits: Floats,
    targets: NDArray[np.integer[Any]],
    features: Floats,
    thumbnails: NDArray[Any],
    classes: Sequence[str],
    weights: Floats | None = None,
) -> tuple[Calibration, Reference]:
    """Fit what follows from temperature and offsets: thresholds, conformal sets, references.

    Shapes as for `calibrate`. `weights` `(N,)` say how much each film counts; None: all the same.
    """
    weights = np.ones(len(targets)) if weights is None else weights
    scaled = softmax(logits / temperature + (np.array(offsets) if offsets else 0))
    chosen = np.linspace(0, len(features) - 1, min(REFERENCES, len(features))).round().astype(int)
    reference = Reference(
        unit(features[chosen]).astype(np.float16).astype(np.float32), thumbnails.mean(axis=0)
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
            scaled[np.arange(len(targets)), targets], COVERAGE, weights
        ),
        sensitivity=SENSITIVITY,
        thresholds=_thresholds(scaled, targets, classes, weights),
        largest_distance=float(largest_distance),
        smallest_likeness=float(smallest_likeness),
        offsets=offsets,
    )
    return calibration, reference


def _thresholds(
    probabilities: Floats,
    targets: NDArray[np.integer[Any]],
    classes: Sequence[str],
    weights: Floats,
) -> dict[str, float]:
    """Thresholds of the classes that have films, and of the screening score."""
    names = [*classes, *((ABNORMAL,) if has_screening_score(classes) else ())]
    thresholds = {}
    for name in names:
        positive = is_positive(name, classes)
        cases = positive[targets]
        if cases.any():
            scores = probabilities[cases][:, positive].sum(axis=1)
            thresholds[name] = threshold_for(SENSITIVITY, scores, weights[cases])
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

    shares = smoothed_targets(targets, logits.shape[1])

    def loss(log_temperature: float) -> float:
        return _cross_entropy(logits.astype(np.float64) / np.exp(log_temperature), shares)

    return float(
        np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x)
    )


def fit_temperature_and_offsets(
    logits: Floats, targets: NDArray[np.integer[Any]]
) -> tuple[float, tuple[float, ...]]:
    """Temperature, and an offset for each class, with the smallest mean cross-entropy.

    Shapes and smoothing as in `fit_temperature`; the offsets have the mean 0. Offsets correct what
    a temperature cannot: a class that the model says too often, or too seldom, at another place.

    Source: A. Alexandari, A. Kundaje, A. Shrikumar, "Maximum Likelihood with Bias-Corrected
    Calibration is Hard-To-Beat at Label Shift Adaptation", ICML 2020.
    """
    from scipy.optimize import minimize

    shares = smoothed_targets(targets, logits.shape[1])
    exact = logits.astype(np.float64)

    def loss(parameters: NDArray[np.float64]) -> float:
        scaled = exact / np.exp(parameters[0]) + np.append(0, parameters[1:])
        return _cross_entropy(scaled, shares)

    bounds = [(np.log(0.05), np.log(20)), *[(-20.0, 20.0)] * (logits.shape[1] - 1)]
    start = np.zeros(logits.shape[1])
    fitted = minimize(loss, start, method="L-BFGS-B", bounds=bounds).x
    offsets = np.append(0, fitted[1:])
    return float(np.exp(fitted[0])), tuple((offsets - offsets.mean()).tolist())


def shift_priors(
    shares: Sequence[float], prevalences: Mapping[int, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correct for another case mix: offsets `(classes,)` and the new shares `(classes,)`.

    `shares` are those of the films that a calibration was fitted on, `prevalences` those of some
    classes, by number, where the model is to work; the other classes share the rest as they did.

    Source: M. Saerens, P. Latinne, C. Decaestecker, "Adjusting the Outputs of a Classifier to New a
    Priori Probabilities", Neural Computation 14 (2002).
    """
    old = np.array(shares, dtype=np.float64)
    new = old.copy()
    stated = np.zeros(len(old), dtype=bool)
    for number, prevalence in prevalences.items():
        new[number], stated[number] = prevalence, True
    if not stated.all():
        new[~stated] *= (1 - new[stated].sum()) / new[~stated].sum()
    return np.log(new / old), new


def smoothed_targets(targets: NDArray[np.integer[Any]], classes: int) -> NDArray[np.float64]:
    """What a fit takes for the truth `(N, classes)`: see `fit_temperature`."""
    films = len(targets)
    shares = np.full((films, classes), 1 / (films + 2) / max(classes - 1, 1))
    shares[np.arange(films), targets] = (films + 1) / (films + 2)
    return shares


def _cross_entropy(logits: NDArray[np.float64], shares: NDArray[np.float64]) -> float:
    highest = logits.max(axis=1)
    totals = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
    return float((totals - (shares * logits).sum(axis=1)).mean())


def conformal_threshold(
    of_true_class: Floats, coverage: float, weights: Floats | None = None
) -> float:
    """Smallest probability of a class in the conformal set.

    `of_true_class` `(N,)` are the probabilities of the true classes of validation films. For a new
    film from the same distribution the set {class: probability >= threshold} holds the true class
    with a probability of at least `coverage`. With `weights` `(N,)`, proportional to the ratio of
    the class shares there and here, this holds for another case mix.

    Sources: M. Sadinle et al., "Least Ambiguous Set-Valued Classifiers", JASA 114 (2019); for the
    weights, A. Podkopaev, A. Ramdas, "Distribution-Free Uncertainty Quantification for
    Classification under Label Shift", UAI 2021.
    """
    weights = np.ones(len(of_true_class)) if weights is None else weights
    order = np.argsort(of_true_class)
    allowed = (weights.sum() + weights.max()) * (1 - coverage) + 1e-9
    rank = int(np.searchsorted(np.cumsum(weights[order]), allowed, side="right"))
    return float(of_true_class[order[rank - 1]]) if rank >= 1 else 0.0


def threshold_for(sensitivity: float, of_positives: Floats, weights: Floats | None = None) -> float:
    """The highest threshold that at least `sensitivity` of the positives' scores `(N,)` reach.

    `weights` `(N,)` say how much each of them counts; None: all the same.
    """
    weights = np.ones(len(of_positives)) if weights is None else weights
    order = np.argsort(-of_positives, kind="stable")
    needed = sensitivity * weights.sum() - 1e-9
    rank = int(np.searchsorted(np.cumsum(weights[order]), needed, side="left"))
    return float(of_positives[order[min(rank, len(order) - 1)]])
