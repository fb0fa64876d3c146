"""Score a model on data/test: a predictions CSV first, then every number and figure from that CSV."""

from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from lib import cli, console, cpu, durable, settings
from lib.backbones import BACKBONES
from lib.cli import Flag
from lib.errors import DONE, SOME_INPUTS_UNUSABLE, JobError, UsageError
from lib.manifest import SplitRecord, read_split, read_split_digest


def evaluate(
    *,
    model: Annotated[Path | None, Flag("folder of the compiled model; none: RUNS_DIR/model", placeholder="DIR")] = None,
    checkpoint_path: Annotated[
        Path | None, Flag("score this checkpoint instead: it is compiled first, in fp32", placeholder="FILE")
    ] = None,
    backbone: Annotated[
        str | None, Flag("refuse a model of another backbone; none takes any", choices=tuple(BACKBONES))
    ] = None,
    output: Annotated[Path | None, Flag("folder for the results; none: RUNS_DIR/evaluation", placeholder="DIR")] = None,
    precision: Annotated[str, settings.PRECISION] = settings.PRECISION.default,
    data_dir: Annotated[Path, settings.DATA_DIR] = settings.DATA_DIR.default,
    runs_dir: Annotated[Path, settings.RUNS_DIR] = settings.RUNS_DIR.default,
    seed: Annotated[int, settings.SEED] = settings.SEED.default,
    cpus: Annotated[int, settings.CPUS] = settings.CPUS.default,
    workers: Annotated[int, settings.WORKERS] = settings.WORKERS.default,
) -> int:
    """Score the compiled model on the test films that no training or model choice has seen.

    Writes predictions.csv (one row per film), metrics.json (accuracy, macro-F1, precision, recall, F1 and one-vs-rest
    AUROC per class, confusion matrix), and the figures confusion.png, roc.png and overview.png. The numbers come
    from predictions.csv alone. A film that cannot be read is a row with its error, and the job ends with exit code 3.

    Examples:
        python -m jobs.evaluate
        python -m jobs.evaluate --model runs/phase_a/model --output runs/evaluation/phase_a
        python -m jobs.evaluate --checkpoint_path elsewhere/best_resnet18.pt --output runs/evaluation/elsewhere
    """
    from lib import metrics, report
    from lib.inference import Predictor

    if model and checkpoint_path:
        raise UsageError("--model and --checkpoint_path name two models; give one of them.")
    cores = cpu.usable_cores(cpus)
    folder = output or runs_dir / "evaluation"
    rows = [row for row in read_split(data_dir) if row.split == "test"]
    with durable.lock(folder, "the evaluation"), TemporaryDirectory() as scratch:
        compiled = model or runs_dir / "model"
        if checkpoint_path:
            compiled = Path(scratch) / "model"
            _compile(checkpoint_path, compiled, cores)
        predictor = Predictor(compiled, precision, cores, workers or cores)
        card = predictor.card
        if backbone not in (None, card.backbone):
            raise JobError(
                f"{compiled} holds {card.backbone}, but --backbone is {backbone}. Train {backbone}, or leave the flag out."
            )
        _require_untouched_test(card, rows, data_dir)
        files = [data_dir / row.file for row in rows]
        answers = console.track(predictor.predict(files), "test films", len(files))
        table = [_csv_row(row, answer, card.classes) for row, answer in zip(rows, answers, strict=True)]
        durable.write_csv(folder / "predictions.csv", list(table[0]), table)

        predictions = metrics.read_predictions(folder / "predictions.csv")
        scores = metrics.score(predictions)
        provenance = {
            "phase": card.phase,
            "model": card.name,
            "precision": predictor.precision,
            "weights_sha256": card.weights_sha256,
            "split_sha256": card.split_sha256,
        }
        report.confusion(scores, folder / "confusion.png")
        report.roc(predictions, scores, folder / "roc.png")
        report.overview(predictions, scores, data_dir / "test", folder / "overview.png", seed)
        durable.write_json(folder / "metrics.json", {**provenance, **scores})
    console.table(
        f"phase {card.phase} on {scores['films']} test films",
        ("class", "precision", "recall", "F1", "AUROC", "films"),
        metrics.table_rows(scores),
    )
    console.say(f"accuracy {scores['accuracy']:.3f} · macro-F1 {scores['macro_f1']:.3f} · results in {folder}")
    if scores["unreadable"]:
        console.warn(f"{scores['unreadable']} test films could not be read; predictions.csv says why.")
        return SOME_INPUTS_UNUSABLE
    return DONE


def _compile(checkpoint_path: Path, folder: Path, cores: int) -> None:
    """A checkpoint as a model folder. Without validation films bfloat16 is not calibrated, so it is not used."""
    from lib import backbones, checkpoints, export

    checkpoint = checkpoints.load(checkpoint_path)
    network = backbones.build(checkpoint.row, len(checkpoint.classes))
    network.load_state_dict(checkpoint.state)
    export.write_model(folder, checkpoint, network, [], cores)


def _require_untouched_test(card: Any, rows: list[SplitRecord], data_dir: Path) -> None:
    """A score on another split than the one trained on may count training films: refuse it."""
    if not rows:
        raise JobError(f"{data_dir / 'split.csv'} names no test film. Run the split job again.")
    if card.split_sha256 != read_split_digest(data_dir):
        raise JobError(
            "this model was trained on another split than data/split.csv, so the test films may be among its "
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
