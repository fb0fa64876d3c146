"""Classify a folder of films to a CSV: one row per file, whatever the file is."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from lib import cli, console, cpu, durable, settings
from lib.backbones import BACKBONES
from lib.cli import Flag
from lib.errors import DONE, SOME_INPUTS_UNUSABLE, JobError, UsageError
from lib.radiograph import find_files

if TYPE_CHECKING:
    from lib.calibration import Judge
    from lib.inference import ModelCard, Prediction

PICTURES = {True: 2000, False: 500}  # in the page, of films that need a look and of others: it stays below 30 MB


def predict_batch(
    *,
    input: Annotated[Path, Flag("a film, or a folder that is searched with all its subfolders", placeholder="DIR_OR_FILE")],
    output: Annotated[Path, Flag("the table to write; it appears whole, under this name, at the end", placeholder="FILE.csv")],
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
    runs_dir: Annotated[Path, settings.RUNS_DIR] = settings.RUNS_DIR.default,
    cpus: Annotated[int, settings.CPUS] = settings.CPUS.default,
    workers: Annotated[int, settings.WORKERS] = settings.WORKERS.default,
) -> int:
    """Classify every file below --input and write one row per file, sorted by path.

    Columns: path (below --input), prediction, confidence (the prediction's probability), prob_<CLASS> for each class
    (calibrated), needs_review, reasons (several possible classes, unlike the training films, inverted, blank),
    outside_lungs (share of the evidence outside the central lung field), error, model. A file that cannot be read has
    an empty prediction and its reason in error; the job then ends with exit code 3 and the table is complete all the
    same. An empty folder gives a table without rows. Hidden and operating-system files (.DS_Store, Thumbs.db) are not
    inputs. Not a medical device: a person decides.

    Examples:
        python -m jobs.predict_batch --input /srv/inbox --output runs/predictions/today.csv
        python -m jobs.predict_batch --input film.png --output film.csv --explain maps
        python -m jobs.predict_batch --input /srv/inbox --output today.csv --operating_point TUBERCULOSIS
        python -m jobs.predict_batch --input /srv/inbox --output today.csv --report today.html
    """
    if output.suffix.lower() != ".csv":
        raise UsageError(f"--output {output}: the table is written as CSV, give a name that ends in .csv.")
    if report and report.suffix.lower() != ".html":
        raise UsageError(f"--report {report}: give a name that ends in .html.")
    if output.is_dir():
        raise UsageError(f"--output {output} is a folder; give a file name.")
    root, names = _inputs(input)
    if (own := output.absolute()).is_relative_to(root.absolute()):  # a table of an earlier run is no film
        names = [name for name in names if name != own.relative_to(root.absolute()).as_posix()]

    from lib.calibration import Judge
    from lib.inference import Predictor

    cores = cpu.usable_cores(cpus)
    folder = model or runs_dir / "model"
    predictor = Predictor(folder, precision, cores, workers or cores)
    card = predictor.card
    if backbone not in (None, card.backbone):
        raise JobError(
            f"{folder} holds {card.backbone}, but --backbone is {backbone}. Train {backbone}, or leave the flag out."
        )
    judge = Judge.of(folder, card.calibration)
    if operating_point:
        judge.require_threshold(operating_point)
    make_row = partial(_csv_row, card=card, judge=judge, positive=operating_point, review_below=review_below)
    counts: Counter[str] = Counter()
    shown: list[dict[str, Any]] = []
    pictured: Counter[bool] = Counter()

    def rows() -> Iterator[dict[str, Any]]:
        files = (root / name for name in names)
        for answer in console.track(predictor.predict(files), "films", len(names)):
            row = make_row(answer.path.relative_to(root).as_posix(), answer)
            counts.update({row["prediction"] or "unreadable": 1, "needs review": int(row["needs_review"])})
            if explain and answer.probabilities is not None:
                _draw_map(explain / f"{row['path']}.png", answer, card, row["prediction"])
            if report:
                review = row["needs_review"]
                pictured[review] += answer.probabilities is not None
                small = (
                    {} if answer.probabilities is None or pictured[review] > PICTURES[review] else _pictures(answer, card, row)
                )
                shown.append(row | small)
            yield row

    columns = ["path", "prediction", "confidence", *(f"prob_{name}" for name in card.classes)]
    with durable.lock(output.parent, f"the table {output.name}", name=f".{output.stem[:100]}.lock"):
        durable.write_csv(output, [*columns, "needs_review", "reasons", "outside_lungs", "error", "model"], rows())
        if report:
            from lib.page import write_triage

            write_triage(report, shown, counts, card)
    summary = ", ".join(f"{counts[name]} {name}" for name in (*card.classes, "unreadable", "needs review"))
    console.say(f"{output}: {len(names)} rows ({summary})")
    return SOME_INPUTS_UNUSABLE if counts["unreadable"] else DONE


def _inputs(given: Path) -> tuple[Path, list[str]]:
    """The folder that names start from, and the names: text alone, which takes a quarter of the memory of paths."""
    if given.is_dir():
        files, passed_over = find_files(given)
        if passed_over:
            console.say(f"{passed_over} hidden or operating-system files are not counted as inputs.")
        return given, [path.relative_to(given).as_posix() for path in files]
    if not given.exists():
        raise JobError(f"--input {given} does not exist.")
    return given.parent, [given.name]


def _csv_row(
    path: str, answer: "Prediction", card: "ModelCard", judge: "Judge", positive: str, review_below: float
) -> dict[str, Any]:
    from lib.explain import share_outside_lungs

    reasons = judge.reasons(answer, card.classes, positive)
    row: dict[str, Any] = {"path": path, "prediction": "", "error": answer.error, "model": card.name}
    if answer.probabilities is not None:
        best = judge.choose(answer.probabilities, card.classes, positive)
        confidence = float(answer.probabilities[best])
        if confidence < review_below:
            reasons.append(f"low confidence: below {review_below:g}")
        row |= {
            "prediction": card.classes[best],
            "confidence": f"{confidence:.6f}",
            **{f"prob_{name}": f"{answer.probabilities[index]:.6f}" for index, name in enumerate(card.classes)},
            "outside_lungs": f"{share_outside_lungs(answer.maps, best):.3f}",
        }
    return row | {"needs_review": bool(reasons), "reasons": "; ".join(reasons)}


def _pictures(answer: "Prediction", card: "ModelCard", row: dict[str, Any]) -> dict[str, str]:
    from lib.page import pictures

    return pictures(answer, card, row["prediction"])


def _draw_map(path: Path, answer: "Prediction", card: "ModelCard", predicted: str) -> None:
    """The film as the model sees it, and beside it the same film with the evidence for the answer."""
    import io

    import numpy as np
    from PIL import Image

    from lib.explain import overlay
    from lib.radiograph import read_grey

    grey = read_grey(answer.path, card.input_side)
    over = overlay(grey, answer.maps, card.classes.index(predicted))
    buffer = io.BytesIO()
    Image.fromarray(np.hstack([np.stack([grey] * 3, axis=2), np.asarray(over)])).save(buffer, "PNG")
    with durable.whole_file(path) as file:
        file.write(buffer.getbuffer())


if __name__ == "__main__":
    cli.run(predict_batch)
