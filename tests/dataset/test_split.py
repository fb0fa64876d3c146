"""Contradictions, groups and the draw."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lib.dataset import contradictions, duplicates, split
from lib.dataset.manifest import READER_MARK, FilmRecord
from lib.dataset.patients import patients
from lib.images.measure import dhash, measure
from lib.run.errors import JobError, UsageError
from tests.conftest import film


def _record(
    path: str, sha256: str | None = None, patient: str = "", seed: int | None = None
) -> FilmRecord:
    bits = np.random.default_rng(abs(hash(path)) if seed is None else seed).bytes(32).hex()
    return FilmRecord(
        path,
        path.split("/")[0],
        sha256 or path,
        bits,
        1,
        1,
        "L",
        1,
        0.0,
        0.0,
        0.0,
        "",
        patient,
        "ok",
        "",
        path,
    )


TWINS = [
    _record("A/1", "x"),
    _record("B/1", "x"),
    _record("B/2", "y"),
    _record("C/2", "y"),
    _record("A/3"),
    _record("A/4", "z"),
]


def test_contradictions_are_equal_bytes_under_two_labels() -> None:
    same_label = _record("A/5", "z")
    found = contradictions.find_contradictions([*TWINS, same_label])
    assert [contradiction.labels for contradiction in found] == [("A", "B"), ("B", "C")]


def test_the_ceiling_counts_what_no_classifier_can_get_right() -> None:
    assert contradictions.accuracy_ceiling(
        TWINS, contradictions.find_contradictions(TWINS)
    ) == pytest.approx(4 / 6)


@pytest.mark.parametrize("policy", ["keep:NORMAL", "drop", "fail"])
def test_a_label_of_a_reader_prevails_over_the_policy(policy: str) -> None:
    dataset = [_record("NORMAL/1", "x", seed=1), _record("TB/1", "x", seed=1)]
    smaller = [_record("NORMAL/small", "y", seed=1), _record("TB/small", "z", seed=1)]
    read = replace(_record("TB/read", "x", seed=1), origin=f"{READER_MARK}x/TB/read")
    films = [replace(film, contrast=30.0) for film in [*dataset, read, *smaller]]
    pairs = duplicates.near_duplicates([film.dhash for film in films])
    found = contradictions.find_contradictions(films)
    found += contradictions.find_content_contradictions(films, pairs)
    by_bytes = "contradiction: a reader labelled these bytes TB"
    by_content = "contradiction: a reader labelled the same film in other bytes TB"
    excluded = contradictions.apply_policy(found, policy)
    assert excluded == {"NORMAL/1": by_bytes, "NORMAL/small": by_content}


def test_readers_who_disagree_leave_it_to_the_policy() -> None:
    films = [_record("NORMAL/1", "x"), _record("TB/1", "x")]
    read = [replace(film, origin=f"{READER_MARK}{film.path}") for film in films]
    found = contradictions.find_contradictions(read)
    assert list(contradictions.apply_policy(found, "keep:NORMAL")) == ["TB/1"]


@pytest.mark.parametrize(
    ("policy", "excluded"),
    [
        ("keep:A", ["B/1", "B/2", "C/2"]),
        ("keep:B", ["A/1", "C/2"]),
        ("drop", ["A/1", "B/1", "B/2", "C/2"]),
    ],
)
def test_policies(policy: str, excluded: list[str]) -> None:
    assert (
        sorted(contradictions.apply_policy(contradictions.find_contradictions(TWINS), policy))
        == excluded
    )


def test_policy_fail_stops_and_names_a_film() -> None:
    with pytest.raises(JobError, match="A/1 and B/1"):
        contradictions.apply_policy(contradictions.find_contradictions(TWINS), "fail")


@pytest.mark.parametrize("policy", ["keep:X", "keep", "kep:A", ""])
def test_an_impossible_policy_is_wrong_usage(policy: str) -> None:
    with pytest.raises(UsageError):
        contradictions.check_policy(policy, ["A", "B"])


def test_a_film_is_a_near_duplicate_of_its_export_and_of_no_other_film(tmp_path: Path) -> None:
    films = [film(tmp_path / f"{seed}.png", seed, side=300) for seed in range(12)]
    with Image.open(films[0]) as image:
        image.resize((224, 224)).save(tmp_path / "small.jpg", quality=60)
        Image.eval(image, lambda value: int(value * 0.9 + 10)).save(
            tmp_path / "bright.jpg", quality=85
        )
    paths = [*films, tmp_path / "small.jpg", tmp_path / "bright.jpg"]
    pairs = duplicates.near_duplicates([measure(path).dhash for path in paths]).tolist()
    assert pairs == [[0, 12], [0, 13], [12, 13]]


def test_near_duplicates_are_found_across_the_blocks_of_the_search() -> None:
    rng = np.random.default_rng(0)
    hashes = [rng.bytes(32).hex() for _ in range(700)]
    hashes[690] = hashes[3]
    assert duplicates.near_duplicates(hashes).tolist() == [[3, 690]]


def test_groups_join_persons_bytes_and_near_duplicates_by_way_of_third_films() -> None:
    films = [
        _record("A/1", "s1", "p1", seed=1),
        _record("A/2", "s2", "p1", seed=2),  # same person as 1
        _record("B/3", "s2", "", seed=3),  # same bytes as 2
        _record("B/4", "s4", "", seed=3),  # looks like 3
        _record("B/5", "s5", "p2", seed=5),
    ]
    pairs = duplicates.near_duplicates([film.dhash for film in films])
    assert split.group_films(films, [film.patient for film in films], pairs) == [
        "A/1",
        "A/1",
        "A/1",
        "A/1",
        "B/5",
    ]


def test_a_regex_names_the_person() -> None:
    films = [_record("A/scan-7-1.png"), _record("A/scan-7-2.png"), _record("A/other.png")]
    assert patients(films, r"scan-(\d+)") == ["7", "7", ""]
    assert patients(films, "none") == ["", "", ""]


@pytest.mark.parametrize("pattern", ["(", "patient_[0-9]", ""])
def test_a_regex_that_is_broken_or_matches_nothing_is_wrong_usage(pattern: str) -> None:
    with pytest.raises(UsageError, match="--group_by"):
        patients([_record("A/1.png")], pattern)


def _draw(
    labels: Sequence[str], groups: Sequence[str], val: float, test: float, seed: int
) -> list[str]:
    """`draw_splits` of films whose digests are made of their group and their number in it."""
    numbers: Counter[str] = Counter()
    digests = []
    for group in groups:
        digests.append(hashlib.sha256(f"{group} {numbers[group]}".encode()).hexdigest())
        numbers[group] += 1
    return split.draw_splits(labels, groups, digests, val, test, seed)


def _of(numbers: Sequence[int], column: Sequence[str]) -> list[str]:
    """The values of some rows."""
    return [column[number] for number in numbers]


def _population(seed: int) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    labels: list[str] = []
    groups: list[str] = []
    for group in range(400):
        label = ["A", "B", "C"][int(rng.choice(3, p=[0.5, 0.4, 0.1]))]
        size = int(rng.integers(1, 6))
        labels += [label] * size
        groups += [f"g{group}"] * size
    return labels, groups


@pytest.mark.parametrize("seed", range(5))
def test_the_draw_is_stratified_and_keeps_groups_whole(seed: int) -> None:
    labels, groups = _population(seed)
    places = _draw(labels, groups, 0.1, 0.2, seed)
    sides = {
        group: {place for place, g in zip(places, groups, strict=True) if g == group}
        for group in set(groups)
    }
    assert all(len(found) == 1 for found in sides.values())
    counts = Counter(zip(labels, places, strict=True))
    for label in "ABC":
        total = labels.count(label)
        assert counts[label, "val"] == pytest.approx(0.1 * total, abs=max(3, 0.02 * total))
        assert counts[label, "test"] == pytest.approx(0.2 * total, abs=max(3, 0.02 * total))


def test_the_draw_depends_on_the_seed_alone() -> None:
    labels, groups = _population(0)
    first = _draw(labels, groups, 0.1, 0.1, 1)
    assert first == _draw(labels, groups, 0.1, 0.1, 1)
    assert first != _draw(labels, groups, 0.1, 0.1, 2)


def test_groups_of_every_size_reach_every_side() -> None:
    labels, groups = _population(0)
    places = _draw(labels, groups, 0.2, 0.2, 0)
    sizes = Counter(groups)
    for place in split.SPLITS:
        assert {sizes[group] for group, p in zip(groups, places, strict=True) if p == place} == {
            1,
            2,
            3,
            4,
            5,
        }


def test_one_large_group_does_not_fill_a_side() -> None:
    labels, groups = ["A"] * 100, ["crowd"] * 15 + [f"g{number}" for number in range(85)]
    for seed in range(20):
        places = _draw(labels, groups, 0.1, 0.1, seed)
        assert places[0] == "train"
        assert Counter(places) == {"train": 80, "val": 10, "test": 10}


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), order=st.randoms(use_true_random=False))
def test_the_order_of_the_films_does_not_matter(seed: int, order: Random) -> None:
    labels, groups = _population(seed % 7)
    digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(len(labels))]
    places = split.draw_splits(labels, groups, digests, 0.1, 0.1, seed)
    shuffled = list(range(len(labels)))
    order.shuffle(shuffled)
    labels, groups, digests = (_of(shuffled, column) for column in (labels, groups, digests))
    again = split.draw_splits(labels, groups, digests, 0.1, 0.1, seed)
    assert again == [places[number] for number in shuffled]


@given(seed=st.integers(0, 2**32), films=st.integers(60, 300), new=st.integers(1, 20))
def test_a_new_film_moves_at_most_one_film_across_each_border(
    seed: int, films: int, new: int
) -> None:
    labels = ["AAB"[number % 3] for number in range(films + new)]
    groups = [str(number) for number in range(films + new)]
    before = _draw(labels[:films], groups[:films], 0.1, 0.2, seed)
    after = _draw(labels, groups, 0.1, 0.2, seed)
    moved = [(old, now) for old, now in zip(before, after, strict=False) if old != now]
    assert all("train" in pair for pair in moved)
    assert len(moved) <= 2 * new


@pytest.mark.parametrize("seed", range(5))
def test_one_percent_more_patients_move_about_one_percent_of_the_films(seed: int) -> None:
    labels, groups = _population(seed)
    kept = [number for number, group in enumerate(groups) if group not in ("g7", "g70", "g77")]
    before = _draw(_of(kept, labels), _of(kept, groups), 0.1, 0.1, seed)
    after = _draw(labels, groups, 0.1, 0.1, seed)
    moved = sum(after[number] != place for number, place in zip(kept, before, strict=True))
    assert moved <= 0.025 * len(labels)


def test_a_fraction_of_one_side_leaves_the_other_side_as_it_is() -> None:
    labels, groups = _population(0)
    few, many = _draw(labels, groups, 0.1, 0.1, 0), _draw(labels, groups, 0.2, 0.1, 0)
    pairs = Counter(zip(few, many, strict=True))
    assert pairs["test", "test"] == few.count("test") == many.count("test")
    assert pairs["val", "val"] >= 0.97 * few.count("val")


def test_too_few_films_of_a_class_are_an_error_that_names_it() -> None:
    with pytest.raises(JobError, match="class RARE has 2 films"):
        _draw(["A"] * 50 + ["RARE"] * 2, [str(n) for n in range(52)], 0.1, 0.1, 0)


def test_dhash_is_blind_to_size_and_exposure() -> None:
    image = Image.effect_mandelbrot((300, 300), (-2, -1.5, 1, 1.5), 50).convert("L")
    first = dhash(image)
    second = dhash(Image.eval(image.resize((700, 700)), lambda value: int(value * 0.8)))
    assert (int(first, 16) ^ int(second, 16)).bit_count() <= duplicates.NEAR_DUPLICATE_BITS


def _near(path: str, sha256: str, contrast: float = 40.0) -> FilmRecord:
    return replace(_record(path, sha256, seed=7), contrast=contrast)


def test_the_same_film_in_other_bytes_under_two_labels_is_a_contradiction_by_content() -> None:
    films = [_near("A/1024", "x"), _near("B/256", "y"), _near("A/again", "z"), _record("B/other")]
    pairs = duplicates.near_duplicates([film.dhash for film in films])
    by_content = contradictions.find_content_contradictions(films, pairs)
    assert [[film.path for film in c.films] for c in by_content] == [
        ["A/1024", "B/256"],
        ["B/256", "A/again"],
    ]
    assert contradictions.find_contradictions(films) == []
    assert contradictions.apply_policy(by_content, "keep:A") == {
        "B/256": "contradiction: the same film in other bytes lies under A"
    }
    assert contradictions.count_labels(by_content) == {"A / B": 2}


def test_blank_films_and_equal_bytes_are_no_contradictions_by_content() -> None:
    films = [_near("A/1", "x", 1.0), _near("B/1", "y", 1.0), _near("A/2", "z"), _near("B/2", "z")]
    pairs = duplicates.near_duplicates([film.dhash for film in films])
    assert contradictions.find_content_contradictions(films, pairs) == []
