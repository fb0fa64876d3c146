"""--recalibrate: what is refused, and that a calibration is scored on films it has not seen."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib.dataset.manifest import FilmRecord
from lib.evaluation.evaluation import Options
from lib.evaluation.films import LabelledFilm
from lib.evaluation.predictions import PROBABILITY
from lib.evaluation.recalibration import CaseMix, SiteFilms, _require_shares, _scores, site_name
from lib.evaluation.request import read_prevalence
from lib.images.reader import Film
from lib.prediction.prediction import Prediction
from lib.run.errors import JobError, UsageError

CLASSES = ("NORMAL", "PNEUMONIA", "TUBERCULOSIS")


def _site(films: int, seed: int = 0) -> SiteFilms:
    """Two films per patient; no film of PNEUMONIA."""
    generator = np.random.default_rng(seed)
    record = FilmRecord.__new__(FilmRecord)
    labelled, predictions = [], []
    for number in range(films):
        label = "TUBERCULOSIS" if number % 4 < 2 else "NORMAL"
        name = f"{number}.png"
        labelled.append(LabelledFilm(name, Path(name), label, f"p{number // 2}", "", record))
        logits = generator.normal(0, 1, 3).astype(np.float32)
        logits[CLASSES.index(label)] += 2
        thumbnail = generator.integers(0, 255, (32, 32)).astype(np.uint8)
        features = generator.normal(size=8).astype(np.float32)
        film = Film(Path(name), thumbnail=thumbnail, contrast=50.0)
        predictions.append(Prediction(film, logits, features=features))
    return SiteFilms(labelled, predictions, CLASSES)


def test_no_patient_is_fitted_on_and_scored_at_once() -> None:
    site = _site(80)
    scored: list[int] = []
    for to_fit, to_score in site.halves(0):
        groups = np.array(site.groups)
        assert not set(groups[to_fit]) & set(groups[to_score])
        assert 30 <= len(to_score) <= 50
        scored += to_score.tolist()
    assert sorted(scored) == list(range(80))


def test_a_class_without_films_is_hardly_predicted_unless_its_share_is_stated() -> None:
    site = _site(200)
    logits = np.stack([one.logits for one in site.predictions if one.logits is not None])
    everything = np.arange(200)
    as_found, _ = site.fit(everything, CaseMix.of(site, {}))
    assert as_found.probabilities(logits)[:, 1].mean() < 0.01
    assert set(as_found.thresholds) == {"NORMAL", "TUBERCULOSIS", "abnormal"}
    stated, _ = site.fit(everything, CaseMix.of(site, {"PNEUMONIA": 0.3}))
    assert stated.probabilities(logits)[:, 1].mean() > 0.1


def test_without_stated_prevalences_nothing_is_shifted() -> None:
    mix = CaseMix.of(_site(80), {})
    assert mix.offsets == pytest.approx(np.zeros(3))
    assert mix.ratios == pytest.approx(np.ones(3))


@pytest.mark.parametrize("texts", [("TB",), ("TB=x",), ("TB=0",), ("TB=1.2",), ("A=.6", "B=.6")])
def test_a_prevalence_is_a_class_and_a_share(texts: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="--prevalence takes"):
        read_prevalence(texts)
    assert read_prevalence(("TB=0.02", " NORMAL = .9 ")) == {"TB": 0.02, "NORMAL": 0.9}


def test_the_name_of_a_site_fits_into_a_cell() -> None:
    assert site_name(Path("/srv/sites/St Mary, ward 3")) == "St_Mary_ward_3"


def test_predictions_are_kept_without_pixels() -> None:
    prediction = _site(4).predictions[0]
    seen = replace(prediction, film=replace(prediction.film, grey=np.zeros((224, 224), np.uint8)))
    assert seen.without_pixels().film.grey.size == 0
    assert seen.without_pixels().film.thumbnail.size == 32 * 32


def test_films_that_cannot_be_read_are_in_no_score() -> None:
    site = _site(80)
    calibration, _ = site.fit(np.arange(80), CaseMix.of(site, {}))
    rows = [
        {"path": film.name, "label": film.label, "group": film.group, "reasons": ""}
        | {"prediction": film.label, "needs_review": str(number % 4 == 0)}
        | dict.fromkeys((PROBABILITY + name for name in CLASSES), 1 / 3)
        for number, film in enumerate(site.films)
    ]
    lost = rows[0] | {"path": "lost.png", "prediction": "", "needs_review": "True"}
    options = Options("TUBERCULOSIS", (), 0)
    found = [
        _scores(pd.DataFrame(table), [calibration] * 80, np.ones(80), options)
        for table in (rows, [*rows, lost])
    ]
    assert found[0].needs_review == 0.25
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"NORMAL": 0.5, "PNEUMONIA": 0.5}, "leave nothing for the other classes"),
        ({"NORMAL": 0.5, "PNEUMONIA": 0.2, "TUBERCULOSIS": 0.2}, "must add up to 1"),
    ],
)
def test_shares_that_no_case_mix_has_are_refused(shares: dict[str, float], said: str) -> None:
    with pytest.raises(JobError, match=said):
        _require_shares(shares, CLASSES)
    _require_shares({"NORMAL": 0.5, "PNEUMONIA": 0.2, "TUBERCULOSIS": 0.3}, CLASSES)
    _require_shares({"NORMAL": 0.9}, CLASSES)
    _require_shares({}, CLASSES)
