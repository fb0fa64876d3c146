"""The control: the network does not see a lung, and sees everything else."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lib.evaluation import hidden_lungs
from lib.evaluation.baselines import BASELINES, CONTROLS, Compute
from lib.evaluation.films import LabelledFilm
from lib.evaluation.hidden_lungs import LunglessFeatures, without_box, without_mask
from lib.network.lungs import FOLDER, SIDE, Lungs
from lib.prediction.predictor import Predictor
from tests.dataset.test_audit import film_record

EMPTY = np.zeros((SIDE, SIDE), bool)
NO_LUNGS = Lungs(EMPTY, EMPTY, None, "no lungs", 0.0)


def _lungs() -> Lungs:
    """Two lungs in the middle half of the film."""
    mask = EMPTY.copy()
    mask[32:96, 32:56] = mask[32:96, 72:96] = True
    return Lungs(mask, mask, (0.25, 0.25, 0.75, 0.75), "upright", 0.9)


def test_the_box_of_the_crop_is_black_and_nothing_else() -> None:
    film = np.full((200, 200), 90, np.uint8)
    seen = without_box(film, _lungs())
    assert not seen[38:162, 38:162].any()  # 0.19 to 0.81
    assert (seen == 0).sum() == 124 * 124
    assert film.all()


def test_the_lungs_are_black_and_what_lies_between_them_is_not() -> None:
    seen = without_mask(np.full((256, 256), 90, np.uint8), _lungs())
    black = np.asarray(Image.fromarray(seen == 0).resize((SIDE, SIDE)))
    assert black[_lungs().mask].all()
    assert seen[128, 128] == 90
    assert (without_box(seen, _lungs()) == 0).sum() > (seen == 0).sum()


def test_without_lungs_the_central_field_is_black_in_both() -> None:
    film = np.full((100, 100), 90, np.uint8)
    for seen in (without_box(film, NO_LUNGS), without_mask(film, NO_LUNGS)):
        assert not seen[12:85, 10:90].any()
        assert (seen == 0).sum() == 73 * 80


class _Finder:
    """Finds the same lungs on every film; none on a black one."""

    def __init__(self, threads: int, folder: Path) -> None:
        self.folder = folder

    def find(self, film: np.ndarray) -> Lungs:
        return _lungs() if film.any() else NO_LUNGS


@pytest.fixture(scope="module")
def predictor(chain: Path) -> Predictor:
    return Predictor(chain / "runs/model", "fp32", 1, 1)


@pytest.fixture
def features(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> LunglessFeatures:
    monkeypatch.setattr(hidden_lungs, "LungFinder", _Finder)
    return LunglessFeatures(predictor)


def _films(folder: Path, rows: slice, columns: slice) -> list[LabelledFilm]:
    """Noise, on every second film with a bright patch."""
    films = []
    for number in range(24):
        pixels = np.random.default_rng(number).integers(40, 80, (96, 96)).astype(np.uint8)
        pixels[rows, columns] += 150 * (number % 2)
        file = folder / f"{number}.png"
        Image.fromarray(pixels).save(file)
        label = "AB"[number % 2]
        films.append(
            LabelledFilm(file.name, file, label, file.name, "", film_record(number, label))
        )
    return films


def _predict(films: Sequence[LabelledFilm], features: LunglessFeatures, view: str) -> float:
    """Accuracy on the last third of the films."""
    compute = Compute(seed=0, cores=1, readers=1, lungless=features)
    predicted = BASELINES[view].predict(films[:16], films[16:], compute).names
    return float(
        np.mean([film.label == name for film, name in zip(films[16:], predicted, strict=True)])
    )


@pytest.mark.parametrize("view", CONTROLS)
def test_a_marker_beside_the_lungs_gives_the_class_away(
    tmp_path: Path, features: LunglessFeatures, view: str
) -> None:
    films = _films(tmp_path, slice(0, 14), slice(0, 14))
    assert _predict(films, features, view) == 1


@pytest.mark.parametrize("view", ["box", "mask"])
def test_what_lies_in_a_lung_has_no_influence(
    tmp_path: Path, features: LunglessFeatures, view: str
) -> None:
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    ill = _films(tmp_path / "with", slice(40, 60), slice(28, 38))
    healthy = _films(tmp_path / "without", slice(0, 0), slice(0, 0))
    pairs = zip(
        features.of([film.file for film in ill]),
        features.of([film.file for film in healthy]),
        strict=True,
    )
    assert all(np.array_equal(getattr(a, view), getattr(b, view)) for a, b in pairs)


def test_a_film_is_computed_once_and_one_that_cannot_be_read_has_no_features(
    tmp_path: Path, features: LunglessFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    film, black, broken = (tmp_path / f"{name}.png" for name in ("film", "black", "broken"))
    Image.fromarray(np.full((96, 96), 90, np.uint8)).save(film)
    Image.fromarray(np.zeros((96, 96), np.uint8)).save(black)
    broken.write_bytes(b"no film")
    first, second, third = features.of([film, broken, black])
    assert first is not None
    assert second is None
    assert third is not None
    assert (first.lungs_found, third.lungs_found) == (True, False)
    asked: list[Path] = []
    compute = features._compute

    def counted(files: Sequence[Path]) -> Any:
        asked.extend(files)
        return compute(files)

    monkeypatch.setattr(features, "_compute", counted)
    assert features.of([black, film]) == [third, first]
    assert asked == []


@pytest.mark.parametrize("crop", ["none", "lungs"])
def test_a_model_of_crops_brings_its_own_segmenter(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, crop: Any
) -> None:
    monkeypatch.setattr(hidden_lungs, "LungFinder", _Finder)
    monkeypatch.setattr(predictor, "manifest", replace(predictor.manifest, crop=crop))
    finder: Any = LunglessFeatures(predictor)._finder
    assert finder.folder == (predictor.folder if crop == "lungs" else FOLDER)
