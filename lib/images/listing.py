"""Names of films that are still being listed: the first is read before the last is known."""

import threading
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import overload

from lib.run.errors import JobError
from lib.storage.stamp import Stamp

Page = Sequence[tuple[str, Stamp]]


class Listing(Sequence[str]):
    """Sorted names, each with a stamp, from pages that a thread fetches one after another.

    `names[index]` waits for this name, and so does a loop over all. What concerns all names, such
    as their number, waits for the last page. An error of the listing is raised in whoever waits.
    """

    def __init__(self, pages: Iterable[Page]) -> None:
        """Fetch the first page.

        Raises:
            JobError: the names are not sorted, or what `pages` raises.
        """
        self._names: list[str] = []
        self._sizes, self._times = array("q"), array("q")
        self._error: BaseException | None = None
        self._is_over = False
        self._news = threading.Condition()
        self._pages = iter(pages)
        self._append(next(self._pages, ()))
        threading.Thread(target=self._fetch, name="listing", daemon=True).start()

    def __len__(self) -> int:
        self._wait()
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice) or index < 0:
            self._wait()
        elif index >= len(self._names):
            self._wait(index + 1)
        return self._names[index]

    @property
    def is_complete(self) -> bool:
        """Whether all names are there."""
        return self._is_over and self._error is None

    def stamp(self, name: str) -> Stamp:
        """The stamp of a name; an empty one if the listing has no such name."""
        index = self._find(name)
        if index is None:
            self._wait()
            index = self._find(name)
        return Stamp() if index is None else Stamp(self._sizes[index], self._times[index])

    def _find(self, name: str) -> int | None:
        index = bisect_left(self._names, name)
        is_there = index < len(self._names) and self._names[index] == name
        return index if is_there else None

    def _wait(self, number: int | None = None) -> None:
        """Wait for so many names, or for all. Fewer names than `number` are no error."""
        with self._news:
            self._news.wait_for(
                lambda: self._is_over or (number is not None and len(self._names) >= number)
            )
        if self._error and (number is None or len(self._names) < number):
            raise self._error

    def _fetch(self) -> None:
        try:
            for page in self._pages:
                with self._news:
                    self._append(page)
                    self._news.notify_all()
        except BaseException as error:  # raised in whoever waits
            self._error = error
        with self._news:
            self._is_over = True
            self._news.notify_all()

    def _append(self, page: Page) -> None:
        for name, stamp in page:
            if self._names and name <= self._names[-1]:
                raise JobError(
                    "the store does not list its films in the order of their names. Copy them to a "
                    "folder, and give that. Finished rows are kept."
                )
            self._sizes.append(stamp.size)
            self._times.append(stamp.mtime_ns)
            self._names.append(name)  # last: who finds the name finds its stamp
