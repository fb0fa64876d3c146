"""The random sample of a batch: seeded, of the wanted size, and blind to all but the names."""

from collections import Counter

from lib.prediction.rows import Row, RowSchema
from lib.prediction.sample import draw

NAMES = [f"{number}.png" for number in range(200)]


def test_a_seed_draws_the_same_films_in_any_order_and_another_seed_others() -> None:
    drawn = draw(NAMES, 20, 0)
    assert len(drawn) == 20
    assert drawn == draw(NAMES[::-1], 20, 0)
    assert drawn != draw(NAMES, 20, 1)


def test_a_small_batch_is_drawn_whole_and_none_is_none() -> None:
    assert draw(NAMES[:5], 20, 0) == set(NAMES[:5])
    assert draw(NAMES, 0, 0) == frozenset()


def test_every_film_is_drawn_about_as_often_as_any_other() -> None:
    """2,000 seeds: 200 draws of each film are expected, with a standard deviation of 13."""
    counts = Counter(name for seed in range(2000) for name in draw(NAMES, 20, seed))
    assert min(counts.values()) > 200 - 5 * 13
    assert max(counts.values()) < 200 + 5 * 13


def test_the_column_is_there_only_if_films_were_drawn() -> None:
    row = Row("a.png", "m@1", "B", 0.7, (0.3, 0.7), False, is_sampled=True, tags={"KVP": "80"})
    plain, sampled = (
        RowSchema(("A", "B"), ("KVP",), has_sample=has_sample) for has_sample in (False, True)
    )
    assert "sampled" not in plain.cells(row)
    assert sampled.cells(row)["sampled"] == "True"
    assert sampled.row(sampled.record(row)) == row
    assert plain.row(plain.record(row)).tags == row.tags
