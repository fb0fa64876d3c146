"""Contradictions: one film under two labels, by bytes or by content, and the policy for them."""

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace

from lib.dataset.duplicates import Pairs
from lib.dataset.manifest import FilmRecord
from lib.images.measure import LOW_CONTRAST
from lib.run.errors import JobError, UsageError


@dataclass(frozen=True)
class Contradiction:
    """One film filed under more than one label. `sha256` is empty where the files differ: the same
    film at another size or in another coding.
    """

    sha256: str
    films: tuple[FilmRecord, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(sorted({film.label for film in self.films}))

    @property
    def readers_label(self) -> str:
        """The label that readers gave the film; empty if none did, or if they gave several."""
        labels = {film.label for film in self.films if film.is_from_reader}
        return labels.pop() if len(labels) == 1 else ""


def find_contradictions(films: Sequence[FilmRecord]) -> list[Contradiction]:
    """Every sha256 that lies under two or more labels, in the order of the manifest."""
    by_bytes: dict[str, list[FilmRecord]] = defaultdict(list)
    for film in films:
        by_bytes[film.sha256].append(film)
    equal = [Contradiction(digest, tuple(same)) for digest, same in by_bytes.items()]
    return [contradiction for contradiction in equal if len(contradiction.labels) > 1]


def find_content_contradictions(
    films: Sequence[FilmRecord], near_pairs: Pairs
) -> list[Contradiction]:
    """Each near-duplicate pair under two labels whose files differ.

    `near_pairs` are the pairs of `duplicates.near_duplicates` on `films`. Pairs are not joined to
    chains: two films that resemble a third one need not be the same. Blank films all resemble each
    other and are no contradictions.
    """
    pairs = ((films[first], films[second]) for first, second in near_pairs.tolist())
    return [
        Contradiction("", (a, b))
        for a, b in pairs
        if a.label != b.label
        and a.sha256 != b.sha256
        and min(a.contrast, b.contrast) >= LOW_CONTRAST
    ]


def count_labels(contradictions: Iterable[Contradiction]) -> dict[str, int]:
    """Contradictions by their labels: "NORMAL / TUBERCULOSIS" → number, in alphabetical order."""
    counts = Counter(" / ".join(contradiction.labels) for contradiction in contradictions)
    return dict(sorted(counts.items()))


def accuracy_ceiling(films: Sequence[FilmRecord], contradictions: Sequence[Contradiction]) -> float:
    """The best accuracy that any classifier can reach on the labels as filed, in 0..1.

    Identical bytes get identical answers, so of each contradiction by bytes only the most frequent
    label can be right.
    """
    lost = sum(
        len(c.films) - max(Counter(film.label for film in c.films).values()) for c in contradictions
    )
    return 1 - lost / len(films)


def check_policy(policy: str, labels: Sequence[str]) -> None:
    """Refuse a contradiction policy that cannot be carried out.

    Raises:
        UsageError: not keep:CLASS, drop or fail, or an unknown class.
    """
    kind, _, kept = policy.partition(":")
    if policy in ("drop", "fail") or (kind == "keep" and kept in labels):
        return
    if kind == "keep":
        raise UsageError(
            f"--on_contradiction keep:{kept}: there is no class {kept!r}; "
            f"classes are {', '.join(labels)}."
        )
    raise UsageError(f"--on_contradiction takes auto, keep:CLASS, drop or fail, not {policy!r}.")


def apply_policy(contradictions: Sequence[Contradiction], policy: str) -> dict[str, str]:
    """Films to exclude, as path → reason.

    A reader's label prevails over those of the dataset: their copies are excluded first. The policy
    is for what still contradicts. `keep:CLASS` keeps the copies under CLASS; of a contradiction
    without CLASS all copies are excluded, as `drop` does for all. A film in several contradictions
    is excluded if one of them excludes it; the first gives the reason.

    Raises:
        JobError: policy `fail` and there is a contradiction that no reader has settled.
    """
    excluded = _against_a_reader(contradictions)
    unsettled = _without(contradictions, excluded)
    if policy == "fail" and unsettled:
        first = " and ".join(film.path for film in unsettled[0].films)
        raise JobError(
            f"{len(unsettled)} films lie under two labels, the first is {first}. "
            "Correct the source, or choose --on_contradiction keep:CLASS or drop."
        )
    kept = policy.partition(":")[2]
    for contradiction in unsettled:
        what = "the same bytes lie" if contradiction.sha256 else "the same film in other bytes lies"
        for film in contradiction.films:
            if kept in contradiction.labels and film.label == kept:
                continue
            others = ", ".join(label for label in contradiction.labels if label != film.label)
            excluded.setdefault(film.path, f"contradiction: {what} under {others}")
    return excluded


def _against_a_reader(contradictions: Sequence[Contradiction]) -> dict[str, str]:
    """Copies under another label than the one that a reader gave, as path → reason."""
    overruled: dict[str, str] = {}
    for contradiction in contradictions:
        label = contradiction.readers_label
        what = "these bytes" if contradiction.sha256 else "the same film in other bytes"
        for film in contradiction.films:
            if label and film.label != label:
                reason = f"contradiction: a reader labelled {what} {label}"
                overruled.setdefault(film.path, reason)
    return overruled


def _without(contradictions: Sequence[Contradiction], paths: Container[str]) -> list[Contradiction]:
    """What still contradicts without these films."""
    rest = (
        replace(one, films=tuple(film for film in one.films if film.path not in paths))
        for one in contradictions
    )
    return [contradiction for contradiction in rest if len(contradiction.labels) > 1]
