"""Classify a folder of films to a CSV: one row per file, whatever the file is."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from lib import cli, console, cpu, durable, settings
from lib.backbones import BACKBONES
from lib.cli import Flag
from lib.errors import DONE, SOME_INPUTS_UNUSABLE, JobError, UsageError
from lib.radiograph import find_files


def predict_batch(
    *,
    input: Annotated[Path, Flag("a film, or a folder that is searched with all its subfolders", placeholder="DIR_OR_FILE")],
    output: Annotated[Path, Flag("the table to write; it appears whole, under this name, at the end", placeholder="FILE.csv")],
    model: Annotated[Path | None, Flag("folder of the compiled model; none: RUNS_DIR/model", placeholder="DIR")] = None,
    backbone: Annotated[
        str | None, Flag("refuse a model of another backbone; none takes any", choices=tuple(BACKBONES))
    ] = None,
    review_below: Annotated[
        float, Flag("a smaller probability of the predicted class asks for a human look", at_least=0, below=1)
    ] = 0.8,
    precision: Annotated[str, settings.PRECISION] = settings.PRECISION.default,
    runs_dir: Annotated[Path, settings.RUNS_DIR] = settings.RUNS_DIR.default,
    cpus: Annotated[int, settings.CPUS] = settings.CPUS.default,
    workers: Annotated[int, settings.WORKERS] = settings.WORKERS.default,
) -> int:
    """Classify every file below --input and write one row per file, sorted by path.

    Columns: path (below --input), prediction, confidence, prob_<CLASS> for each class, needs_review, reasons, error,
    model. A file that cannot be read has an empty prediction and its reason in error; the job then ends with exit
    code 3 and the table is complete all the same. An empty folder gives a table without rows. Hidden and
    operating-system files (.DS_Store, Thumbs.db) are not inputs. Not a medical device: a person decides.

    Examples:
        python -m jobs.predict_batch --input /srv/inbox --output runs/predictions/today.csv
        python -m jobs.predict_batch --input film.png --output film.csv --review_below 0.9
    """
    if output.suffix.lower() != ".csv":
        raise UsageError(f"--output {output}: the table is written as CSV, give a name that ends in .csv.")
    if output.is_dir():
        raise UsageError(f"--output {output} is a folder; give a file name.")
    root, files = _inputs(input)
    files = [path for path in files if path.absolute() != output.absolute()]  # a table of an earlier run is no film

    from lib.inference import LOW_CONTRAST, Predictor

    cores = cpu.usable_cores(cpus)
    folder = model or runs_dir / "model"
    predictor = Predictor(folder, precision, cores, workers or cores)
    card = predictor.card
    if backbone not in (None, card.backbone):
        raise JobError(
            f"{folder} holds {card.backbone}, but --backbone is {backbone}. Train {backbone}, or leave the flag out."
        )
    counts: Counter[str] = Counter()

    def rows() -> Iterator[dict[str, Any]]:
        for answer in console.track(predictor.predict(files), "films", len(files)):
            row = _csv_row(answer, root, card.classes, card.name, review_below, LOW_CONTRAST)
            counts.update({row["prediction"] or "unreadable": 1, "needs review": int(row["needs_review"])})
            yield row

    columns = ["path", "prediction", "confidence", *(f"prob_{name}" for name in card.classes)]
    with durable.lock(output.parent, f"the table {output.name}", name=f".{output.stem[:100]}.lock"):
        durable.write_csv(output, [*columns, "needs_review", "reasons", "error", "model"], rows())
    summary = ", ".join(f"{counts[name]} {name}" for name in (*card.classes, "unreadable", "needs review"))
    console.say(f"{output}: {len(files)} rows ({summary})")
    return SOME_INPUTS_UNUSABLE if counts["unreadable"] else DONE


def _inputs(given: Path) -> tuple[Path, list[Path]]:
    if given.is_dir():
        files, passed_over = find_files(given)
        if passed_over:
            console.say(f"{passed_over} hidden or operating-system files are not counted as inputs.")
        return given, files
    if not given.exists():
        raise JobError(f"--input {given} does not exist.")
    return given.parent, [given]


def _csv_row(
    answer: Any, root: Path, classes: tuple[str, ...], model: str, review_below: float, low_contrast: float
) -> dict[str, Any]:
    path = answer.path.relative_to(root).as_posix()
    if answer.probabilities is None:
        return {
            "path": path,
            "prediction": "",
            "needs_review": True,
            "reasons": "unreadable",
            "error": answer.error,
            "model": model,
        }
    best = int(answer.probabilities.argmax())
    confidence = float(answer.probabilities[best])
    reasons = []
    if confidence < review_below:
        reasons.append("low confidence")
    if answer.contrast < low_contrast:
        reasons.append("blank or nearly blank")
    return {
        "path": path,
        "prediction": classes[best],
        "confidence": f"{confidence:.6f}",
        **{f"prob_{name}": f"{answer.probabilities[index]:.6f}" for index, name in enumerate(classes)},
        "needs_review": bool(reasons),
        "reasons": "; ".join(reasons),
        "error": "",
        "model": model,
    }


if __name__ == "__main__":
    cli.run(predict_batch)
