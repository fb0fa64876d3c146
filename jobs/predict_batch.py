"""Classify a folder of films to a table, CSV or Parquet: one row per file, whatever the file is."""

import errno
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from lib import settings
from lib.images import buckets, dicom, inputs
from lib.images.inputs import Place
from lib.network.backbones import BACKBONES
from lib.run import console, execute
from lib.run.errors import DONE, SOME_INPUTS_UNUSABLE, JobError, UsageError
from lib.run.flags import Flag
from lib.storage import atomic, tables
from lib.storage.cells import from_cell, is_inside, to_cell
from lib.storage.stamp import Stamp
from lib.workers.cores import usable_cores
from lib.workers.ray import check_address

if TYPE_CHECKING:
    from lib.prediction.classify import Classifier, ClusterClassifier


def predict_batch(
    *,
    input: Annotated[
        str,
        Flag(
            "a film, or a folder or bucket that is searched with all its subfolders",
            placeholder="DIR|FILE|s3://BUCKET/DIR",
        ),
    ],
    output: Annotated[
        Path,
        Flag(
            "the table to write; it appears whole, under this name, at the end",
            placeholder="FILE.csv|FILE.parquet",
        ),
    ],
    rows_per_file: Annotated[
        int,
        Flag(
            "make a Parquet table a folder of parts with so many rows each; 0: one file",
            at_least=0,
            placeholder="N",
        ),
    ] = 0,
    resume: Annotated[
        bool, Flag("take up an interrupted run to the same table where it stopped")
    ] = True,
    incremental: Annotated[
        Path | None,
        Flag(
            "classify only contents that no run with this file has seen; it is made where it is missing",
            placeholder="FILE",
        ),
    ] = None,
    model: Annotated[
        Path | None, Flag("folder of the compiled model; none: RUNS_DIR/model", placeholder="DIR")
    ] = None,
    backbone: Annotated[
        str | None,
        Flag("refuse a model of another backbone; none takes any", choices=tuple(BACKBONES)),
    ] = None,
    operating_point: Annotated[
        str,
        Flag(
            "call this class from its stored threshold on, instead of the likeliest class",
            placeholder="CLASS",
        ),
    ] = "",
    review_below: Annotated[
        float,
        Flag(
            "a smaller probability of the predicted class asks for a human look as well",
            at_least=0,
            below=1,
        ),
    ] = 0.0,
    explain: Annotated[
        Path | None,
        Flag(
            "folder for one PNG per film: the film, and beside it where the answer comes from",
            placeholder="DIR",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        Flag(
            "page to sort and filter the batch in, films that need a look first",
            placeholder="FILE.html",
        ),
    ] = None,
    cluster: Annotated[str, settings.CLUSTER] = settings.CLUSTER.default,
    precision: Annotated[str, settings.PRECISION] = settings.PRECISION.default,
    dicom_tags: Annotated[
        tuple[str, ...],
        Flag(
            "header fields of DICOM files to add as columns; none unless asked",
            placeholder="KEYWORD,…",
        ),
    ] = (),
    max_megapixels: Annotated[float, settings.MAX_MEGAPIXELS] = settings.MAX_MEGAPIXELS.default,
    file_timeout: Annotated[float, settings.FILE_TIMEOUT] = settings.FILE_TIMEOUT.default,
    runs_dir: Annotated[Path, settings.RUNS_DIR] = settings.RUNS_DIR.default,
    cpus: Annotated[int, settings.CPUS] = settings.CPUS.default,
    workers: Annotated[int, settings.WORKERS] = settings.WORKERS.default,
) -> int:
    """Classify every file below --input and write one row per file, sorted by path.

    Columns: path (below --input, as a cell that no spreadsheet runs: docs/FORMATS.md has the way
    back), prediction, confidence (the prediction's probability), prob_<CLASS> for each class
    (calibrated), needs_review, reasons (several possible classes, unlike the training films,
    inverted, blank), outside_lungs (share of the evidence outside the central lung field), error,
    model. A file that cannot be read has an empty prediction and its reason in error; the job then
    ends with exit code 3 and the table is complete all the same. An empty folder gives a table
    without rows. Hidden and operating-system files (.DS_Store, Thumbs.db) are not inputs. Not a
    medical device: a person decides.

    A name in .parquet gives the same rows as Parquet: the text of the cells, numbers as doubles,
    empty ones as null. With --rows_per_file it is a folder of parts that pandas, polars and DuckDB
    read as one table.

    Rows are on disk as they come, in .NAME.journal beside the table. A run that was stopped, killed
    or out of disk space is taken up by the same command and ends with the table of an uninterrupted
    one. With --incremental a table that exists keeps its rows and gets the new ones.

    Examples:
        python -m jobs.predict_batch --input /srv/inbox --output runs/predictions/today.csv
        python -m jobs.predict_batch --input /srv/archive --output archive.parquet --rows_per_file 1000000
        python -m jobs.predict_batch --input film.png --output film.csv --explain maps
        python -m jobs.predict_batch --input /srv/inbox --output today.csv --operating_point TUBERCULOSIS
        python -m jobs.predict_batch --input /srv/inbox --output today.csv --report today.html
        python -m jobs.predict_batch --input /srv/inbox --output $(date +%F-%H%M).csv --incremental seen.sqlite
    """
    buckets.check(input)
    tables.check(output, rows_per_file)
    if report and report.suffix.lower() != ".html":
        raise UsageError(f"--report {report}: give a name that ends in .html.")
    dicom.check_keywords(dicom_tags)
    check_address(cluster)
    if explain and Path(input).absolute().is_relative_to(explain.absolute()):
        raise UsageError(
            f"--explain {explain} holds the films: a map could take the place of one. Give another folder."
        )
    for flag, path in {"report": report, "explain": explain, "incremental": incremental}.items():
        if path and path.absolute().is_relative_to(output.absolute()):
            raise UsageError(
                f"--{flag} {path} is the table itself or within it. Give another name."
            )

    from lib.prediction import classify
    from lib.prediction.processed import Seen
    from lib.storage.journal import Journal

    cores = usable_cores(cpus)
    folder = model or runs_dir / "model"
    how = classify.Settings(
        precision,
        operating_point,
        review_below,
        bool(explain),
        dicom_tags,
        int(1e6 * max_megapixels),
        file_timeout,
    )
    with ExitStack() as held:
        held.enter_context(atomic.lock_of(output))
        if incremental:
            held.enter_context(atomic.lock_of(incremental))
        place = inputs.place_of(
            input, [path for path in (output, explain, report, incremental) if path]
        )
        classifier: classify.Classifier | classify.ClusterClassifier
        if cluster:
            classifier = classify.ClusterClassifier(cluster, folder, how, place, cpus, workers)
        else:
            classifier = classify.Classifier(folder, how, place, cores, workers or cores)
        held.enter_context(classifier)
        card = classifier.card
        if backbone not in (None, card.backbone):
            raise JobError(
                f"{folder} holds {card.backbone}, but --backbone is {backbone}. Train {backbone}, or leave the flag out."
            )
        seen = Seen(incremental) if incremental else None
        new = seen.unseen(place, workers or cores) if seen else place.names
        columns = [column.name for column in classifier.schema.columns]
        belongs_to = {
            "model": atomic.sha256_of(folder / "model.json"),
            "precision": classifier.settings.precision,
            "operating_point": operating_point,
            "review_below": review_below,
            "columns": columns,
        }

        def is_current(name: str, stamp: Stamp) -> bool:
            return place.stamp(name) == stamp and (
                not explain or not is_inside(name) or _map_of(explain, name).exists()
            )

        table = tables.table_of(output, columns, rows_per_file)
        with Journal(table, new, belongs_to) as journal:
            taken_over = journal.open(resume, is_current)
            if taken_over:
                console.say(
                    f"an interrupted run left {taken_over} of {len(new)} rows; going on from there."
                )
            missing = journal.missing()
            for number, answer in console.track(
                classifier.answers(new, missing), "films", len(missing)
            ):
                if explain and answer.map:
                    _write_map(explain, new[number], answer.map)
                journal.add(number, answer.stamp, classifier.schema.cells(answer.row))
            journal.publish(keep=incremental is not None)
            if seen:
                seen.record(place)
            journal.remove()
        counts = _count(table)
        if report:
            _write_report(report, table, counts, place, classifier)
    summary = ", ".join(
        f"{counts[name]} {name}" for name in (*card.classes, "unreadable", "needs review")
    )
    summary += (
        f"; {len(place.names) - len(new)} films were seen before"
        if len(place.names) > len(new)
        else ""
    )
    summary += (
        f"; {place.passed_over} hidden or operating-system files are not counted"
        if place.passed_over
        else ""
    )
    console.say(f"{output}: {counts['rows']} rows ({summary})")
    return SOME_INPUTS_UNUSABLE if counts["unreadable"] else DONE


def _map_of(explain: Path, name: str) -> Path:
    return explain / f"{name}.png"


def _write_map(explain: Path, name: str, png: bytes) -> None:
    """Beside its film's name; a name that leaves no name for its map costs a warning."""
    if not is_inside(name):
        console.warn(
            f"no map of {to_cell(name)}: its name leads out of {explain}",
            log_as="a film's name leads out of a folder",
        )
        return
    try:
        with atomic.whole_file(_map_of(explain, name)) as file:
            file.write(png)
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
            raise
        console.warn(
            f"no map of {to_cell(name)}: {error.strerror}",
            log_as="a film's name leaves no name for its map",
        )


def _table_rows(table: tables.Table) -> Iterator[dict[str, Any]]:
    for row in tables.rows(table):
        yield row | {"needs_review": row["needs_review"] == "True"}


def _count(table: tables.Table) -> Counter[str]:
    counts: Counter[str] = Counter()
    for row in _table_rows(table):
        counts.update(
            {
                "rows": 1,
                row["prediction"] or "unreadable": 1,
                "needs review": int(row["needs_review"]),
            }
        )
    return counts


def _write_report(
    report: Path,
    table: tables.Table,
    counts: Mapping[str, int],
    place: Place,
    classifier: "Classifier | ClusterClassifier",
) -> None:
    """The page of the whole table; films with a picture are read once more, so that rows of an
    earlier run have theirs.
    """
    from lib.reports.batch_page import PICTURES, in_triage_order, pictures, write_triage

    rows = in_triage_order(_table_rows(table))
    shown = [row for row in rows if row["prediction"]][:PICTURES]
    answers = classifier.predict(place.source(from_cell(row["path"])) for row in shown)
    for row, answer in zip(shown, console.track(answers, "pictures", len(shown)), strict=True):
        if answer.logits is not None:
            row |= pictures(answer, classifier.card, row["prediction"])
    write_triage(report, rows, counts, classifier.card)


if __name__ == "__main__":
    execute.run(predict_batch)
