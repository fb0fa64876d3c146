"""An evaluation: every score of a table of predictions, beside its baselines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from lib.dataset.provenance import UNKNOWN
from lib.evaluation import intervals, metrics, scoring
from lib.evaluation.baselines import BASELINES, LUNGS_FOUND, score_baselines
from lib.evaluation.leave_source_out import LeftOutTable, score_folds
from lib.evaluation.operating_point import cases_and_scores, has_both_sides, operating_point
from lib.evaluation.predictions import LabelledPredictions
from lib.evaluation.request import Request
from lib.evaluation.results import (
    VERSION,
    Comparison,
    Estimate,
    Evaluation,
    OperatingPoint,
    Review,
    ScoredModel,
    SourceScores,
)
from lib.evaluation.source_probe import score_probe
from lib.evaluation.verdict import verdict
from lib.prediction.calibration import Calibration
from lib.prediction.classes import ABNORMAL, CLASS_OF_INTEREST, has_screening_score
from lib.prediction.fitting import threshold_for
from lib.run.errors import JobError

FEW_FILMS = 5  # of a class, or of the others, below which a source has no AUROC


@dataclass(frozen=True)
class Options:
    """What the evaluation is asked for."""

    positive: str  # class of interest, or ABNORMAL
    prevalences: Sequence[float]
    seed: int

    @staticmethod
    def of(request: Request, classes: Sequence[str]) -> "Options":
        """For a model of these classes.

        Raises:
            JobError: the model does not have the class of interest.
        """
        known = (*classes, *((ABNORMAL,) if has_screening_score(classes) else ()))
        if request.positive is not None and request.positive not in known:
            raise JobError(f"--positive {request.positive}: this model knows {', '.join(known)}.")
        positive = request.positive or CLASS_OF_INTEREST
        return Options(positive, request.prevalences, request.seed)


def evaluate(
    predictions: pd.DataFrame,
    baselines: pd.DataFrame,
    model: ScoredModel,
    calibration: Calibration | None,
    options: Options,
    earlier: pd.DataFrame | None = None,
    probe: pd.DataFrame | None = None,
    left_out: LeftOutTable | None = None,
) -> Evaluation:
    """Compute every score from the tables alone.

    `predictions` is predictions.csv, `baselines` baselines.csv (without rows: none was run),
    `earlier` the predictions of another evaluation of the same films, `probe` source_probe.csv,
    `left_out` leave_source_out.csv.

    Raises:
        JobError: no film has a prediction.
    """
    labelled = LabelledPredictions.of(predictions)
    scores = intervals.estimate_scores(labelled, options.seed)
    by_baseline = _baseline_columns(predictions, baselines)
    no_lungs_found = _count_without_lungs(predictions, baselines)
    rivals = score_baselines(labelled, by_baseline, no_lungs_found, options.seed)
    chance = 1 / labelled.count_classes()  # of guessing among the classes that have films
    without_source = score_folds(left_out, predictions, options.seed) if left_out else None
    sources_left_out = without_source.sources if without_source else ()
    confusion = scoring.weighted_confusion(labelled, scoring.once(len(labelled)))[0]
    return Evaluation(
        version=VERSION,
        model=model,
        classes=tuple(labelled.classes),
        films=len(labelled),
        unreadable=len(predictions) - len(labelled),
        groups=labelled.count_groups(),
        confusion_matrix=tuple(tuple(map(int, row)) for row in confusion),
        scores=scores,
        sources=score_sources(predictions, by_baseline, options.seed),
        review=_review(predictions),
        calibration=metrics.calibration_scores(labelled, calibration) if calibration else None,
        conformal=metrics.conformal_scores(labelled, calibration) if calibration else None,
        operating_point=stored_operating_point(labelled, calibration, options.positive, options),
        screening=stored_operating_point(labelled, calibration, ABNORMAL, options),
        baselines=rivals,
        verdict=verdict(scores.macro_f1, rivals, chance, sources_left_out)
        if rivals and chance < 1
        else None,
        comparison=None if earlier is None else compare(predictions, earlier, options.seed),
        source_probes=() if probe is None else score_probe(probe, options.seed),
        leave_source_out=without_source,
    )


def compare(predictions: pd.DataFrame, earlier: pd.DataFrame, seed: int) -> Comparison:
    """Paired differences, `predictions` minus `earlier`, on the films that both could read."""
    both = (predictions["prediction"].ne("") & earlier["prediction"].ne("")).to_numpy()
    first, second = (LabelledPredictions.of(table[both]) for table in (earlier, predictions))
    return Comparison(len(first), intervals.compare_scores(first, second, seed))


def score_sources(
    predictions: pd.DataFrame, by_baseline: Mapping[str, Sequence[str]], seed: int
) -> tuple[SourceScores, ...]:
    """Scores of the films of each source alone; films of unknown source are left out.

    Within one source the AUROC does not depend on differences between sources. It may still depend
    on file sizes and aspect ratios, which differ between classes inside some sources.
    """
    answered = predictions[predictions["prediction"].ne("")]
    table = answered.reset_index(drop=True)
    is_right = pd.DataFrame(
        {name: table["label"].eq(pd.Series(classes)) for name, classes in by_baseline.items()},
        index=table.index,
    )
    known = table[table["source"].ne(UNKNOWN)]
    return tuple(
        _source_scores(str(source), rows, is_right.loc[rows.index], seed)
        for source, rows in known.groupby("source", sort=True)
    )


def _source_scores(
    source: str, rows: pd.DataFrame, is_right: pd.DataFrame, seed: int
) -> SourceScores:
    labelled = LabelledPredictions.of(rows)
    scores = intervals.estimate_scores(labelled, seed)
    areas: dict[str, Estimate] = {
        name: of_class.auroc
        for name, of_class in scores.per_class.items()
        if min(of_class.films, len(labelled) - of_class.films) >= FEW_FILMS
    }
    return SourceScores(
        source=source,
        films={name: of_class.films for name, of_class in scores.per_class.items()},
        accuracy=scores.accuracy,
        auroc=areas,
        baselines={str(name): float(column.mean()) for name, column in is_right.items()},
    )


def _baseline_columns(predictions: pd.DataFrame, baselines: pd.DataFrame) -> dict[str, list[str]]:
    """Class names by baseline, for the films that have a prediction, in their order."""
    rows = _rows_of_films(predictions, baselines)
    return {name: rows[name].tolist() for name in BASELINES if len(rows) and name in rows}


def _count_without_lungs(predictions: pd.DataFrame, baselines: pd.DataFrame) -> int | None:
    """Films with a prediction on which no lungs were found; None: they were not searched for."""
    rows = _rows_of_films(predictions, baselines)
    if rows.empty or LUNGS_FOUND not in rows:
        return None
    return int(rows[LUNGS_FOUND].ne("True").sum())


def _rows_of_films(predictions: pd.DataFrame, baselines: pd.DataFrame) -> pd.DataFrame:
    """The rows of baselines.csv of the films that have a prediction, in their order."""
    if baselines.empty:
        return baselines
    paths = predictions["path"][predictions["prediction"].ne("")]
    return baselines.set_index("path").loc[paths]


def stored_operating_point(
    labelled: LabelledPredictions,
    calibration: Calibration | None,
    positive: str,
    options: Options,
    is_fitted: bool = False,
) -> OperatingPoint | None:
    """The operating point at the stored threshold; None without one, or without films of both
    sides. `is_fitted`: at the threshold that detects the same share of the cases on these films.
    """
    if calibration is None or positive not in calibration.thresholds:
        return None
    if not has_both_sides(labelled, positive):
        return None
    threshold = calibration.thresholds[positive]
    if is_fitted:
        cases, scores = cases_and_scores(labelled, positive)
        threshold = threshold_for(calibration.sensitivity, scores[cases])
    return operating_point(labelled, positive, threshold, options.prevalences, options.seed)


def _review(predictions: pd.DataFrame) -> Review:
    needs_review = predictions["needs_review"].eq("True")
    rest = predictions[~needs_review & predictions["prediction"].ne("")]
    accuracy = float((rest["label"] == rest["prediction"]).mean()) if len(rest) else None
    return Review(float(needs_review.mean()), accuracy)
