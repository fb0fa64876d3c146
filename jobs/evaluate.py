"""Score a checkpoint on data/test: a predictions CSV first, then every number and figure from that CSV."""

from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from lib import cli, console, cpu, durable, settings
from lib.cli import Flag
from lib.errors import DONE, SOME_INPUTS_UNUSABLE, JobError
from lib.manifest import SplitRecord, read_split, read_split_digest


def evaluate(
    *,
    backbone: Annotated[str, settings.BACKBONE] = settings.BACKBONE.default,
    checkpoint_path: Annotated[
        Path | None, Flag("checkpoint to score; none: RUNS_DIR/best_<backbone>.pt", placeholder="FILE")
    ] = None,
    output: Annotated[Path | None, Flag("folder for the results; none: RUNS_DIR/evaluation", placeholder="DIR")] = None,
    batch_size: Annotated[int, Flag("films per forward pass; the scores do not depend on it", at_least=1)] = 32,
    data_dir: Annotated[Path, settings.DATA_DIR] = settings.DATA_DIR.default,
    runs_dir: Annotated[Path, settings.RUNS_DIR] = settings.RUNS_DIR.default,
    seed: Annotated[int, settings.SEED] = settings.SEED.default,
    cpus: Annotated[int, settings.CPUS] = settings.CPUS.default,
    workers: Annotated[int, settings.WORKERS] = settings.WORKERS.default,
) -> int:
    """Score a checkpoint on the test films that no training or model choice has seen.

    Writes predictions.csv (one row per film), metrics.json (accuracy, macro-F1, precision, recall, F1 and one-vs-rest
    AUROC per class, confusion matrix), and the figures confusion.png, roc.png and overview.png. The numbers come
    from predictions.csv alone. A film that cannot be read is a row with its error, and the job ends with exit code 3.

    Examples:
        python -m jobs.evaluate
        python -m jobs.evaluate --checkpoint_path runs/phase_a/best_efficientnet_b0.pt --output runs/evaluation/phase_a
    """
    import torch

    from lib import checkpoints, metrics, report
    from lib.inference import Predictor

    cores = cpu.usable_cores(cpus)
    torch.set_num_threads(cores)
    path = checkpoint_path or runs_dir / f"best_{backbone}.pt"
    folder = output or runs_dir / "evaluation"
    rows = [row for row in read_split(data_dir) if row.split == "test"]
    checkpoint = checkpoints.load(path)
    if checkpoint_path is None:
        checkpoints.require_fit(path, checkpoint, backbone, sorted({row.label for row in rows}))
    _require_untouched_test(checkpoint, rows, data_dir)
    with durable.lock(folder, "the evaluation"):
        predictor = Predictor(checkpoint, workers or cores, batch_size)
        files = [data_dir / row.file for row in rows]
        answers = console.track(predictor.predict(files), "test films", len(files))
        table = [_csv_row(row, answer, checkpoint.classes) for row, answer in zip(rows, answers, strict=True)]
        durable.write_csv(folder / "predictions.csv", list(table[0]), table)

        predictions = metrics.read_predictions(folder / "predictions.csv")
        scores = metrics.score(predictions)
        provenance = {
            "checkpoint": path.name,
            "phase": checkpoint.phase,
            "model": predictor.name,
            "weights_sha256": checkpoint.digest,
            "split_sha256": read_split_digest(data_dir),
        }
        report.confusion(scores, folder / "confusion.png")
        report.roc(predictions, scores, folder / "roc.png")
        report.overview(predictions, scores, data_dir / "test", folder / "overview.png", seed)
        durable.write_json(folder / "metrics.json", {**provenance, **scores})
    console.table(
        f"phase {checkpoint.phase} on {scores['films']} test films",
        ("class", "precision", "recall", "F1", "AUROC", "films"),
        metrics.table_rows(scores),
    )
    console.say(f"accuracy {scores['accuracy']:.3f} · macro-F1 {scores['macro_f1']:.3f} · results in {folder}")
    if scores["unreadable"]:
        console.warn(f"{scores['unreadable']} test films could not be read; predictions.csv says why.")
        return SOME_INPUTS_UNUSABLE
    return DONE


def _require_untouched_test(checkpoint: Any, rows: list[SplitRecord], data_dir: Path) -> None:
    """A score on another split than the one trained on may count training films: refuse it."""
    if not rows:
        raise JobError(f"{data_dir / 'split.csv'} names no test film. Run the split job again.")
    if checkpoint.data_digest != read_split_digest(data_dir):
        raise JobError(
            "this checkpoint was trained on another split than data/split.csv, so the test films may be among its "
            "training films. Train on this split first, or restore the split (same films, seed and fractions)."
        )


def _csv_row(row: SplitRecord, answer: Any, classes: tuple[str, ...]) -> dict[str, Any]:
    known = answer.probabilities is not None
    best = int(answer.probabilities.argmax()) if known else 0
    return {
        "path": f"{row.label}/{PurePosixPath(row.path).name}",
        "label": row.label,
        "prediction": classes[best] if known else "",
        "confidence": round(float(answer.probabilities[best]), 6) if known else "",
        **{f"prob_{name}": round(float(answer.probabilities[i]), 6) if known else "" for i, name in enumerate(classes)},
        "group": row.group,
        "error": answer.error,
    }


if __name__ == "__main__":
    cli.run(evaluate)
