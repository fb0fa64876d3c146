"""report.html, one file that needs no other, and the model card."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from lib.dataset.audit import Audit, audit
from lib.evaluation.baselines import BASELINES, LARGEST
from lib.evaluation.films import EvaluationSet
from lib.evaluation.model import Scored
from lib.evaluation.request import Request
from lib.evaluation.results import Evaluation
from lib.evaluation.scoring import PER_CLASS
from lib.evaluation.source_probe import FEWEST_FILMS
from lib.network.artifact import ModelManifest
from lib.prediction.classes import COLLECTIONS_OF_CHILDREN
from lib.prediction.maps import AREA_OUTSIDE
from lib.prediction.prediction import Prediction
from lib.reports import films
from lib.reports.figures import errors_of, evaluation_figures, history_figures
from lib.reports.rendering import write_page
from lib.reports.slider import threshold_slider

FILMS_SHOWN = 12  # of the worst errors, and of the correct predictions
PAIRS_SHOWN = 4
# The sections in order: templates/report/<name>.html, and their titles in the navigation.
SECTIONS = {
    "verdict": "Verdict",
    "left_out": "Sources left out",
    "external": "Elsewhere",
    "audit": "Data",
    "scores": "Scores",
    "calibration": "Calibration",
    "operating": "Operating point",
    "sources": "Sources",
    "films": "Films",
    "training": "Training",
    "made": "How made",
}
SCORE_NAMES = dict(zip(PER_CLASS, PER_CLASS, strict=True)) | {
    "recall": "recall (sensitivity)",
    "f1": "F1",
    "auroc": "AUROC",
}
Predict = Callable[[Sequence[Path]], Sequence[Prediction]]


@dataclass(frozen=True)
class Study:
    """What the pages are made from."""

    evaluation: Evaluation
    predictions: pd.DataFrame
    audit: Audit
    manifest: ModelManifest
    films: EvaluationSet
    runs: Path  # where the phases of training lie
    predict: Predict  # for the maps of the films that are shown
    seed: int

    @staticmethod
    def of(
        request: Request,
        evaluation: Evaluation,
        predictions: pd.DataFrame,
        films: EvaluationSet,
        scored: Scored,
    ) -> "Study":
        """Of an evaluation; `predictions` is its predictions.csv."""
        return Study(
            evaluation=evaluation,
            predictions=predictions,
            audit=audit(films.manifest),
            manifest=scored.manifest,
            films=films,
            runs=request.runs_dir,
            predict=lambda paths: list(scored.predictor.predict(paths)),
            seed=request.seed,
        )


@dataclass(frozen=True)
class TrainingPhase:
    """A phase of training in the page."""

    best: float  # validation accuracy
    curves: Mapping[str, Markup]
    config: Mapping[str, Any]  # config.json; empty where there is none


def write_report(path: Path, study: Study) -> None:
    """Write report.html."""
    predictions, audit = study.predictions, study.audit
    right = predictions[predictions["label"] == predictions["prediction"]]
    wrong = errors_of(predictions)
    sample = right.sample(min(FILMS_SHOWN, len(right)), random_state=study.seed)
    contradictions = [found.films[:2] for found in audit.contradictions[:PAIRS_SHOWN]]
    optional = {
        "left_out": study.evaluation.leave_source_out,
        "external": study.evaluation.external,
    }
    content = _words_of(study) | {
        "sections": {
            name: title
            for name, title in SECTIONS.items()
            if name not in optional or optional[name]
        },
        "contradictory_films": [films.pair(a, b, study.films.raw) for a, b in contradictions],
        "near_films": [
            films.pair(a, b, study.films.raw) for a, b in audit.near_pairs[:PAIRS_SHOWN]
        ],
        "worst": films.with_evidence(wrong.head(FILMS_SHOWN), study),
        "sample": films.with_evidence(sample, study),
        "seen": films.with_crop(study),
        "outside": {
            name: float(rows["outside_lungs"].astype(float).mean())
            for name, rows in (("correct", right), ("wrong", wrong))
            if len(rows)
        },
        "field_outside": AREA_OUTSIDE,
        "fewest_films": FEWEST_FILMS,
        "phases": _phases(study.runs, study.manifest),
        "figures": evaluation_figures(predictions, study.evaluation),
        "thresholds": threshold_slider(predictions, study.evaluation, study.seed),
    }
    write_page(path, "report.html", content)


def write_model_card(path: Path, study: Study) -> None:
    """Write MODEL_CARD.md: intended use, data, scores, limits (M. Mitchell et al., 2019)."""
    write_page(path, "model_card.md", _words_of(study))


def _words_of(study: Study) -> dict[str, Any]:
    return {
        "evaluation": study.evaluation,
        "kind": study.films.kind,
        "scores": study.evaluation.scores,
        "audit": study.audit,
        "manifest": study.manifest,
        "baselines": BASELINES,
        "learned_from": f"{LARGEST:,}",
        "score_names": SCORE_NAMES,
        "children": [name for name in study.audit.sources if name in COLLECTIONS_OF_CHILDREN],
    }


def _phases(runs: Path, manifest: ModelManifest) -> dict[str, TrainingPhase]:
    """The phases that led to this model; none where `runs` holds the training of another one."""
    weights = _weights_of(runs, manifest.phase)
    if weights != manifest.weights_sha256:
        return {}
    names = [manifest.phase]
    if manifest.phase == "b" and (first := _weights_of(runs, "a")):
        config = json.loads((runs / "phase_b" / "config.json").read_text())
        if config["starting_weights_sha256"] == first:
            names = ["a", "b"]
    return {name: _phase(runs / f"phase_{name}") for name in names}


def _weights_of(runs: Path, phase: str) -> str | None:
    """Digest of the weights that a phase ended with; None where it has not ended."""
    summary = runs / f"phase_{phase}" / "summary.json"
    if not summary.exists():
        return None
    digest: str = json.loads(summary.read_text())["weights_sha256"]
    return digest


def _phase(folder: Path) -> TrainingPhase:
    history, config = pd.read_csv(folder / "history.csv"), folder / "config.json"
    return TrainingPhase(
        best=float(history["val_accuracy"].max()),
        curves=history_figures(history),
        config=json.loads(config.read_text()) if config.exists() else {},
    )
