"""The page of a table with a reader's labels: what it says, what it lacks, and when."""

import re
from pathlib import Path

from lib.evaluation.baselines import no_baselines
from lib.evaluation.evaluation import Options, evaluate
from lib.evaluation.labelled_batch import with_labelled_batch
from lib.evaluation.labelled_table import LabelledEvaluation
from lib.evaluation.results import LabelledBatch
from lib.network.artifact import ModelManifest
from lib.prediction.calibration import Calibration
from lib.reports.labelled_page import write_labelled_report
from tests.evaluation.conftest import MODEL, screened

TB = "TUBERCULOSIS"
TABLE = screened([0.9] * 18 + [0.4] * 2, [0.1] * 55 + [0.6] * 5)
CALIBRATION = Calibration(9, 1.0, 0.9, 0.1, 0.9, {TB: 0.3}, 1.0, 0.0)


def batch(chosen: str, words: str) -> LabelledBatch:
    generalises = chosen in ("all", "random sample")
    return LabelledBatch("<x>.csv", chosen, generalises, words, 90, 82, 1, 1, 0, 3)  # type: ignore[arg-type]


def page(tmp_path: Path, chosen: str, manifest: ModelManifest | None) -> str:
    options = Options(TB, (0.02, 0.1), 0)
    calibration = CALIBRATION if manifest else None
    found = evaluate(TABLE, no_baselines(), MODEL, calibration, options)
    found = with_labelled_batch(found, batch(chosen, "The words of the batch."))
    write_labelled_report(tmp_path / "x.html", LabelledEvaluation(found, TABLE, manifest), 0)
    text = (tmp_path / "x.html").read_text()
    assert "{{" not in text
    assert "&lt;x&gt;.csv" in text
    assert "The words of the batch." in text
    assert "baselines that see no lung need the films" in text
    return text


def sections(text: str) -> list[str]:
    return re.findall(r'<section id="(\w+)">', text)


def test_a_random_sample_has_intervals_reliability_and_the_slider(
    tmp_path: Path, chain: Path
) -> None:
    manifest = ModelManifest.read(chain / "runs" / "model")
    text = page(tmp_path, "random sample", manifest)
    assert sections(text) == ["verdict", "scores", "calibration", "operating", "lacking"]
    assert "Scores with 95 % intervals" in text
    assert 'id="threshold-flag"' in text
    assert text.count("<svg") == 4  # confusion, ROC, precision and recall, reliability


def test_without_the_models_folder_it_says_why_there_is_no_operating_point(tmp_path: Path) -> None:
    text = page(tmp_path, "all", None)
    assert sections(text) == ["verdict", "scores", "lacking"]
    assert "is not in the folder of runs" in text


def test_labels_that_do_not_generalise_have_no_interval(tmp_path: Path) -> None:
    text = page(tmp_path, "review only", None)
    assert sections(text) == ["verdict", "scores", "lacking"]
    assert "Scores with 95" not in text
    assert not re.search(r"\d \(0\.\d+ to", text)
    assert "speak of other films" in text
