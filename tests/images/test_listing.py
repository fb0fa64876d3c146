"""Names that are read while they are listed."""

import threading
from collections.abc import Iterator

import pytest

from lib.images.listing import Listing, Page
from lib.run.errors import JobError
from lib.storage.stamp import Stamp


def _page(*names: str) -> Page:
    return [(name, Stamp(len(name), 7)) for name in names]


def test_a_name_is_there_before_the_next_page_is() -> None:
    go_on = threading.Event()

    def pages() -> Iterator[Page]:
        yield _page("a", "bb")
        assert go_on.wait(30)
        yield _page("c")

    listing = Listing(pages())
    assert (listing[0], listing[1], listing.is_complete) == ("a", "bb", False)
    assert listing.stamp("bb") == Stamp(2, 7)
    names = iter(listing)
    assert (next(names), next(names)) == ("a", "bb")
    go_on.set()
    assert list(names) == ["c"]
    assert (len(listing), listing[-1], listing[1:]) == (3, "c", ["bb", "c"])
    assert listing.is_complete
    assert listing.stamp("cc") == Stamp()


def test_an_error_of_the_listing_is_raised_behind_the_names_that_came() -> None:
    def pages() -> Iterator[Page]:
        yield _page("a")
        raise JobError("no answer")

    listing = Listing(pages())
    names = iter(listing)
    assert next(names) == "a"
    with pytest.raises(JobError, match="no answer"):
        next(names)
    with pytest.raises(JobError, match="no answer"):
        len(listing)
    assert not listing.is_complete


def test_names_out_of_order_are_refused() -> None:
    with pytest.raises(JobError, match="order of their names"):
        len(Listing(iter([_page("b"), _page("a")])))
