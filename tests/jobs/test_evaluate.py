"""The evaluate job: a table, numbers from the table, figures."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from jobs import evaluate, split
from lib import settings
from lib.dataset.manifest import read_split
from lib.evaluation import evaluation as scoring
from lib.evaluation.evaluation import Options
from lib.evaluation.predictions import read_predictions
from lib.evaluation.results import ScoredModel
from lib.prediction.calibration import Calibration
from tests.conftest import LITE0, dirs, run


def _calibration(root: Path) -> Calibration | None:
    model = json.loads((root / "runs" / "model" / "model.json").read_text())
    return Calibration.read(model["calibration"])


def test_every_test_film_is_a_row_and_the_scores_are_those_of_the_table(chain: Path) -> None:
    folder = chain / "runs" / "evaluation"
    predictions = read_predictions(folder / "predictions.csv")
    assert len(predictions) == sum(row.split == "test" for row in read_split(chain / "data"))
    assert predictions[["prob_NORMAL", "prob_PNEUMONIA", "prob_TUBERCULOSIS"]].sum(
        axis=1
    ).to_numpy() == pytest.approx(1, abs=1e-5)
    baselines = pd.read_csv(folder / "baselines.csv", dtype=str)
    probe = pd.read_csv(folder / "source_probe.csv", dtype=str)
    written = json.loads((folder / "metrics.json").read_text())
    model, calibration = ScoredModel(**written["model"]), _calibration(chain)
    options = Options("TUBERCULOSIS", (0.005, 0.02, 0.1, 0.3), seed=settings.SEED.default)
    again = scoring.evaluate(predictions, baselines, model, calibration, options, probe=probe)
    assert json.loads(json.dumps(again.to_json())) == written
    assert model.phase == "b"


def test_the_control_stands_in_every_place_where_the_score_is_read(
    chain: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(evaluate, "--output", tmp_path, *LITE0, *dirs(chain)) == 0
    scores = json.loads((tmp_path / "metrics.json").read_text())
    control = scores["baselines"]["without_lung_box"]
    assert control["margin"]["interval"]
    assert control["no_lungs_found"] is not None
    texts = [(tmp_path / name).read_text() for name in ("report.html", "MODEL_CARD.md")]
    for text in (*texts, capsys.readouterr().out):
        assert "same frozen network without seeing a lung" in text
        assert f"{control['macro_f1']:.3f}" in text


def test_the_figures_are_pictures(chain: Path) -> None:
    for name in ("confusion.png", "roc.png", "overview.png"):
        with Image.open(chain / "runs" / "evaluation" / name) as image:
            assert min(image.size) > 300


def test_any_checkpoint_can_be_scored_into_a_folder_of_its_own(chain: Path, tmp_path: Path) -> None:
    a = chain / "runs" / "phase_a" / "best_efficientnet_lite0.pt"
    assert run(evaluate, "--checkpoint_path", a, "--output", tmp_path / "a", *dirs(chain)) == 0
    assert json.loads((tmp_path / "a" / "metrics.json").read_text())["model"]["phase"] == "a"


def test_another_model_keeps_its_folder_and_shows_no_training_of_this_one(
    chain: Path, tmp_path: Path
) -> None:
    shutil.copytree(chain / "runs" / "model", tmp_path / "model")
    (tmp_path / "model" / "MODEL_CARD.md").unlink()
    shutil.copytree(chain / "runs" / "phase_b", tmp_path / "runs" / "phase_b")
    summary = tmp_path / "runs" / "phase_b" / "summary.json"
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"weights_sha256": "0" * 64}))
    flags = [
        "--model",
        tmp_path / "model",
        "--data_dir",
        chain / "data",
        "--runs_dir",
        tmp_path / "runs",
    ]
    assert run(evaluate, *flags, "--nobaselines") == 0
    assert not (tmp_path / "model" / "MODEL_CARD.md").exists()
    assert (tmp_path / "runs" / "evaluation" / "MODEL_CARD.md").exists()
    assert "was not trained in the folder" in (tmp_path / "runs" / "report.html").read_text()


def test_predictive_values_are_given_for_the_prevalences_asked_for(
    chain: Path, tmp_path: Path
) -> None:
    assert run(evaluate, "--prevalences", "0.01,0.2", "--output", tmp_path, *dirs(chain)) == 0
    values = json.loads((tmp_path / "metrics.json").read_text())["operating_point"][
        "predictive_values"
    ]
    assert [row["prevalence"] for row in values] == [0.01, 0.2]
    assert "ppv_at_0.01" in (tmp_path / "thresholds.csv").read_text().splitlines()[0]
    for wrong in ("0.1,2", "0.1,x", "0"):
        assert run(evaluate, "--prevalences", wrong, "--output", tmp_path, *dirs(chain)) == 2


def test_anything_abnormal_is_reported_and_may_decide_the_predictions(
    chain: Path, tmp_path: Path
) -> None:
    flags = ["--operating_point", "abnormal", "--nobaselines", "--output", tmp_path]
    assert run(evaluate, *flags, *dirs(chain)) == 0
    usual = json.loads((chain / "runs/evaluation/metrics.json").read_text())
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["screening"] == usual["screening"]
    assert found["screening"]["positive"] == "abnormal"
    assert found["model"]["operating_point"] == "abnormal"
    confusion = dict(
        zip(found["classes"], zip(*found["confusion_matrix"], strict=True), strict=True)
    )
    others = sum(sum(column) for name, column in confusion.items() if name != "NORMAL")
    point = found["screening"]
    assert others == point["cases"] - point["missed"] + point["false_alarms"]
    page = (tmp_path / "report.html").read_text()
    assert "abnormal is predicted from its stored threshold on" in page
    assert "<h3>Anything abnormal</h3>" in page


def test_a_model_folder_without_a_screening_threshold_is_scored_without_it(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(chain / "runs" / "model", tmp_path / "model")
    manifest = json.loads((tmp_path / "model" / "model.json").read_text())
    del manifest["calibration"]["thresholds"]["abnormal"], manifest["sha256"]
    (tmp_path / "model" / "model.json").write_text(json.dumps(manifest))
    flags = ["--model", tmp_path / "model", "--nobaselines", "--output", tmp_path / "out"]
    assert run(evaluate, *flags, "--operating_point", "abnormal", *dirs(chain)) == 1
    assert "no threshold for it; it has them for NORMAL" in capsys.readouterr().err
    assert run(evaluate, *flags, *dirs(chain)) == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["screening"] is None
    assert found["operating_point"]["positive"] == "TUBERCULOSIS"
    assert "Anything abnormal" not in (tmp_path / "out" / "report.html").read_text()


def test_a_phase_has_a_model_of_its_own(chain: Path, tmp_path: Path) -> None:
    assert (
        run(
            evaluate,
            "--model",
            chain / "runs/phase_a/model",
            "--output",
            tmp_path / "a",
            *dirs(chain),
        )
        == 0
    )
    assert json.loads((tmp_path / "a" / "metrics.json").read_text())["model"]["phase"] == "a"


def test_scores_do_not_depend_on_the_cores_and_hardly_on_the_precision(
    chain: Path, tmp_path: Path
) -> None:
    for name, more in (("one", ["--cpus", "1"]), ("fp32", ["--precision", "fp32"])):
        assert run(evaluate, *more, "--output", tmp_path / name, *LITE0, *dirs(chain)) == 0
    first = (chain / "runs/evaluation/predictions.csv").read_text()
    assert (tmp_path / "one" / "predictions.csv").read_text() == first
    tables = [
        pd.read_csv(folder / "predictions.csv")
        for folder in (chain / "runs/evaluation", tmp_path / "fp32")
    ]
    assert tables[0]["confidence"].to_numpy() == pytest.approx(
        tables[1]["confidence"].to_numpy(), abs=0.08
    )


def test_a_model_of_another_backbone_or_two_models_are_refused(
    chain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(evaluate, "--backbone", "resnet18", *dirs(chain)) == 1
    assert "holds efficientnet_lite0" in capsys.readouterr().err
    assert run(evaluate, "--model", "a", "--checkpoint_path", "b", *dirs(chain)) == 2


def test_a_checkpoint_of_another_split_is_refused(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree((chain / "data").resolve(), tmp_path / "data")
    run(
        split,
        "--seed",
        "9",
        "--val_fraction",
        "0.15",
        "--test_fraction",
        "0.15",
        "--data_dir",
        tmp_path / "data",
    )
    argv = [
        "--data_dir",
        tmp_path / "data",
        "--runs_dir",
        chain / "runs",
        "--output",
        tmp_path / "out",
    ]
    assert run(evaluate, *LITE0, *argv) == 1
    assert "another split" in capsys.readouterr().err
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_test_film_that_cannot_be_read_any_more_is_a_row_and_exit_3(
    chain: Path, tmp_path: Path
) -> None:
    shutil.copytree((chain / "data").resolve(), tmp_path / "data")
    victim = next(row for row in read_split(tmp_path / "data") if row.split == "test")
    (tmp_path / "data" / victim.file).unlink()
    (tmp_path / "data" / victim.file).write_bytes(b"gone")
    argv = [
        "--data_dir",
        tmp_path / "data",
        "--runs_dir",
        chain / "runs",
        "--output",
        tmp_path / "out",
    ]
    assert run(evaluate, *LITE0, *argv) == 3
    scores = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert scores["unreadable"] == 1


def earlier_evaluation(folder: Path) -> list[Path]:
    """What an earlier evaluation left in this folder, and a later one may not write."""
    names = ("metrics.json", "recalibrated.csv", "repeats.csv", "leave_source_out.csv")
    folder.mkdir()
    for name in names:
        (folder / name).write_text("earlier")
    return [folder / name for name in names]


def test_a_class_of_interest_that_no_one_knows_is_refused_before_any_film_is_read(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = earlier_evaluation(tmp_path / "e")
    assert run(evaluate, "--positive", "TUBERCULOSE", "--output", tmp_path / "e", *dirs(chain)) == 1
    assert "--positive TUBERCULOSE: this model knows NORMAL" in capsys.readouterr().err
    assert (
        run(evaluate, "--compare", tmp_path / "none", "--output", tmp_path / "e", *dirs(chain)) == 1
    )
    assert "there is no" in capsys.readouterr().err
    assert not (tmp_path / "e/predictions.csv").exists()
    assert all(path.exists() for path in earlier)


def test_without_a_readable_test_film_there_is_nothing_to_score(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree((chain / "data").resolve(), tmp_path / "data")
    for film in (tmp_path / "data/test").rglob("*.*"):
        film.unlink()
        film.write_text("no film")
    earlier = earlier_evaluation(tmp_path / "e")
    code = run(
        evaluate,
        "--nobaselines",
        "--data_dir",
        tmp_path / "data",
        "--output",
        tmp_path / "e",
        "--runs_dir",
        chain / "runs",
    )
    assert code == 1
    assert "no film could be read" in capsys.readouterr().err
    assert (tmp_path / "e/predictions.csv").exists()
    assert not any(path.exists() for path in earlier)  # they are of other predictions


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_class_none_of_whose_test_films_can_be_read_is_left_without_scores(
    chain: Path, tmp_path: Path
) -> None:
    shutil.copytree((chain / "data").resolve(), tmp_path / "data")
    for film in (tmp_path / "data/test").rglob("*.*"):
        if film.parent.name != "NORMAL":
            film.unlink()
            film.write_text("no film")
    flags = [
        "--data_dir",
        tmp_path / "data",
        "--output",
        tmp_path / "e",
        "--runs_dir",
        chain / "runs",
    ]
    assert run(evaluate, *flags) == 3
    scores = json.loads((tmp_path / "e/metrics.json").read_text())
    assert scores["operating_point"] is None
    assert scores["scores"]["per_class"]["TUBERCULOSIS"]["auroc"]["value"] is None
    assert "has no stored threshold, or no test film" in (tmp_path / "e/report.html").read_text()
