"""The ordered parallel map."""

import threading
from collections.abc import Iterator

import pytest

from lib.workers.threads import map_ordered


def test_results_come_in_input_order() -> None:
    gate = threading.Event()

    def slow_first(number: int) -> int:
        if number == 0:
            gate.wait(10)
        elif number == 3:
            gate.set()
        return number * 2

    assert list(map_ordered(slow_first, range(10), threads=2, lookahead=8)) == [
        number * 2 for number in range(10)
    ]


def test_it_never_runs_further_ahead_than_asked() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = map_ordered(lambda number: number, items(), threads=2, lookahead=5)
    for _ in range(3):
        next(results)
    assert len(taken) <= 3 + 5


def test_an_exception_comes_where_its_result_would_have() -> None:
    results = map_ordered(lambda number: 10 // number, [5, 2, 0, 1], threads=2)
    assert [next(results), next(results)] == [2, 5]
    with pytest.raises(ZeroDivisionError):
        next(results)
