"""Baselines learn what a file shows without its lungs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lib.evaluation import baselines
from lib.evaluation.baselines import BASELINES, LUNGS_FOUND, Compute, metadata_features
from lib.evaluation.films import EvaluationSet, LabelledFilm
from lib.evaluation.hidden_lungs import WithoutLungs
from tests.conftest import film
from tests.dataset.test_audit import film_record


class _Lungless:
    """Features that show nothing; every third film has no lungs, broken files none."""

    def of(self, files: Sequence[Path]) -> list[WithoutLungs | None]:
        nothing = np.zeros(4, np.float32)
        return [
            None
            if file.read_bytes() == b"no film"
            else WithoutLungs(nothing, nothing, int(file.stem) % 3 > 0)
            for file in files
        ]

    def knows(self, file: Path) -> bool:
        return file.exists()


COMPUTE = Compute(seed=0, cores=1, readers=1, lungless=_Lungless())


@pytest.mark.parametrize("names", ["AB", "01"])
def test_a_class_that_differs_by_its_size_is_found_from_metadata(names: str) -> None:
    films = [film_record(n, names[n % 2], width=224 + n % 2) for n in range(80)]
    labels = [record.label for record in films]
    features = metadata_features(films)
    predicted = baselines.fit_predict_forest(features[:60], labels[:60], features[60:], COMPUTE)
    assert predicted.names == labels[60:]


def test_every_baseline_predicts_every_film_also_one_that_cannot_be_read(tmp_path: Path) -> None:
    films = []
    for number in range(40):
        label, width = "AB"[number % 2], 64 + number % 2
        file = film(tmp_path / f"{number}.png", seed=number % 2, side=64)
        record = film_record(number, label, width=width)
        films.append(LabelledFilm(file.name, file, label, str(number), "", record))
    films[-1].file.write_bytes(b"no film")
    records = [one.record for one in films]
    found = EvaluationSet(films[30:], tmp_path, films[:30], records, tmp_path)
    table = baselines.predict_baselines(found, COMPUTE)
    assert list(table.columns) == ["path", *BASELINES, LUNGS_FOUND]
    assert table["path"].tolist() == found.names
    assert table["metadata"].tolist() == found.labels
    assert table["thumbnail"].tolist()[:-1] == found.labels[:-1]
    assert table[list(BASELINES)].isin(["A", "B"]).all(axis=None)
    found_on = [int(name.removesuffix(".png")) % 3 > 0 for name in found.names[:-1]]
    assert table[LUNGS_FOUND].tolist() == [*map(str, found_on), ""]


def test_no_baselines_is_a_table_with_the_same_columns_and_no_row() -> None:
    table = baselines.no_baselines()
    assert table.empty
    assert list(table.columns) == [
        *("path", "metadata", "thumbnail", "without_lung_box", "without_lung_mask", "lungs_found")
    ]


def test_metadata_features_show_no_anatomy() -> None:
    first, second = film_record(1, "A"), film_record(2, "A")
    assert first.dhash != second.dhash
    features = metadata_features([first, second])
    assert np.array_equal(features[0], features[1])
