"""Score a model on labelled films: predictions.csv first, then every number from that table."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from lib import settings
from lib.dataset.manifest import read_split_digest
from lib.evaluation.reading import Reading
from lib.evaluation.request import Request, read_prevalence
from lib.network.backbones import BACKBONES
from lib.network.choices import PrecisionChoice
from lib.run import console, execute, signals
from lib.run.errors import DONE, SOME_INPUTS_UNUSABLE, JobError
from lib.run.flags import Flag
from lib.storage import atomic
from lib.workers.cores import usable_cores

if TYPE_CHECKING:
    import pandas as pd

    from lib.evaluation.elsewhere import FolderElsewhere
    from lib.evaluation.films import EvaluationSet
    from lib.evaluation.leave_source_out import LeftOutTable
    from lib.evaluation.model import Scored
    from lib.evaluation.results import Evaluation, Repeats
    from lib.network.artifact import ModelManifest


def evaluate(
    *,
    model: Annotated[
        Path | None, Flag("folder of the compiled model; none: RUNS_DIR/model", placeholder="DIR")
    ] = None,
    checkpoint_path: Annotated[
        Path | None,
        Flag("score this checkpoint instead: it is compiled first, in fp32", placeholder="FILE"),
    ] = None,
    backbone: Annotated[
        str | None,
        Flag("refuse a model of another backbone; none accepts any", choices=tuple(BACKBONES)),
    ] = None,
    films: Annotated[
        str | None,
        Flag(
            "score the films of this folder of class folders, or of a bucket such as "
            "s3://bucket/folder, instead of the split's test films; it is never changed",
            placeholder="PATH|folder:PATH|URL",
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        Flag(
            "score this table of predict_batch on the films that --labels names, without films; "
            "--model names the one that answered, if it is not in RUNS_DIR",
            placeholder="TABLE",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        Flag(
            "labels of --films in place of class folders, or of --predictions: a CSV with the "
            "columns path, label and, if known, patient, or Label Studio's export",
            placeholder="FILE.csv|FILE.json",
        ),
    ] = None,
    group_by: Annotated[
        str,
        Flag(
            "how to tell a patient of --films from a path, as for split",
            placeholder="auto|none|REGEX",
        ),
    ] = "auto",
    output: Annotated[
        Path | None,
        Flag(
            "folder for the results; none: RUNS_DIR/evaluation, and for --films "
            "RUNS_DIR/external/NAME with the folder's name",
            placeholder="DIR",
        ),
    ] = None,
    positive: Annotated[
        str | None,
        Flag(
            "class of interest, or abnormal (1 - P(NORMAL)), for the operating point; none: "
            "TUBERCULOSIS, if the model has it",
            placeholder="CLASS|abnormal",
        ),
    ] = None,
    operating_point: Annotated[
        str,
        Flag(
            "predict this class, or anything abnormal, from its stored threshold on, as "
            "predict_batch does with the same flag",
            placeholder="CLASS|abnormal",
        ),
    ] = "",
    prevalences: Annotated[
        tuple[float, ...],
        Flag(
            "prevalences of the class of interest to compute predictive values for",
            above=0,
            below=1,
            placeholder="X,X",
        ),
    ] = (0.005, 0.02, 0.1, 0.3),
    compare: Annotated[
        Path | None,
        Flag("folder of another evaluation of the same films: add the paired differences"),
    ] = None,
    recalibrate: Annotated[
        Path | None,
        Flag(
            "write a model for the place of --films to this folder: same weights, calibrated on "
            "these films",
            placeholder="DIR",
        ),
    ] = None,
    prevalence: Annotated[
        tuple[str, ...],
        Flag(
            "share of films of a class where the model of --recalibrate will work; none: as in "
            "--films",
            placeholder="CLASS=X,CLASS=X",
        ),
    ] = (),
    baselines: Annotated[
        bool,
        Flag("score baselines that see no lung beside the model, and probe its features"),
    ] = True,
    leave_source_out: Annotated[
        bool,
        Flag(
            "train again without each source that shares two classes with another one, and score "
            "inside it"
        ),
    ] = False,
    repeats: Annotated[
        int,
        Flag(
            "also draw the split and train the head anew with this many seeds, and report the "
            "spread of the scores",
            at_least=0,
        ),
    ] = 0,
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
        write_all(request, evaluation, answers, to_score, scored)
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
        JobError: another split, whose test films may be among the model's training films; or no
        film to score.
    """
    from lib.evaluation.films import EvaluationSet

    if request.elsewhere:
        return _films_from_elsewhere(request, request.elsewhere, manifest)
    films = EvaluationSet.of_split(request.data_dir)
    if manifest.split_sha256 != read_split_digest(request.data_dir):
        raise JobError(
            "this model was trained on another split than data/split.csv, so the test films may be "
            "among its training films. Train on this split first, or restore the split (same "
            "films, seed and fractions)."
        )
    return films


def earlier_predictions(
    request: Request, films: "EvaluationSet", manifest: "ModelManifest"
) -> "pd.DataFrame | None":
    """The table of --compare, refused before any film is read if it is of other films."""
    from lib.evaluation.predictions import read_earlier

    if request.compare is None:
        return None
    return read_earlier(request.compare, films.names, films.labels, manifest.classes)


def leave_sources_out(
    request: Request, films: "EvaluationSet", scored: "Scored"
) -> "LeftOutTable | None":
    """Repeat the training without each source that can be left out, and write
    leave_source_out.csv; None: not asked for.
    """
    from lib.evaluation.leave_source_out import NO_SOURCE, LeftOutTable, folds_of

    if not request.leave_source_out:
        return None
    folds, found = folds_of(films), LeftOutTable(NO_SOURCE)
    if folds:
        signals.import_torch()
        from lib.training.leave_source_out import table_of_folds

        found = table_of_folds(folds, request, scored)
    found.write(request.folder / "leave_source_out.csv")
    return found


def write_all(
    request: Request,
    evaluation: "Evaluation",
    predictions: "pd.DataFrame",
    films: "EvaluationSet",
    scored: "Scored",
) -> None:
    """Write everything beside the tables, metrics.json last."""
    from lib.dataset.audit import audit
    from lib.reports import evaluation_files
    from lib.reports.pages import Study

    study = Study(
        evaluation=evaluation,
        predictions=predictions,
        audit=audit(films.manifest),
        manifest=scored.manifest,
        films=films,
        runs=request.runs_dir,
        predict=lambda paths: list(scored.predictor.predict(paths)),
        seed=request.seed,
    )
    evaluation_files.write_all(study, request.folder, request.report, request.model_card)


def repeat_splits(
    request: Request, films: "EvaluationSet", manifest: "ModelManifest"
) -> "Repeats | None":
    """Train heads on other splits, and write repeats.csv; None: not asked for."""
    if not request.repeats:
        return None
    signals.import_torch()
    from lib.training.repeats import repeat

    return repeat(request, films, manifest.weights_sha256)


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


def _films_from_elsewhere(
    request: Request, folder: "FolderElsewhere", manifest: "ModelManifest"
) -> "EvaluationSet":
    """Examine them, and write excluded.csv."""
    from lib.evaluation.elsewhere import evaluation_set
    from lib.evaluation.home import HomeFilms
    from lib.reports.audit_table import advise_group_by
    from lib.reports.left_out import print_left_out, write_left_out

    home = HomeFilms.of(request.data_dir, manifest.split_sha256)
    films = evaluation_set(folder, manifest.classes, home, request.readers)
    assert films.elsewhere
    write_left_out(request.folder / "excluded.csv", films.elsewhere)
    print_left_out(films.elsewhere)
    if folder.table is None and not folder.reading.is_grouped:
        advise_group_by([film.record for film in films.films], "score them again")
    return films


if __name__ == "__main__":
    execute.run(evaluate)
