"""Drift: whether a batch differs from the batches before it, with a stated rate of false alarms.

Shares of films, of each class, maker and view too, are compared by Fisher's exact test;
confidence, distance and size by the two-sample test of Kolmogorov and Smirnov. The level of each
test is that of one false alarm a year, divided by the number of nights and of tests (Bonferroni),
if the films of all nights are independent draws from one distribution. Several films of a patient
in one night raise the rate.

Without batches before it, a batch is compared with the validation films of its model by the share
of films that are out of distribution alone: by construction that is `OUTLIERS` there.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from lib.prediction.fitting import OUTLIERS
from lib.prediction.nights import OTHER, Night

FALSE_ALARMS = 1.0  # a year
NIGHTS = 365  # a year
COMPARED = 60  # batches before, at most
FEWEST_FILMS = 200  # in the batches before; below it only the model's validation films are there
SMALLEST_BATCH = 20  # films
COMPARED_NAMES = 6  # makers, and views, that are compared one by one; rarer ones together


@dataclass(frozen=True)
class Test:
    """One comparison of a batch."""

    what: str
    p_value: float
    words: str  # what was seen, for a person


@dataclass(frozen=True)
class Comparison:
    """All comparisons of a batch."""

    tests: Sequence[Test]
    against: str  # what it was compared with; empty: too few films to compare

    @property
    def level(self) -> float:
        """The p-value below which a test counts."""
        return FALSE_ALARMS / NIGHTS / max(len(self.tests), 1)

    @property
    def findings(self) -> tuple[str, ...]:
        """What is unusual, the least likely first."""
        unusual = sorted(
            (test for test in self.tests if test.p_value < self.level),
            key=lambda test: test.p_value,
        )
        return tuple(test.words for test in unusual)

    @property
    def words(self) -> str:
        """One line for the output and the log."""
        if not self.against:
            return f"fewer than {SMALLEST_BATCH} films: not compared with other batches"
        found = "; ".join(self.findings) or "nothing unusual"
        return f"compared with {self.against}: {found}"


def compare(night: Night, earlier: Sequence[Night]) -> Comparison:
    """Compare a batch with the ordinary ones before it that its model answered, oldest first."""
    if night.films < SMALLEST_BATCH:
        return Comparison((), "")
    before = earlier[-COMPARED:]
    films = sum(one.films for one in before)
    if films < FEWEST_FILMS:
        return Comparison((_unlike_validation(night),), "the validation films of its model")
    tests = [
        _share(what, count(night), night.films, sum(map(count, before)), films)
        for what, count in _COUNTS.items()
    ]
    classes = sorted(set().union(night.predictions, *(one.predictions for one in before)))
    tests += [
        _share(
            name,
            night.predictions.get(name, 0),
            night.films,
            sum(one.predictions.get(name, 0) for one in before),
            films,
        )
        for name in classes
    ]
    for what, counts in _NAMES.items():
        tests += _names(what, counts(night), [counts(one) for one in before if counts(one)])
    tests += [
        _values(what, values(night), [value for one in before for value in values(one)])
        for what, values in _VALUES.items()
    ]
    return Comparison(tests, f"{len(before)} batches before ({films} films)")


_COUNTS: Mapping[str, Callable[[Night], int]] = {
    "to review": lambda night: night.needs_review,
    "unlike the training films": lambda night: night.unlike,
    "unreadable": lambda night: night.unreadable,
}
_VALUES: Mapping[str, Callable[[Night], Sequence[float]]] = {
    "confidence": lambda night: night.confidence,
    "distance to the validation films": lambda night: night.distance,
    "megapixels": lambda night: night.megapixels,
}
_NAMES: Mapping[str, Callable[[Night], Mapping[str, int]]] = {
    "maker": lambda night: night.makers,
    "view": lambda night: night.views,
}


def _names(what: str, counts: Mapping[str, int], before: Sequence[Mapping[str, int]]) -> list[Test]:
    """One test per name, of readable films. Which names are compared one by one does not depend on
    the batch, but on those before it; where all films have one name there is nothing to compare.
    """
    earlier = sum(map(Counter, before), Counter[str]())
    films, films_before = sum(counts.values()), earlier.total()
    if not films or not films_before or len({*counts, *earlier}) < 2:
        return []
    common = [name for name, _ in earlier.most_common(COMPARED_NAMES) if name != OTHER]
    tests = [
        _share(
            f"{what} {name or 'unknown'}", counts.get(name, 0), films, earlier[name], films_before
        )
        for name in common
    ]
    others = films - sum(counts.get(name, 0) for name in common)
    others_before = films_before - sum(earlier[name] for name in common)
    return [*tests, _share(f"{what} of another name", others, films, others_before, films_before)]


def _share(what: str, count: int, films: int, count_before: int, films_before: int) -> Test:
    from scipy.stats import fisher_exact  # 40 MB that a batch without earlier ones does not need

    table = [[count, films - count], [count_before, films_before - count_before]]
    words = f"{what} {count / films:.0%} of films, before {count_before / films_before:.0%}"
    return Test(what, float(fisher_exact(table).pvalue), words)


def _values(what: str, values: Sequence[float], before: Sequence[float]) -> Test:
    """Values that either side does not have cannot differ."""
    from scipy.stats import ks_2samp

    if not values or not before:
        return Test(what, 1.0, "")
    here, there = (f"{median(some):#.3g}" for some in (values, before))
    words = f"{what} {here} in the median, before {there}"
    return Test(what, float(ks_2samp(values, before, method="asymp").pvalue), words)


def _unlike_validation(night: Night) -> Test:
    from scipy.stats import binomtest

    p_value = binomtest(night.unlike, night.films, OUTLIERS, alternative="greater").pvalue
    words = (
        f"unlike the training films {night.unlike / night.films:.0%} of films, of the validation "
        f"films {OUTLIERS:.0%}"
    )
    return Test("unlike the training films", float(p_value), words)
