"""Classify a folder of films. The result is a table, CSV or Parquet, with one row per file."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from lib import settings
from lib.network.backbones import BACKBONES
from lib.network.choices import PrecisionChoice
from lib.network.versions import answering_model
from lib.run import console, execute
from lib.run.errors import DONE, SOME_INPUTS_UNUSABLE
from lib.run.flags import Flag
from lib.workers.processes import start_server

if TYPE_CHECKING:  # these load decoders and the inference engine: too late for a wrong flag
    from lib.images.inputs import Inputs
    from lib.prediction.classify import FilmClassifier
    from lib.prediction.request import Request
    from lib.prediction.results import Results
    from lib.prediction.rows import Counts


def predict_batch(
    *,
    input: Annotated[
        str,
        Flag(
            "a film, or a folder or bucket, which is searched with its subfolders",
            placeholder="DIR|FILE|s3://BUCKET/DIR",
        ),
    ],
    output: Annotated[
        Path,
        Flag(
            "the table to write; it gets this name at the end, when it is complete",
            placeholder="FILE.csv|FILE.parquet",
        ),
    ],
    rows_per_file: Annotated[
        int,
        Flag(
            "write a Parquet table as a folder of parts with N rows each; 0: one file",
            at_least=0,
            placeholder="N",
        ),
    ] = 0,
    resume: Annotated[bool, Flag("reuse the rows of an interrupted run to the same table")] = True,
    incremental: Annotated[
        Path | None,
        Flag(
            "classify only contents that no earlier run with this database has processed; made if "
            "it is missing",
            placeholder="FILE",
        ),
    ] = None,
    model: Annotated[
        Path | None,
        Flag(
            "folder of the compiled model; none: the promoted one, else RUNS_DIR/model",
            placeholder="DIR",
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        Flag("refuse a model with another backbone; none: accept any", choices=tuple(BACKBONES)),
    ] = None,
    operating_point: Annotated[
        str,
        Flag(
            "predict this class, or anything abnormal (1 - P(NORMAL)), from its stored threshold "
            "on, not only when it is the likeliest",
            placeholder="CLASS|abnormal",
        ),
    ] = "",
    threshold: Annotated[
        str,
        Flag(
            "predict this class, or anything abnormal, from this probability on, in place of the "
            "stored threshold; report.html shows what each one does",
            placeholder="CLASS=X",
        ),
    ] = "",
    review_below: Annotated[
        float,
        Flag(
            "ask for a review if the predicted class has a lower probability as well",
            at_least=0,
            below=1,
        ),
    ] = 0.0,
    explain: Annotated[
        Path | None,
        Flag(
            "folder for one PNG per film: the film, and beside it the evidence for the prediction",
            placeholder="DIR",
        ),
    ] = None,
    sample: Annotated[
        int,
        Flag(
            "draw N of the films at random for labelling and mark them in the column sampled and "
            "on the page; 0: none",
            at_least=0,
            placeholder="N",
        ),
    ] = 0,
    drift: Annotated[
        bool,
        Flag(
            "compare this run with those before it and keep it for later ones; not for films that "
            "are no ordinary batch, such as test films"
        ),
    ] = True,
    report: Annotated[
        Path | None,
        Flag(
            "HTML page to sort, filter and label the batch; films that need a review come first",
            placeholder="FILE.html",
        ),
    ] = None,
    cluster: Annotated[str, settings.CLUSTER] = settings.CLUSTER.default,
    precision: Annotated[PrecisionChoice, settings.PRECISION] = settings.PRECISION.default,
    dicom_tags: Annotated[
        tuple[str, ...],
        Flag(
            "header fields of DICOM files to add as columns",
            placeholder="KEYWORD,…",
        ),
    ] = (),
    max_megapixels: Annotated[float, settings.MAX_MEGAPIXELS] = settings.MAX_MEGAPIXELS.default,
    file_timeout: Annotated[float, settings.FILE_TIMEOUT] = settings.FILE_TIMEOUT.default,
    follow_links: Annotated[bool, settings.FOLLOW_LINKS] = settings.FOLLOW_LINKS.default,
    trust_headers: Annotated[bool, settings.TRUST_HEADERS] = settings.TRUST_HEADERS.default,
    runs_dir: Annotated[Path, settings.RUNS_DIR] = settings.RUNS_DIR.default,
    seed: Annotated[int, settings.SEED] = settings.SEED.default,
    cpus: Annotated[int, settings.CPUS] = settings.CPUS.default,
    workers: Annotated[int, settings.WORKERS] = settings.WORKERS.default,
) -> int:
    """Classify every file below --input and write one row per file, sorted by path.

    Columns: path (below --input; a cell that is no formula for a spreadsheet, docs/FORMATS.md has
    the way back), prediction, confidence (probability of the prediction), prob_<CLASS> for each
    class (calibrated), needs_review, reasons (several possible classes, unlike the training films,
    inverted, blank, no lungs found, turned, notes of the decoder), outside_lungs (share of the
    evidence outside the central lung field, or outside the film's own lungs where the model was
    trained with --crop lungs), distance (of its features to the nearest validation films), width
    and height (in pixels, as stored), maker and view (by the DICOM header), error, model, with
    --sample also sampled. A file that cannot be read has no prediction, and the reason
    in error; the table is complete all the same, and the exit code is 3. An empty folder gives a
    table without rows. Hidden and operating-system files (.DS_Store, Thumbs.db) are not inputs. Not
    a medical device: a person decides.

    A name in .parquet gives the same rows as Parquet: numbers as doubles, missing ones as null.
    With --rows_per_file it is a folder of parts that pandas, polars and DuckDB read as one table.

    Each run is compared with those before it (RUNS_DIR/nights, docs/OPERATIONS.md): one line says
    what is unusual, and RUNS_DIR/drift.html shows all batches. No answer changes.

    Rows are on disk as they come, in .NAME.journal beside the table. After a stop, a kill or a full
    disk the same command goes on, and the table is that of an uninterrupted run. With --incremental
    an existing table keeps its rows and gets the new ones.

    Examples:
        python -m jobs.predict_batch --input /srv/inbox --output runs/predictions/today.csv
        python -m jobs.predict_batch --input /srv/archive --output a.parquet --rows_per_file 1000000
        python -m jobs.predict_batch --input film.png --output film.csv --explain maps
        python -m jobs.predict_batch --input inbox --output x.csv --operating_point TUBERCULOSIS
        python -m jobs.predict_batch --input inbox --output x.csv --operating_point abnormal
        python -m jobs.predict_batch --input inbox --output x.csv --threshold TUBERCULOSIS=0.31
        python -m jobs.predict_batch --input /srv/inbox --output today.csv --report today.html
        python -m jobs.predict_batch --input inbox --output x.csv --report x.html --sample 100
        python -m jobs.predict_batch --input inbox --output $(date +%F).csv --incremental db.sqlite
    """
    if not cluster and "://" not in input:  # a bucket starts it with its client
        start_server("lib.prediction.preload")  # it imports beside the imports below
    from lib.images.inputs import inputs_of
    from lib.prediction.request import OperatingRule, PredictOptions, Request

    request = Request(
        input=input,
        output=output,
        model=model or answering_model(runs_dir),
        options=PredictOptions(
            precision=precision,
            rule=OperatingRule.of(operating_point, threshold),
            review_below=review_below,
            maps=bool(explain),
            tags=dicom_tags,
            max_pixels=int(1e6 * max_megapixels),
            seconds=file_timeout,
            trust_headers=trust_headers,
            sample=sample,
            seed=seed,
        ),
        backbone=backbone,
        rows_per_file=rows_per_file,
        resume=resume,
        follow_links=follow_links,
        incremental=incremental,
        explain=explain,
        report=report,
        cluster=cluster,
        cpus=cpus,
        workers=workers,
    ).checked()
    with request.locks():
        films = inputs_of(request.input, request.written, request.follow_links)
        from lib.prediction.classify import classifier_of
        from lib.prediction.results import Results

        with (
            classifier_of(request, films) as classifier,
            Results(request, films, classifier.schema, classifier.options) as results,
        ):
            rows = classifier.classify(results.names, results.missing())
            for index, classified in console.track(rows, "films", results.number_missing):
                results.add(index, classified)
            counts = results.publish()
            if drift:
                watch(runs_dir, results, classifier.manifest.name, request.output.name)
            if request.report:
                _write_page(request, results, counts, films, classifier)
    console.say(_summary(request, films, counts, classifier.manifest.classes, len(results.names)))
    return SOME_INPUTS_UNUSABLE if counts.unreadable else DONE


def watch(runs_dir: Path, results: "Results", model: str, table: str) -> None:
    """Compare the films of this run with the batches before, keep it, and draw drift.html.

    It never changes an answer, and a folder that cannot be written to costs no table.
    """
    from lib.prediction import nights
    from lib.prediction.drift import compare
    from lib.reports.drift_page import write_drift_page

    kept = nights.read_nights(runs_dir)
    night = nights.Night.of(results.new_rows(), table, model)
    if not night.films:
        return
    found = compare(night, nights.ordinary(kept, model))
    (console.warn if found.findings else console.say)(found.words)
    night = replace(night, findings=found.findings)
    try:
        nights.keep_night(runs_dir, night)
        write_drift_page(runs_dir / "drift.html", [*kept, night])
    except OSError as error:
        console.warn(f"{runs_dir}/nights cannot be written ({error.strerror}): the table is there.")


def _write_page(
    request: "Request",
    results: "Results",
    counts: "Counts",
    films: "Inputs",
    classifier: "FilmClassifier",
) -> None:
    """The triage page of the whole table."""
    from lib.reports.batch_films import BatchFilms
    from lib.reports.batch_page import in_triage_order, write_triage

    rows = in_triage_order(results.rows())
    on_page = BatchFilms(request, films, classifier)
    write_triage(request, rows, counts, classifier.manifest, on_page)


def _summary(
    request: "Request", films: "Inputs", counts: "Counts", classes: Sequence[str], new: int
) -> str:
    """The last line of the job."""
    kinds = [f"{counts.predictions[name]} {name}" for name in classes]
    kinds += [f"{counts.unreadable} unreadable", f"{counts.needs_review} need a review"]
    notes = [", ".join(kinds)]
    if earlier := len(films.names) - new:
        notes.append(f"{earlier} films were seen before")
    if films.passed_over:
        notes.append(f"{films.passed_over} hidden or operating-system files are not counted")
    return f"{request.output}: {counts.rows} rows ({'; '.join(notes)})"


if __name__ == "__main__":
    execute.run(predict_batch)
