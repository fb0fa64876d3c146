"""report.html of a table with a reader's labels: the parts of the report that need no film."""

from pathlib import Path

from lib.evaluation.labelled_table import LabelledEvaluation
from lib.reports.figures import evaluation_figures
from lib.reports.pages import SCORE_NAMES
from lib.reports.rendering import write_page
from lib.reports.slider import threshold_slider


def write_labelled_report(path: Path, scored: LabelledEvaluation, seed: int) -> None:
    """Write the page. Where labels do not generalise it has no calibration and no threshold."""
    evaluation, manifest = scored.evaluation, scored.manifest
    sections = {"verdict": "What this says", "scores": "Scores"}
    if evaluation.calibration:
        sections["calibration"] = "Calibration"
    if evaluation.operating_point or evaluation.screening:
        sections["operating"] = "Operating point"
    sections["lacking"] = "What is not here"
    content = {
        "evaluation": evaluation,
        "batch": evaluation.labelled,
        "manifest": manifest,
        "kind": "labelled films",
        "scores": evaluation.scores,
        "score_names": SCORE_NAMES,
        "sections": sections,
        "figures": evaluation_figures(scored.predictions, evaluation),
        "thresholds": threshold_slider(scored.predictions, evaluation, seed),
    }
    write_page(path, "labelled.html", content)
