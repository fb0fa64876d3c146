"""The scores of a model at home: found by the model, its calibration and its operating point."""

from dataclasses import replace
from pathlib import Path

from lib.evaluation.baselines import no_baselines
from lib.evaluation.evaluation import Options, evaluate
from lib.evaluation.home import scores_at_home
from lib.evaluation.results import ScoredModel
from lib.storage import atomic
from tests.evaluation.conftest import screened

MODEL = ScoredModel("net@0123", "b", "fp32", "0" * 64, "1" * 64)


def test_scores_at_home_are_of_the_same_calibration(tmp_path: Path) -> None:
    table = screened([0.9, 0.8, 0.3, 0.7], [0.1, 0.2, 0.6, 0.4]).assign(reasons="")
    found = evaluate(table, no_baselines(), MODEL, None, Options("TUBERCULOSIS", (), 0))
    folder = tmp_path / "evaluation"
    atomic.write_json(folder / "metrics.json", found.to_json())
    table.to_csv(folder / "predictions.csv", index=False)
    home = scores_at_home(tmp_path, MODEL, "TUBERCULOSIS")
    assert home
    assert home.films == 8
    site = replace(MODEL, name="net@0123+ward_3@4567")  # same weights
    assert scores_at_home(tmp_path, site, "TUBERCULOSIS") is None
    called = replace(MODEL, operating_point="TUBERCULOSIS")
    assert scores_at_home(tmp_path, called, "TUBERCULOSIS") is None
