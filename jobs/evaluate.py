"""Score a model on data/test: a predictions CSV first, then every number and figure from that CSV."""

from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

from lib import settings
from lib.dataset.manifest import SplitRecord, read_split, read_split_digest
from lib.network.backbones import BACKBONES
from lib.run import console, execute, signals
from lib.run.errors import DONE, SOME_INPUTS_UNUSABLE, JobError, UsageError
from lib.run.flags import Flag
from lib.storage import atomic
from lib.workers.cores import usable_cores

if TYPE_CHECKING:
    from lib.network.artifact import ModelManifest
    from lib.prediction.rows import Row, RowSchema


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
        Flag("refuse a model of another backbone; none takes any", choices=tuple(BACKBONES)),
    ] = None,
    output: Annotated[
        Path | None, Flag("folder for the results; none: RUNS_DIR/evaluation", placeholder="DIR")
    ] = None,
    positive: Annotated[
        str | None,
        Flag(
            "class of interest for the operating point; none: TUBERCULOSIS, if known",
            placeholder="CLASS",
        ),
    ] = None,
    prevalences: Annotated[
        tuple[float, ...],
        Flag(
            "shares of the class of interest to give predictive values for",
            above=0,
            below=1,
            placeholder="X,X",
        ),
    ] = (0.005, 0.02, 0.1, 0.3),
    compare: Annotated[
        Path | None,
        Flag("folder of another evaluation of the same test films: print the paired differences"),
    ] = None,
    baselines: Annotated[
        bool, Flag("score what file metadata and a thumbnail alone would reach, beside the model")
    ] = True,
    precision: Annotated[str, settings.PRECISION] = settings.PRECISION.default,
    data_dir: Annotated[Path, settings.DATA_DIR] = settings.DATA_DIR.default,
    runs_dir: Annotated[Path, settings.RUNS_DIR] = settings.RUNS_DIR.default,
    seed: Annotated[int, settings.SEED] = settings.SEED.default,
    cpus: Annotated[int, settings.CPUS] = settings.CPUS.default,
    workers: Annotated[int, settings.WORKERS] = settings.WORKERS.default,
) -> int:
    """Score the compiled model on the test films that no training or model choice has seen.

    Writes predictions.csv (one row per film, calibrated probabilities), baselines.csv (what a
    baseline that never sees a lung answers), metrics.json (scores with 95 % intervals drawn by
    patient where names tell, calibration, operating point, scores by source, the verdict),
    thresholds.csv, the figures confusion.png, roc.png and overview.png, and the page to read:
    RUNS_DIR/report.html (report.html in --output, where that is given), with MODEL_CARD.md beside
    RUNS_DIR's model (beside the tables for another one, and with --output). The numbers come from
    the two tables alone. A film that cannot be read is a row with its error, and the job ends with
    exit code 3.

    Examples:
        python -m jobs.evaluate
        python -m jobs.evaluate --model runs/phase_a/model --output runs/evaluation/phase_a
        python -m jobs.evaluate --compare runs/evaluation/phase_a
        python -m jobs.evaluate --checkpoint_path elsewhere/best_resnet18.pt --output runs/evaluation/elsewhere
    """
    from lib.dataset import audit
    from lib.evaluation import evaluation, metrics
    from lib.prediction.predictor import Predictor
    from lib.prediction.rows import RowSchema, row_of
    from lib.prediction.triage import Triage
    from lib.reports import figures, pages

    if model and checkpoint_path:
        raise UsageError("--model and --checkpoint_path name two models; give one of them.")
    cores = usable_cores(cpus)
    folder = output or runs_dir / "evaluation"
    if compare and compare.resolve() == folder.resolve():
        raise UsageError(
            f"--compare {compare} is where this evaluation goes: keep the earlier one elsewhere, or give --output."
        )
    rows = [row for row in read_split(data_dir) if row.split == "test"]
    with atomic.lock(folder, "the evaluation"), TemporaryDirectory() as scratch:
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
        positive = _class_of_interest(positive, card)
        rival = (
            evaluation.earlier(
                compare, [_path(row) for row in rows], [row.label for row in rows], card.classes
            )
            if compare
            else None
        )
        films = evaluation.Films.read(data_dir)
        triage = Triage.of(compiled, card)
        schema = RowSchema(card.classes, probability_format=".9g")
        files = [data_dir / row.file for row in rows]
        answers = console.track(predictor.predict(files), "test films", len(files))
        table = [
            _csv_row(
                row,
                row_of(_path(row), answer, triage, card.name),
                schema,
                films.source_of[row.path],
            )
            for row, answer in zip(rows, answers, strict=True)
        ]
        atomic.write_csv(folder / "predictions.csv", list(table[0]), table)
        rivals = films.baselines(data_dir, seed, cores, workers or cores) if baselines else []
        atomic.write_csv(folder / "baselines.csv", ["path", *evaluation.BASELINES], rivals)

        predictions = metrics.read_predictions(folder / "predictions.csv")
        scores = {
            "phase": card.phase,
            "model": card.name,
            "precision": predictor.precision,
            "weights_sha256": card.weights_sha256,
            "split_sha256": card.split_sha256,
            **metrics.score(predictions),
            **evaluation.assess(
                predictions, rivals, triage.calibration, positive, prevalences, seed
            ),
        }
        if rival is not None:
            scores["compared"] = evaluation.compare(predictions, rival, seed)
        (folder / "thresholds.csv").unlink(
            missing_ok=True
        )  # an earlier one may be of another class
        if scores["operating_point"]:
            thresholds = metrics.threshold_table(
                metrics.answers_of(predictions), positive, prevalences
            )
            atomic.write_csv(folder / "thresholds.csv", list(thresholds[0]), thresholds)
        figures.confusion(scores, folder / "confusion.png")
        figures.roc(predictions, scores, folder / "roc.png")
        figures.overview(predictions, scores, data_dir / "test", folder / "overview.png", seed)
        found = audit.audit(list(films.record_of.values()))
        place = runs_dir if output is None else folder
        pages.write_report(
            place / "report.html",
            scores,
            predictions,
            found,
            card,
            films=data_dir / "test",
            raw=data_dir / "raw",
            runs=runs_dir,
            predict=lambda paths: list(predictor.predict(paths)),
            seed=seed,
        )
        own = model is None and checkpoint_path is None and output is None
        pages.write_model_card((compiled if own else folder) / "MODEL_CARD.md", scores, found, card)
        atomic.write_json(
            folder / "metrics.json", scores
        )  # the last one: who finds it finds everything
    _print(scores, folder, place / "report.html")
    if scores["unreadable"]:
        console.warn(
            f"{scores['unreadable']} test films could not be read; predictions.csv says why."
        )
        return SOME_INPUTS_UNUSABLE
    return DONE


def _compile(checkpoint_path: Path, folder: Path, cores: int) -> None:
    """A checkpoint as a model folder. Without validation films bfloat16 is not calibrated, so it is
    not used.
    """
    signals.import_torch()
    from lib.network import backbones, checkpoints, export

    checkpoint = checkpoints.load(checkpoint_path)
    network = backbones.build(checkpoint.row, len(checkpoint.classes))
    network.load_state_dict(checkpoint.state)
    export.write_model(folder, checkpoint, network, [], cores)


def _class_of_interest(positive: str | None, card: "ModelManifest") -> str:
    if positive is not None and positive not in card.classes:
        raise JobError(f"--positive {positive}: this model knows {', '.join(card.classes)}.")
    return positive or "TUBERCULOSIS"


def _path(row: SplitRecord) -> str:
    """A test film in predictions.csv: below data/test."""
    return f"{row.label}/{PurePosixPath(row.path).name}"


def _require_untouched_test(card: Any, rows: list[SplitRecord], data_dir: Path) -> None:
    """A score on another split than the one trained on may count training films: refuse it."""
    if not rows:
        raise JobError(f"{data_dir / 'split.csv'} names no test film. Run the split job again.")
    if card.split_sha256 != read_split_digest(data_dir):
        raise JobError(
            "this model was trained on another split than data/split.csv, so the test films may be among its "
            "training films. Train on this split first, or restore the split (same films, seed and fractions)."
        )


def _csv_row(record: SplitRecord, row: "Row", schema: "RowSchema", source: str) -> dict[str, str]:
    """A row of predictions.csv."""
    cells = schema.cells(row)
    answer = ("prediction", "confidence", *(f"prob_{name}" for name in schema.classes))
    return {
        "path": _path(record),
        "label": record.label,
        **{name: cells[name] for name in answer},
        "group": record.group,
        "source": source,
        **{name: cells[name] for name in ("needs_review", "reasons", "outside_lungs", "error")},
    }


def _print(scores: dict[str, Any], folder: Path, report: Path) -> None:
    from lib.evaluation import metrics
    from lib.reports.pages import with_range

    console.table(
        f"phase {scores['phase']} on {scores['films']} test films, with 95 % intervals",
        ("class", "precision", "recall", "F1", "AUROC", "films"),
        metrics.table_rows(scores),
    )
    for rival in scores["baselines"].values():
        margin = with_range(scores["macro_f1"] - rival["macro_f1"], rival["margin"], "+.3f")
        console.say(
            f"{rival['what']}: macro-F1 {rival['macro_f1']:.3f}; the model minus this: {margin}"
        )
    for source in scores["sources"]:
        for name, area in source["auroc"].items():
            console.say(
                f"within {source['source']}: {name} against the rest, AUROC {with_range(area['auroc'], area['interval'])}"
            )
        if source["auroc"] and source["baselines"]:
            rivals = ", ".join(
                f"{name} alone {share:.3f}" for name, share in source["baselines"].items()
            )
            console.say(
                f"within {source['source']}: accuracy {with_range(source['accuracy'], source['accuracy_interval'])}, {rivals}"
            )
    point = scores["operating_point"]
    if point:
        console.say(
            f"{point['class']} from probability {point['threshold']:.3f}: sensitivity "
            f"{with_range(point['sensitivity'], point['intervals']['sensitivity'])}, specificity "
            f"{with_range(point['specificity'], point['intervals']['specificity'])}, "
            f"{point['missed']} of {point['cases']} cases missed"
        )
    for name, change in scores.get("compared", {}).items():
        if name in ("accuracy", "macro_f1") or name.startswith("auroc"):
            console.say(
                f"change of {name}: {with_range(change['difference'], change['interval'], '+.3f')}"
            )
    if scores["verdict"]:
        console.say(f"Verdict: {scores['verdict']['words']}")
    accuracy, f1 = (
        with_range(scores[name], scores["intervals"][name]) for name in ("accuracy", "macro_f1")
    )
    console.say(
        f"accuracy {accuracy} · macro-F1 {f1} · results in {folder}, the page to read: {report}"
    )


if __name__ == "__main__":
    execute.run(evaluate)
