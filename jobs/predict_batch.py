"""Classify a folder of films to a CSV: one row per file, whatever the file is."""

import csv
import errno
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from lib import cli, console, cpu, dicom, durable, settings
from lib.backbones import BACKBONES
from lib.cli import Flag
from lib.errors import DONE, SOME_INPUTS_UNUSABLE, JobError, UsageError
from lib.names import from_cell, to_cell
from lib.radiograph import find_files
from lib.reading import Reader, Stamp

if TYPE_CHECKING:
    from lib.calibration import Judge
    from lib.inference import ModelCard, Prediction, Predictor


def predict_batch(
    *,
    input: Annotated[Path, Flag("a film, or a folder that is searched with all its subfolders", placeholder="DIR_OR_FILE")],
    output: Annotated[Path, Flag("the table to write; it appears whole, under this name, at the end", placeholder="FILE.csv")],
    resume: Annotated[bool, Flag("take up an interrupted run to the same table where it stopped")] = True,
    incremental: Annotated[
        Path | None,
        Flag("classify only contents that no run with this file has seen; it is made where it is missing", placeholder="FILE"),
    ] = None,
    model: Annotated[Path | None, Flag("folder of the compiled model; none: RUNS_DIR/model", placeholder="DIR")] = None,
    backbone: Annotated[
        str | None, Flag("refuse a model of another backbone; none takes any", choices=tuple(BACKBONES))
    ] = None,
    operating_point: Annotated[
        str, Flag("call this class from its stored threshold on, instead of the likeliest class", placeholder="CLASS")
    ] = "",
    review_below: Annotated[
        float, Flag("a smaller probability of the predicted class asks for a human look as well", at_least=0, below=1)
    ] = 0.0,
    explain: Annotated[
        Path | None, Flag("folder for one PNG per film: the film, and beside it where the answer comes from", placeholder="DIR")
    ] = None,
    report: Annotated[
        Path | None, Flag("page to sort and filter the batch in, films that need a look first", placeholder="FILE.html")
    ] = None,
    precision: Annotated[str, settings.PRECISION] = settings.PRECISION.default,
    dicom_tags: Annotated[
        tuple[str, ...], Flag("header fields of DICOM files to add as columns; none unless asked", placeholder="KEYWORD,…")
    ] = (),
    max_megapixels: Annotated[float, settings.MAX_MEGAPIXELS] = settings.MAX_MEGAPIXELS.default,
    file_timeout: Annotated[float, settings.FILE_TIMEOUT] = settings.FILE_TIMEOUT.default,
    runs_dir: Annotated[Path, settings.RUNS_DIR] = settings.RUNS_DIR.default,
    cpus: Annotated[int, settings.CPUS] = settings.CPUS.default,
    workers: Annotated[int, settings.WORKERS] = settings.WORKERS.default,
) -> int:
    """Classify every file below --input and write one row per file, sorted by path.

    Columns: path (below --input, as a cell that no spreadsheet runs: docs/FORMATS.md has the way back), prediction,
    confidence (the prediction's probability), prob_<CLASS> for each class (calibrated), needs_review, reasons (several
    possible classes, unlike the training films, inverted, blank), outside_lungs (share of the evidence outside the
    central lung field), error, model. A file that cannot be read has an empty prediction and its reason in error; the
    job then ends with exit code 3 and the table is complete all the same. An empty folder gives a table without rows.
    Hidden and operating-system files (.DS_Store, Thumbs.db) are not inputs. Not a medical device: a person decides.

    Rows are on disk as they come, in .NAME.csv.journal beside the table. A run that was stopped, killed or out of disk
    space is taken up by the same command and ends with the table of an uninterrupted one. With --incremental a table
    that exists keeps its rows and gets the new ones.

    Examples:
        python -m jobs.predict_batch --input /srv/inbox --output runs/predictions/today.csv
        python -m jobs.predict_batch --input film.png --output film.csv --explain maps
        python -m jobs.predict_batch --input /srv/inbox --output today.csv --operating_point TUBERCULOSIS
        python -m jobs.predict_batch --input /srv/inbox --output today.csv --report today.html
        python -m jobs.predict_batch --input /srv/inbox --output $(date +%F-%H%M).csv --incremental seen.sqlite
    """
    if output.suffix.lower() != ".csv":
        raise UsageError(f"--output {output}: the table is written as CSV, give a name that ends in .csv.")
    if report and report.suffix.lower() != ".html":
        raise UsageError(f"--report {report}: give a name that ends in .html.")
    dicom.check_keywords(dicom_tags)
    if explain and input.absolute().is_relative_to(explain.absolute()):
        raise UsageError(f"--explain {explain} holds the films: a map could take the place of one. Give another folder.")
    if output.is_dir():
        raise UsageError(f"--output {output} is a folder; give a file name.")

    from lib.calibration import Judge
    from lib.inference import Predictor
    from lib.journal import Journal
    from lib.seen import Seen

    cores = cpu.usable_cores(cpus)
    folder = model or runs_dir / "model"
    with ExitStack() as held:
        held.enter_context(durable.lock_of(output))
        if incremental:
            held.enter_context(durable.lock_of(incremental))
        root, names, passed_over = _inputs(input, [path for path in (output, explain, report, incremental) if path])
        predictor = Predictor(folder, precision, cores, workers or cores, file_timeout)
        card = predictor.card
        if backbone not in (None, card.backbone):
            raise JobError(
                f"{folder} holds {card.backbone}, but --backbone is {backbone}. Train {backbone}, or leave the flag out."
            )
        rows = _Rows(card, Judge.of(folder, card.calibration), operating_point, review_below, explain, dicom_tags)
        seen = Seen(incremental) if incremental else None
        new = seen.unseen(root, names, workers or cores) if seen else names
        belongs_to = {
            "model": durable.sha256_of(folder / "model.json"),
            "precision": predictor.precision,
            "operating_point": operating_point,
            "review_below": review_below,
            "columns": rows.columns,
        }
        with Journal(output, rows.columns, new, belongs_to) as journal:
            taken_over = journal.open(resume, lambda name, stamp: rows.is_current(name, root / name, stamp))
            if taken_over:
                console.say(f"an interrupted run left {taken_over} of {len(new)} rows; going on from there.")
            missing = journal.missing()
            files = (root / new[number] for number in missing)
            reader = Reader(card.input_side, int(1e6 * max_megapixels), None if input.is_file() else root.resolve(), dicom_tags)
            answers = predictor.predict(files, reader)
            for number, answer in zip(missing, console.track(answers, "films", len(missing)), strict=True):
                journal.add(number, answer.film.stamp, rows.of(new[number], answer))
            journal.publish(keep=incremental is not None)
            if seen:
                seen.record(root)
            journal.remove()
        counts = _count(output)
        if report:
            _write_report(report, output, counts, root, predictor, reader)
    summary = ", ".join(f"{counts[name]} {name}" for name in (*card.classes, "unreadable", "needs review"))
    summary += f"; {len(names) - len(new)} films were seen before" if len(names) > len(new) else ""
    summary += f"; {passed_over} hidden or operating-system files are not counted" if passed_over else ""
    console.say(f"{output}: {counts['rows']} rows ({summary})")
    return SOME_INPUTS_UNUSABLE if counts["unreadable"] else DONE


def _inputs(given: Path, own: Sequence[Path]) -> tuple[Path, list[str], int]:
    """The folder that names start from; the names, sorted: text alone, which takes a quarter of the memory of paths; and
    how many hidden files were passed over. `own` are files and folders that this job writes: no films."""
    if not given.exists():
        raise JobError(f"--input {given} does not exist.")
    if not given.is_dir():
        return given.parent, [given.name], 0
    files, passed_over = find_files(given)
    if files == [given]:
        raise JobError(f"--input {given} cannot be listed. Who runs this job needs the right to read it and to enter it.")
    names = sorted(path.relative_to(given).as_posix() for path in files)
    root = given.absolute()
    places = [path.absolute().relative_to(root).as_posix() for path in own if path.absolute().is_relative_to(root)]
    return (
        given,
        [name for name in names if not any(name == place or name.startswith(f"{place}/") for place in places)],
        passed_over,
    )


@dataclass(frozen=True)
class _Rows:
    """How an answer becomes a row of the table."""

    card: "ModelCard"
    judge: "Judge"
    operating_point: str
    review_below: float
    explain: Path | None
    tags: Sequence[str]

    def __post_init__(self) -> None:
        if self.operating_point:
            self.judge.require_threshold(self.operating_point)

    @property
    def columns(self) -> list[str]:
        answer = ["prediction", "confidence", *(f"prob_{name}" for name in self.card.classes)]
        return ["path", *answer, "needs_review", "reasons", "outside_lungs", "error", "model", *self.tags]

    def of(self, name: str, answer: "Prediction") -> dict[str, Any]:
        """The row; the film's map is drawn as well, where one is wanted."""
        from lib.explain import share_outside_lungs

        classes, chances = self.card.classes, answer.probabilities
        reasons = self.judge.reasons(answer, classes, self.operating_point)
        row: dict[str, Any] = {"path": to_cell(name), "error": to_cell(answer.film.error), "model": self.card.name}
        if chances is not None:
            best = self.judge.choose(chances, classes, self.operating_point)
            if chances[best] < self.review_below:
                reasons.append(f"low confidence: below {self.review_below:g}")
            row |= {f"prob_{name}": f"{chance:.6f}" for name, chance in zip(classes, chances, strict=True)}
            row |= {"prediction": classes[best], "confidence": f"{chances[best]:.6f}"}
            row["outside_lungs"] = f"{share_outside_lungs(answer.maps, best):.3f}"
            if self.explain:
                self._draw_map(name, answer, best)
        row |= {keyword: to_cell(value) for keyword, value in answer.film.tags.items()}
        return row | {"needs_review": bool(reasons), "reasons": "; ".join(reasons)}

    def is_current(self, name: str, path: Path, stamp: Stamp) -> bool:
        """Whether a row that an interrupted run wrote when the file had this stamp can stay."""
        return Stamp.of(path) == stamp and (self.explain is None or self._map(name).exists())

    def _draw_map(self, name: str, answer: "Prediction", number: int) -> None:
        try:
            _draw_map(self._map(name), answer, number)
        except OSError as error:
            if error.errno not in (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
                raise
            console.warn(f"no map of {to_cell(name)}: {error.strerror}", log_as="a film's name leaves no name for its map")

    def _map(self, name: str) -> Path:
        return (self.explain or Path()) / f"{name}.png"


def _table_rows(table: Path) -> Iterator[dict[str, Any]]:
    with open(table, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield row | {"needs_review": row["needs_review"] == "True"}


def _count(table: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    for row in _table_rows(table):
        counts.update({"rows": 1, row["prediction"] or "unreadable": 1, "needs review": int(row["needs_review"])})
    return counts


def _write_report(
    report: Path, table: Path, counts: Mapping[str, int], root: Path, predictor: "Predictor", reader: Reader
) -> None:
    """The page of the whole table; films with a picture are read once more, so that rows of an earlier run have theirs."""
    from lib.page import PICTURES, in_triage_order, pictures, write_triage

    rows = in_triage_order(_table_rows(table))
    shown = [row for row in rows if row["prediction"]][:PICTURES]
    answers = predictor.predict((root / from_cell(row["path"]) for row in shown), reader)
    for row, answer in zip(shown, console.track(answers, "pictures", len(shown)), strict=True):
        if answer.logits is not None:
            row |= pictures(answer, predictor.card, row["prediction"])
    write_triage(report, rows, counts, predictor.card)


def _draw_map(path: Path, answer: "Prediction", number: int) -> None:
    """The film as the model sees it, and beside it the same film with the evidence for class `number`."""
    import io

    import numpy as np
    from PIL import Image

    from lib.explain import overlay

    grey = answer.film.grey
    over = overlay(grey, answer.maps, number)
    buffer = io.BytesIO()
    Image.fromarray(np.hstack([np.stack([grey] * 3, axis=2), np.asarray(over)])).save(buffer, "PNG")
    with durable.whole_file(path) as file:
        file.write(buffer.getbuffer())


if __name__ == "__main__":
    cli.run(predict_batch)
