"""The crop to the lungs: its geometry, films without lungs, the copy of the segmenter."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib.dataset import synthetic
from lib.images.decode import read_grey
from lib.network.crop import (
    EVEN_DEVIATION,
    EVEN_MEAN,
    LEAST_DEVIATION,
    LungCropper,
    crop_to_lungs,
    evenly_exposed,
)
from lib.network.lungs import (
    FILES,
    FOLDER,
    SIDE,
    LungFinder,
    Lungs,
    copy_segmenter,
    require_segmenter,
    segmenter_digest,
)
from lib.run.errors import JobError
from lib.workers.threads import map_ordered

EMPTY = np.zeros((SIDE, SIDE), bool)


def _lungs(left: float, top: float, right: float, bottom: float) -> Lungs:
    mask = EMPTY.copy()
    edges = [round(SIDE * edge) for edge in (left, top, right, bottom)]
    mask[edges[1] : edges[3], edges[0] : edges[2]] = True
    return Lungs(mask, mask, (left, top, right, bottom), "upright", 0.9)


@pytest.fixture(scope="module")
def phantom() -> np.ndarray:
    film = synthetic.draw("NORMAL", (3,), (4,))
    return np.asarray(Image.fromarray(film).resize((448, 448), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("shape", [(400, 400), (300, 900)])
def test_the_crop_of_a_decoded_film_is_its_box_with_the_margin(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    height, width = shape
    film = np.zeros(shape, np.uint8)
    film[round(0.24 * height) : round(0.86 * height), round(0.14 * width) : round(0.76 * width)] = (
        200
    )
    Image.fromarray(film).save(tmp_path / "a.png")
    decoded = read_grey(tmp_path / "a.png", 448)
    view = crop_to_lungs(decoded, _lungs(0.2, 0.3, 0.7, 0.8), 224)
    assert view.shape == (224, 224)
    assert view[3:-3, 3:-3].min() == 200  # 0.14 to 0.76 by 0.24 to 0.86: the bright part alone
    wider = crop_to_lungs(decoded, _lungs(0.2, 0.3, 0.75, 0.8), 224)
    assert wider[112, -6] == 0
    assert wider[112, 6] == 200


def test_the_mask_in_the_crop_lies_where_the_lungs_lie_in_the_view() -> None:
    lungs = _lungs(0.25, 0.25, 0.75, 0.75)
    inside = lungs.mask_in_crop(62)
    rows = np.flatnonzero(inside.any(1))
    assert inside.shape == (62, 62)
    assert (rows[0], rows[-1]) == (6, 55)  # the margin is .06 of .62


def test_a_film_without_lungs_is_used_whole() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (448, 448), np.uint8)
    view = LungCropper(1).view(noise, 224)
    assert view.lungs.box is None
    whole = Image.fromarray(noise).resize((224, 224), Image.Resampling.BILINEAR)
    assert np.array_equal(view.grey, np.asarray(whole))


@pytest.mark.parametrize(("gain", "shift"), [(1.0, 0), (0.4, 20), (0.7, 70)])
def test_views_look_alike_however_the_film_was_exposed(
    phantom: np.ndarray, gain: float, shift: int
) -> None:
    view = evenly_exposed((phantom * gain + shift).clip(0, 255).astype(np.uint8))
    assert view.mean() == pytest.approx(EVEN_MEAN, abs=3)
    assert view.std() == pytest.approx(EVEN_DEVIATION, abs=4)
    assert np.abs(view.astype(int) - evenly_exposed(phantom)).mean() < 2


def test_a_flat_film_is_not_stretched_to_noise() -> None:
    flat = np.full((224, 224), 90, np.uint8)
    flat[::2] += 1
    assert np.ptp(evenly_exposed(flat)) <= np.ceil(EVEN_DEVIATION / LEAST_DEVIATION)


def test_threads_and_streams_do_not_change_a_view(phantom: np.ndarray) -> None:
    films = [np.roll(phantom, shift, axis=1) for shift in range(0, 40, 4)]
    alone = [LungCropper(1).view(film, 224) for film in films]
    cropper = LungCropper(3)
    together = list(map_ordered(lambda film: cropper.view(film, 224), films, 4))
    assert {one.lungs.box for one in alone} != {None}
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.grey, other.grey)
        assert one.lungs.box == other.lungs.box


def test_a_copied_segmenter_finds_the_same_lungs(tmp_path: Path, phantom: np.ndarray) -> None:
    copy_segmenter(tmp_path, segmenter_digest())
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    assert segmenter_digest(tmp_path) == segmenter_digest()
    assert LungFinder(folder=tmp_path).find(phantom).box == LungFinder().find(phantom).box


def test_another_segmenter_than_that_of_the_training_is_refused(tmp_path: Path) -> None:
    require_segmenter(segmenter_digest())
    with pytest.raises(JobError, match="another lung segmenter"):
        copy_segmenter(tmp_path, "of-an-earlier-version")


def test_the_digest_is_that_of_weights_and_graph_not_of_the_figures(tmp_path: Path) -> None:
    copy_segmenter(tmp_path, segmenter_digest())
    record = json.loads((FOLDER / "lungs.json").read_text())
    (tmp_path / "lungs.json").write_text(json.dumps({**record, "films": {}}))
    assert segmenter_digest(tmp_path) == segmenter_digest()
    (tmp_path / "lungs.bin").write_bytes(b"")
    with pytest.raises(JobError, match=r"lungs\.bin differs"):
        segmenter_digest(tmp_path)
