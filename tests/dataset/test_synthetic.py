"""Generated films: reproducible, defective where planned, and not to be told apart by anything but
the lungs.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from lib.dataset import chest, synthetic
from lib.dataset.duplicates import near_duplicates
from lib.images.decode import read_grey
from lib.run.errors import UnreadableFilmError
from lib.storage.atomic import sha256_of


def test_the_same_seed_draws_the_same_bytes_on_any_number_of_threads(tmp_path: Path) -> None:
    films = synthetic.write_films(tmp_path / "one", 30, seed=5, threads=1)
    synthetic.write_films(tmp_path / "two", 30, seed=5, threads=3)
    for film in films:
        assert sha256_of(tmp_path / "one" / film.relative_path) == sha256_of(
            tmp_path / "two" / film.relative_path
        )


def test_another_seed_draws_other_films(tmp_path: Path) -> None:
    first = synthetic.write_films(tmp_path / "one", 30, seed=5)[0]
    second = synthetic.write_films(tmp_path / "two", 30, seed=6)[0]
    assert sha256_of(tmp_path / "one" / first.relative_path) != sha256_of(
        tmp_path / "two" / second.relative_path
    )


def test_patients_have_one_to_four_films() -> None:
    films = [film for film in synthetic.plan_films(360, 0) if film.name.startswith("patient")]
    per_patient = Counter(film.anatomy_seed for film in films)
    assert len(films) == 360
    assert set(per_patient.values()) == {1, 2, 3, 4}


def test_the_planted_defects_are_there(phantom_films: Path) -> None:
    films = synthetic.plan_films(75, 3)
    twins = [film for film in films if film.folder]
    digests = Counter(sha256_of(phantom_films / film.relative_path) for film in films)
    assert twins
    assert sum(count - 1 for count in digests.values()) == len(twins)
    assert any(film.name.startswith("export-") for film in films)
    assert any(film.tint for film in films)
    broken = next(film for film in films if film.truncated)
    with pytest.raises(UnreadableFilmError, match="truncated"):
        read_grey(phantom_films / broken.relative_path, 64)


def test_different_films_are_no_near_duplicates(phantom_films: Path) -> None:
    from lib.images.measure import measure

    films = [film for film in synthetic.plan_films(75, 3) if film.name.startswith("patient")]
    hashes = [measure(phantom_films / film.relative_path).dhash for film in films]
    assert len(near_duplicates(hashes)) == 0


def test_brightness_contrast_size_and_file_type_do_not_tell_the_class(phantom_films: Path) -> None:
    assert accuracy_of_metadata(phantom_films, synthetic.plan_films(75, 3)) < 0.55  # chance: 0.35


def test_in_the_confounded_set_they_do(tmp_path: Path) -> None:
    confounded = synthetic.SETS["phantom:confounded"]
    films = synthetic.write_films(tmp_path, 36, seed=3, threads=2, film_set=confounded)
    assert accuracy_of_metadata(tmp_path, films) > 0.95


def accuracy_of_metadata(folder: Path, films: list[synthetic.DrawnFilm]) -> float:
    films = [film for film in films if not film.folder and not film.truncated]
    features = []
    for film in films:
        with Image.open(folder / film.relative_path) as image:
            grey = np.asarray(image.convert("L"), dtype=float)
            features.append(
                [grey.mean(), grey.std(), *image.size, image.format == "PNG", len(image.getbands())]
            )
    table = np.array(features)
    table = (table - table.mean(0)) / (table.std(0) + 1e-9)
    labels = [film.label for film in films]
    return float(cross_val_score(LogisticRegression(), table, labels, cv=5).mean())


def test_the_confounded_set_shows_the_same_chests() -> None:
    fair = synthetic.plan_films(75, 3)
    confounded = synthetic.plan_films(75, 3, synthetic.SETS["phantom:confounded"])
    made = [(film.label, film.seed, film.anatomy_seed) for film in fair if "patient" in film.name]
    assert made == [
        (film.label, film.seed, film.anatomy_seed) for film in confounded if "patient" in film.name
    ]
    assert len({(film.label, film.hospital) for film in confounded}) == 3


def test_the_films_from_elsewhere_show_other_patients() -> None:
    home = {film.anatomy_seed for film in synthetic.plan_films(1200, 3)}
    elsewhere = synthetic.plan_films(1200, 3, synthetic.SETS["phantom:elsewhere"])
    assert not home & {film.anatomy_seed for film in elsewhere}
    assert {film.label for film in elsewhere} == set(synthetic.CLASSES)


@pytest.mark.parametrize("label", chest.FINDINGS)
def test_disease_changes_the_lungs_and_nothing_else(label: str) -> None:
    for number in range(20):
        healthy, ill = (
            chest.draw(name, np.random.default_rng(number), np.random.default_rng((number, 1)))
            for name in ("NORMAL", label)
        )
        lungs, _ = chest.thorax(
            *chest.pose(np.random.default_rng(number)), np.random.default_rng((number, 1))
        )
        assert np.abs(ill - healthy)[lungs < 0.01].max() < 0.01
        assert (ill - healthy)[lungs > 0.5].max() > 0.1 * chest.AIR
