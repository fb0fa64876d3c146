"""The source probe: how well the network's features tell which collection a film comes from.

It asks within one class, so that a disease cannot give the answer: a logistic regression learns the
source from the features, cross-validated by patient. Where it succeeds, the network sees how films
were made, and may have learned that in place of the disease.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lib.dataset.provenance import UNKNOWN
from lib.evaluation import intervals
from lib.evaluation.films import EvaluationSet, LabelledFilm
from lib.evaluation.predictions import Floats
from lib.evaluation.regression import fit_predict_regression
from lib.evaluation.results import Estimate, SourceProbe

FEWEST_FILMS = 20  # of a source in a class
FOLDS = 5
LARGEST = 3000  # films of a class that are probed, evenly drawn: bounds the time
COLUMNS = ("path", "label", "group", "source", "predicted", "shuffled", "shuffled_predicted")

FeaturesOf = Callable[[Sequence[Path]], Sequence[Floats]]  # empty for an unreadable film


def probe_sources(films: EvaluationSet, features_of: FeaturesOf, seed: int) -> pd.DataFrame:
    """Rows of source_probe.csv: the source of each probed film, and the source that is predicted.

    Training films and test films are probed together. The control repeats it with the sources
    shuffled within the class (`shuffled`).
    """
    parts = [no_probe()]
    for chosen in eligible([*films.training, *films.films]).values():
        features = features_of([film.file for film in chosen])
        readable = [pair for pair in zip(chosen, features, strict=True) if len(pair[1])]
        if readable:
            kept, rows = zip(*readable, strict=True)
            parts.append(_probe_class(kept, np.stack(rows), seed))
    return pd.concat(parts, ignore_index=True)


def no_probe() -> pd.DataFrame:
    """source_probe.csv without rows."""
    return pd.DataFrame(columns=list(COLUMNS), dtype=str)


def eligible(films: Sequence[LabelledFilm]) -> dict[str, list[LabelledFilm]]:
    """By class: the films of its sources with enough films and patients, if it has two of them."""
    by_class: dict[str, dict[str, list[LabelledFilm]]] = defaultdict(lambda: defaultdict(list))
    for film in films:
        if film.source != UNKNOWN:
            by_class[film.label][film.source].append(film)
    found = {}
    for label, by_source in sorted(by_class.items()):
        large = {
            source: of_source
            for source, of_source in sorted(by_source.items())
            if len(of_source) >= FEWEST_FILMS and len({film.group for film in of_source}) >= FOLDS
        }
        if len(large) >= 2:
            every = [film for of_source in large.values() for film in of_source]
            count = min(len(every), LARGEST)
            places = np.linspace(0, len(every) - 1, count).round().astype(int)
            found[label] = [every[place] for place in places]
    return found


def score_probe(table: pd.DataFrame, seed: int) -> tuple[SourceProbe, ...]:
    """The result for each class, from the rows of source_probe.csv alone."""
    return tuple(
        _score_class(str(label), rows, seed) for label, rows in table.groupby("label", sort=True)
    )


def _probe_class(films: Sequence[LabelledFilm], features: Floats, seed: int) -> pd.DataFrame:
    groups = [film.group or film.name for film in films]
    sources = np.array([film.source for film in films], dtype=str)
    shuffled = np.random.default_rng(seed).permutation(sources)
    return pd.DataFrame(
        {
            "path": [film.name for film in films],
            "label": [film.label for film in films],
            "group": groups,
            "source": sources,
            "predicted": _cross_predict(features, sources, groups, seed),
            "shuffled": shuffled,
            "shuffled_predicted": _cross_predict(features, shuffled, groups, seed),
        },
        columns=list(COLUMNS),
        dtype=str,
    )


def _cross_predict(
    features: Floats, sources: np.ndarray, groups: Sequence[str], seed: int
) -> list[str]:
    """The source of each film, predicted by a regression that saw no film of its patient."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    predicted = sources.copy()
    for learned, asked in folds.split(features, sources, groups):
        predicted[asked] = fit_predict_regression(
            features[learned], sources[learned], features[asked], seed, balanced=False
        ).names
    return [str(source) for source in predicted]


def _score_class(label: str, rows: pd.DataFrame, seed: int) -> SourceProbe:
    films = Counter(rows["source"])
    correct = rows["source"].eq(rows["predicted"]).to_numpy(float)
    groups = rows["group"].to_numpy(str)
    accuracy = float(correct.mean())
    resampled = intervals.bootstrap(
        groups, lambda weights: {"accuracy": weights @ correct / weights.sum(axis=1)}, seed
    )
    interval = intervals.share_interval(accuracy, resampled["accuracy"], len(set(groups)))
    return SourceProbe(
        label=label,
        films=dict(sorted(films.items())),
        accuracy=Estimate(accuracy, interval),
        chance=max(films.values()) / len(rows),
        shuffled=float(rows["shuffled"].eq(rows["shuffled_predicted"]).mean()),
    )
