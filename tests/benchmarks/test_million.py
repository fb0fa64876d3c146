"""Made-up films are like real ones, and the jobs that read their tables keep their limits."""

from pathlib import Path

import numpy as np

from tests.benchmarks import made_up, million


def test_near_duplicates_are_those_of_all_pairs() -> None:
    assert million.equal_to_all_pairs(3000)


def test_made_up_hashes_lie_as_close_together_as_those_of_real_films() -> None:
    packed = np.frombuffer(bytes.fromhex("".join(made_up.dhashes(600))), np.uint64).reshape(600, 4)
    distance = np.bitwise_count(packed[:, None] ^ packed[None]).sum(axis=2)
    apart = distance[np.triu_indices(600, 1)]
    assert 60 < np.median(apart) < 90
    assert np.mean((apart > 10) & (apart < 18)) < 1e-4


def test_ten_thousand_films_are_split_in_seconds(tmp_path: Path) -> None:
    made_up.write_raw(tmp_path, 10_000)
    cost = million.measure("split", 10_000, tmp_path)
    assert cost.cpu < 10
    assert cost.memory < 500
