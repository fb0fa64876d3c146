"""The order of the triage page."""

from lib.reports import batch_page


def test_a_large_batch_shows_what_to_look_at_first() -> None:
    rows = [
        {"path": f"{n:05}", "needs_review": n % 20 == 0, "confidence": f"{n / 7000:.6f}"}
        for n in range(7000)
    ]
    shown = batch_page.in_triage_order(iter(rows))
    assert len(shown) == batch_page.CARDS
    assert [row["path"] for row in shown[:2]] == ["00000", "00020"]
    assert sum(row["needs_review"] for row in shown) == 350
    assert not shown[350]["needs_review"]
