"""The order of the triage page."""

from lib.prediction.rows import Row
from lib.reports import batch_page


def test_a_large_batch_shows_what_to_look_at_first() -> None:
    rows = [
        Row(f"{n:05}", "m@1", "NORMAL", n / 7000, needs_review=n % 20 == 0) for n in range(7000)
    ]
    shown = batch_page.in_triage_order(iter(rows))
    assert len(shown) == batch_page.CARDS
    assert [row.path for row in shown[:2]] == ["00000", "00020"]
    assert sum(row.needs_review for row in shown) == 350
    assert not shown[350].needs_review


def test_the_whole_random_sample_is_on_the_page_of_a_large_batch() -> None:
    rows = [
        Row(f"{n:05}", "m@1", "NORMAL", n / 7000, needs_review=True, is_sampled=n % 70 == 0)
        for n in range(7000)
    ]
    shown = batch_page.in_triage_order(iter(rows))
    assert len(shown) == batch_page.CARDS
    assert sum(row.is_sampled for row in shown) == 100
    assert all(row.is_sampled for row in shown[:100])
