"""Maps: evidence where it was put, and the share of it outside the lungs."""

import numpy as np
import pytest

from lib.network.lungs import SIDE, Lungs
from lib.prediction import maps


def _maps(row: int, column: int) -> np.ndarray:
    maps = np.zeros((3, 7, 7), np.float32)
    maps[1, row, column] = 5.0
    return maps


def test_evidence_in_the_middle_lies_inside_and_in_a_corner_outside() -> None:
    assert maps.share_outside_lungs(_maps(3, 3), 1) < 0.05
    assert maps.share_outside_lungs(_maps(0, 0), 1) > 0.75


def test_the_lungs_of_the_film_replace_the_rectangle_where_they_are_known() -> None:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[32:96, 32:60] = True  # the left half of the box
    lungs = Lungs(mask, mask, (0.25, 0.25, 0.75, 0.75), "upright", 0.9)
    assert maps.share_outside_lungs(_maps(3, 1), 1, lungs) < 0.3
    assert maps.share_outside_lungs(_maps(3, 5), 1, lungs) == pytest.approx(1)
    none = Lungs(mask & False, mask & False, None, "no lungs", 0.0)
    assert maps.share_outside_lungs(_maps(3, 5), 1, none) == maps.share_outside_lungs(
        _maps(3, 5), 1
    )


def test_the_outline_is_the_edge_of_the_mask_alone() -> None:
    picture, mask = np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    drawn = (maps.with_outline(picture, mask) == maps.OUTLINE).all(2)
    assert drawn.sum() == 10 * 10 - 8 * 8
    assert drawn[5, 9]
    assert not drawn[9, 9]
    assert not picture.any()


def test_no_evidence_is_no_share() -> None:
    assert maps.share_outside_lungs(np.zeros((3, 7, 7), np.float32), 0) == 0.0


def test_what_all_classes_share_is_no_evidence() -> None:
    drawn = np.random.default_rng(0).normal(size=(3, 7, 7)).astype(np.float32)
    assert maps.evidence(drawn + 7.0, 2) == pytest.approx(maps.evidence(drawn, 2), abs=1e-5)


def test_the_overlay_is_orange_where_the_evidence_is_and_the_film_elsewhere() -> None:
    film = np.full((224, 224), 100, np.uint8)
    picture = np.asarray(maps.overlay(film, _maps(1, 5), 1))
    assert picture.shape == (224, 224, 3)
    red, _, blue = picture[48, 176].astype(int)
    assert red > blue + 60
    assert picture[200, 20].tolist() == [100, 100, 100]
