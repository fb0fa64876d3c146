"""The near-duplicate search against all pairs."""

import numpy as np
import pytest

from lib.dataset.duplicates import CROWD, near_duplicates


def _all_pairs(hashes: list[str], bits: int) -> list[list[int]]:
    words = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint64).reshape(-1, 4)
    distance = np.bitwise_count(words[:, None] ^ words[None]).sum(axis=2)
    first, second = np.nonzero(distance <= bits)
    return np.stack([first, second], axis=1)[first < second].tolist()


def _planted(count: int, seed: int) -> list[str]:
    """Random hashes; a fifth of them are another one with 0 to 13 bits flipped."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (count, 256), dtype=np.uint8)
    for copy, original in rng.choice(count, (count // 5, 2)):
        bits[copy] = bits[original]
        bits[copy, rng.choice(256, int(rng.integers(0, 14)), replace=False)] ^= 1
    return [row.tobytes().hex() for row in np.packbits(bits, axis=1)]


@pytest.mark.parametrize("bits", [0, 1, 10])
def test_the_search_finds_the_pairs_that_comparing_all_finds(bits: int) -> None:
    hashes = _planted(1500, seed=bits)
    expected = _all_pairs(hashes, bits)
    assert len(expected) > 10
    assert near_duplicates(hashes, bits).tolist() == expected


def test_ten_flipped_bits_are_found_wherever_they_lie() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, 256, dtype=np.uint8)
    for _ in range(30):
        other = bits.copy()
        other[rng.choice(256, 10, replace=False)] ^= 1
        hashes = [np.packbits(row).tobytes().hex() for row in (bits, other)]
        assert near_duplicates(hashes).tolist() == [[0, 1]]
    stride = bits.copy()
    stride[:110:11] ^= 1
    hashes = [np.packbits(row).tobytes().hex() for row in (bits, stride)]
    assert near_duplicates(hashes).tolist() == [[0, 1]]


def test_a_crowd_of_equal_hashes_is_one_group_with_few_pairs() -> None:
    pairs = near_duplicates(["00" * 32] * 3000)
    assert len(pairs) == CROWD * (CROWD - 1) // 2 + 3000 - CROWD
    assert set(pairs.ravel().tolist()) == set(range(3000))


def test_nothing_and_one_film_have_no_pairs() -> None:
    assert near_duplicates([]).shape == near_duplicates(["00" * 32]).shape == (0, 2)
