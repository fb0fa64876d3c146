"""Views of a film."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lib.training.augmentation import augment
from lib.training.plan import Acquisition, Augmentation

FILM = np.asarray(Image.effect_mandelbrot((128, 128), (-2, -1.5, 1, 1.5), 50).convert("L"))
STILL = {"degrees": 0, "translation": 0, "scaling": 0, "brightness": 0, "contrast": 0}
NOTHING = Augmentation(**STILL, acquisition=None)
UNCHANGED = Acquisition(
    gamma=0, softness=0, sharpness=0, noise=0, jpeg=(100, 100), shrinking=1, equalised=0
)


def test_the_same_seed_epoch_and_film_give_the_same_view() -> None:
    first = augment(FILM, Augmentation(), 1, 2, 3)
    assert np.array_equal(first, augment(FILM, Augmentation(), 1, 2, 3))
    for other in ((9, 2, 3), (1, 9, 3), (1, 2, 9)):
        assert not np.array_equal(first, augment(FILM, Augmentation(), *other))


def test_views_keep_shape_and_type() -> None:
    view = augment(FILM, Augmentation(), 0, 0, 0)
    assert view.shape == FILM.shape
    assert view.dtype == np.uint8


def test_without_deviations_the_view_is_the_film() -> None:
    assert np.abs(augment(FILM, NOTHING, 0, 0, 0).astype(int) - FILM).max() <= 1


def test_an_acquisition_without_ranges_leaves_the_film() -> None:
    for number in range(20):
        view = augment(FILM, Augmentation(**STILL, acquisition=UNCHANGED), 0, 0, number)
        assert np.abs(view.astype(int) - FILM).mean() <= 1  # quality 100 still rounds


@pytest.mark.parametrize(
    ("change", "least"),
    [
        ({"gamma": 0.4}, 5),
        ({"softness": 1.2}, 0.5),
        ({"sharpness": 1.5}, 0.5),
        ({"noise": 8}, 1),
        ({"jpeg": (25, 30)}, 1),
        ({"shrinking": 0.4}, 1),
        ({"equalised": 1}, 5),
    ],
)
def test_each_range_changes_some_views(change: dict[str, Any], least: float) -> None:
    acquisition = Augmentation(**STILL, acquisition=replace(UNCHANGED, **change))
    views = [augment(FILM, acquisition, 0, 0, number).astype(int) for number in range(20)]
    differences = [np.abs(view - FILM).mean() for view in views]
    assert max(differences) > least


def test_no_view_is_mirrored() -> None:
    """The heart has a side: every view stays nearer to the film than to its mirror image."""
    film = np.zeros((128, 128), dtype=np.uint8)
    film[40:100, 70:110] = 200
    for number in range(50):
        view = augment(film, Augmentation(), 0, 1, number).astype(int)
        assert np.abs(view - film).mean() < np.abs(view - film[:, ::-1]).mean()


def _numpy_state() -> np.ndarray:
    return np.array(np.random.get_state(legacy=False)["state"]["key"])  # noqa: NPY002


def test_global_random_state_is_not_touched() -> None:
    import torch

    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    before = torch.get_rng_state().clone(), _numpy_state()
    augment(FILM, Augmentation(), 0, 0, 0)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], _numpy_state())
