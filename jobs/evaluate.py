"""Score a model on labelled films: predictions.csv first, then every number from that table."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from lib import settings
from lib.evaluation import flags
from lib.evaluation.reading import Reading
from lib.evaluation.request import Request, read_prevalence
from lib.network.choices import PrecisionChoice
from lib.run import console, execute
from lib.run.errors import DONE, SOME_INPUTS_UNUSABLE
from lib.storage import atomic
from lib.workers.cores import usable_cores

if TYPE_CHECKING:
    import pandas as pd

    from lib.evaluation.films import EvaluationSet
    from lib.evaluation.results import Evaluation
    from lib.network.artifact import ModelManifest


def evaluate(
    *,
    model: Annotated[Path | None, flags.MODEL] = None,
    checkpoint_path: Annotated[Path | None, flags.CHECKPOINT_PATH] = None,
    backbone: Annotated[str | None, flags.BACKBONE] = None,
    films: Annotated[str | None, flags.FILMS] = None,
    predictions: Annotated[Path | None, flags.PREDICTIONS] = None,
    labels: Annotated[Path | None, flags.LABELS] = None,
    group_by: Annotated[str, flags.GROUP_BY] = "auto",
    output: Annotated[Path | None, flags.OUTPUT] = None,
    positive: Annotated[str | None, flags.POSITIVE] = None,
    operating_point: Annotated[str, flags.OPERATING_POINT] = "",
    prevalences: Annotated[tuple[float, ...], flags.PREVALENCES] = (0.005, 0.02, 0.1, 0.3),
    compare: Annotated[Path | None, flags.COMPARE] = None,
    recalibrate: Annotated[Path | None, flags.RECALIBRATE] = None,
    prevalence: Annotated[tuple[str, ...], flags.PREVALENCE] = (),
    baselines: Annotated[bool, flags.BASELINES] = True,
    leave_source_out: Annotated[bool, flags.LEAVE_SOURCE_OUT] = False,
    repeats: Annotated[int, flags.REPEATS] = 0,
    cache_gb: Annotated[float, settings.CACHE_GB] = settings.CACHE_GB.default,
    precision: Annotated[PrecisionChoice, settings.PRECISION] = settings.PRECISION.default,
    max_megapixels: Annotated[float, settings.MAX_MEGAPIXELS] = settings.MAX_MEGAPIXELS.default,
    file_timeout: Annotated[float, settings.FILE_TIMEOUT] = settings.FILE_TIMEOUT.default,
    follow_links: Annotated[bool, settings.FOLLOW_LINKS] = settings.FOLLOW_LINKS.default,
    trust_headers: Annotated[bool, settings.TRUST_HEADERS] = settings.TRUST_HEADERS.default,
    data_dir: Annotated[Path, settings.DATA_DIR] = settings.DATA_DIR.default,
    runs_dir: Annotated[Path, settings.RUNS_DIR] = settings.RUNS_DIR.default,
    seed: Annotated[int, settings.SEED] = settings.SEED.default,
    cpus: Annotated[int, settings.CPUS] = settings.CPUS.default,
    workers: Annotated[int, settings.WORKERS] = settings.WORKERS.default,
) -> int:
    """Score the compiled model on the test films, which neither training nor model selection used.

    Writes predictions.csv (one row per film, calibrated probabilities), baselines.csv (predictions
    of baselines that see no lung, among them the same network on films whose lungs are blacked
    out), source_probe.csv (how well its features tell the source of a film within a class),
    metrics.json (scores with 95 % intervals from a bootstrap of patients where file names tell
    them, calibration, operating point, scores by source, the verdict; schema:
    docs/metrics.schema.json), thresholds.csv, the figures confusion.png, roc.png
    and overview.png, and the page to read: RUNS_DIR/report.html (report.html in --output, where
    that is given), with MODEL_CARD.md beside RUNS_DIR's model (beside the tables for another model,
    and with --output). Every number comes from these tables. A film that cannot be read is a
    row with its error, and the job ends with exit code 3.

    With --leave_source_out the training is repeated without each source that shares two classes
    with another one, with the recipe, the seed and the cached features of the model, and scored
    inside that source: AUROC by class, the baselines of the same fold, and the difference to this
    model on the source's test films (leave_source_out.csv). The last block is trained too if the
    model is of Phase B and has 4,000 training films at most. No source that qualifies is no error.

    With --repeats N the split is drawn anew N times from the same films, with the proportions of
    the existing one, and a head is trained on each (repeats.csv): mean and spread of the scores
    over the seeds SEED to SEED + N - 1. The films pass the frozen layers once for all seeds; their
    features stay in the cache. A source that split held out is drawn like the others.

    With --films the films come from elsewhere, such as another hospital: class folders as ingest
    understands them, or any folder with --labels. Films that the model was trained, selected or
    tested on (by bytes, or as near-duplicates) and films under two labels are left out and named in
    excluded.csv, together with files of other classes and files without a label. Baselines learn
    at home and are asked there. The report sets the scores beside those at home. With --recalibrate
    a model folder for that place is written, for predict_batch --model: temperature, offsets,
    thresholds, conformal sets and the films to compare with come from these films. What that is
    worth is measured by fitting on one half of the patients and scoring the other, and the other
    way round (recalibrated.csv).

    With --predictions nothing is computed again: the films of a table that have a label are scored.
    The result says how they were chosen. Labels of all films, or of the whole random sample
    (predict_batch --sample), give an estimate of the table. Other labels, such as those of the
    films that ask for a review, describe these films alone: there is no interval and no operating
    point. report.html beside the scores has the parts of the report that need no film; there is
    no verdict, because baselines need films.

    Examples:
        python -m jobs.evaluate
        python -m jobs.evaluate --model runs/phase_a/model --output runs/evaluation/phase_a
        python -m jobs.evaluate --compare runs/evaluation/phase_a
        python -m jobs.evaluate --leave_source_out --repeats 5
        python -m jobs.evaluate --checkpoint_path other/best_resnet18.pt --output runs/other
        python -m jobs.evaluate --films /srv/labelled
        python -m jobs.evaluate --films /srv/films --labels /srv/labels.csv
        python -m jobs.evaluate --films /srv/labelled --recalibrate runs/sites/ours
        python -m jobs.evaluate --predictions /srv/out/today.csv --labels labels.csv
    """
    request = Request(
        films=films,
        predictions=predictions,
        labels=labels,
        reading=Reading(
            group_by, follow_links, trust_headers, int(1e6 * max_megapixels), file_timeout
        ),
        model=model,
        checkpoint=checkpoint_path,
        backbone=backbone,
        output=output,
        positive=positive,
        operating_point=operating_point,
        prevalences=prevalences,
        compare=compare,
        recalibrate=recalibrate,
        prevalence=read_prevalence(prevalence),
        baselines=baselines,
        leave_source_out=leave_source_out,
        repeats=repeats,
        cache_gb=cache_gb,
        precision=precision,
        data_dir=data_dir,
        runs_dir=runs_dir,
        seed=seed,
        cores=usable_cores(cpus),
        readers=workers or usable_cores(cpus),
    )
    request.check()
    if request.predictions:
        return score_labels(request)
    from lib.evaluation import evaluation as engine
    from lib.evaluation import tables
    from lib.evaluation.external import external_results
    from lib.evaluation.model import model_to_score
    from lib.evaluation.recalibration import require_site
    from lib.reports import evaluation_files
    from lib.reports.pages import Study
    from lib.training.repetitions import leave_sources_out, repeat_splits

    with atomic.lock(request.folder, "the evaluation"), model_to_score(request) as scored:
        options = engine.Options.of(request, scored.manifest.classes)
        to_score = films_to_score(request, scored.manifest)
        earlier = earlier_predictions(request, to_score, scored.manifest)
        require_site(request, to_score, scored)
        spread = repeat_splits(request, to_score, scored.manifest)
        answers, outputs = tables.predict(request, to_score, scored)
        beside = tables.predict_baselines(request, to_score, scored)
        probe = tables.probe_sources(request, to_score, scored)
        left_out = leave_sources_out(request, to_score, scored)
        evaluation = engine.evaluate(
            answers,
            beside,
            scored.identity,
            scored.calibration,
            options,
            earlier,
            probe,
            left_out,
        )
        evaluation = replace(evaluation, repeats=spread)
        if to_score.elsewhere:
            external = external_results(request, answers, to_score, scored, options, outputs)
            evaluation = replace(evaluation, external=external)
        study = Study.of(request, evaluation, answers, to_score, scored)
        evaluation_files.write_all(study, request.folder, request.report, request.model_card)
    return print_results(request, evaluation, to_score)


def score_labels(request: Request) -> int:
    """Score the films of a table of predictions that have a label, without model and films."""
    from lib.evaluation.labelled_table import evaluate_table
    from lib.reports import evaluation_files
    from lib.reports.summary import print_evaluation

    with atomic.lock(request.folder, "the evaluation"):
        scored = evaluate_table(request)
        evaluation_files.write_scores(scored, request.folder, request.report, request.seed)
    print_evaluation(scored.evaluation, request.folder, request.report)
    return DONE


def films_to_score(request: Request, manifest: "ModelManifest") -> "EvaluationSet":
    """The test films of the split that the model was trained on, or the films from elsewhere.

    Raises:
        JobError: another split than the model's, or no film to score.
    """
    from lib.evaluation.elsewhere import evaluation_set
    from lib.evaluation.films import EvaluationSet
    from lib.evaluation.home import HomeFilms
    from lib.reports.left_out import report_left_out

    if not request.elsewhere:
        return EvaluationSet.of_split(request.data_dir, manifest.split_sha256)
    home = HomeFilms.of(request.data_dir, manifest.split_sha256)
    films = evaluation_set(request.elsewhere, manifest.classes, home, request.readers)
    report_left_out(request.elsewhere, films, request.folder / "excluded.csv")
    return films


def earlier_predictions(
    request: Request, films: "EvaluationSet", manifest: "ModelManifest"
) -> "pd.DataFrame | None":
    """The table of --compare, refused before any film is read if it is of other films."""
    from lib.evaluation.predictions import read_earlier

    if request.compare is None:
        return None
    return read_earlier(request.compare, films.names, films.labels, manifest.classes)


def print_results(request: Request, evaluation: "Evaluation", films: "EvaluationSet") -> int:
    """Print the scores and return the exit code."""
    from lib.reports.left_out import count_missing
    from lib.reports.summary import print_evaluation

    print_evaluation(evaluation, request.folder, request.report)
    missing = count_missing(evaluation.external) if evaluation.external else 0
    if evaluation.unreadable:
        console.warn(
            f"{evaluation.unreadable} {films.kind} could not be read; predictions.csv says why."
        )
    return SOME_INPUTS_UNUSABLE if evaluation.unreadable or missing else DONE


if __name__ == "__main__":
    execute.run(evaluate)
