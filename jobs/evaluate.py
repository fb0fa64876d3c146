"""Score a model on labelled films: predictions.csv first, then every number from that table."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

from lib import settings
from lib.dataset.manifest import read_split_digest
from lib.network.backbones import BACKBONES
from lib.network.choices import PrecisionChoice
from lib.run import console, execute, signals
from lib.run.errors import DONE, SOME_INPUTS_UNUSABLE, JobError, UsageError
from lib.run.flags import Flag
from lib.storage import atomic
from lib.workers.cores import usable_cores

if TYPE_CHECKING:
    import pandas as pd

    from lib.evaluation.evaluation import Options
    from lib.evaluation.films import EvaluationSet, LabelledFilm
    from lib.evaluation.results import Evaluation, ScoredModel
    from lib.network.artifact import ModelManifest
    from lib.prediction.calibration import Calibration
    from lib.prediction.predictor import Predictor
    from lib.prediction.triage import Triage


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
    output: Annotated[
        Path | None, Flag("folder for the results; none: RUNS_DIR/evaluation", placeholder="DIR")
    ] = None,
    positive: Annotated[
        str | None,
        Flag(
            "class of interest for the operating point; none: TUBERCULOSIS, if the model has it",
            placeholder="CLASS",
        ),
    ] = None,
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
        Flag("folder of another evaluation of the same test films: add the paired differences"),
    ] = None,
    baselines: Annotated[
        bool,
        Flag("score baselines that see no lung beside the model, and probe its features"),
    ] = True,
    precision: Annotated[PrecisionChoice, settings.PRECISION] = settings.PRECISION.default,
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
    and with --output). Every number comes from the three tables. A film that cannot be read is a
    row with its error, and the job ends with exit code 3.

    Examples:
        python -m jobs.evaluate
        python -m jobs.evaluate --model runs/phase_a/model --output runs/evaluation/phase_a
        python -m jobs.evaluate --compare runs/evaluation/phase_a
        python -m jobs.evaluate --checkpoint_path other/best_resnet18.pt --output runs/other
    """
    request = Request(
        model=model,
        checkpoint=checkpoint_path,
        backbone=backbone,
        output=output,
        positive=positive,
        prevalences=prevalences,
        compare=compare,
        baselines=baselines,
        precision=precision,
        data_dir=data_dir,
        runs_dir=runs_dir,
        seed=seed,
        cores=usable_cores(cpus),
        readers=workers or usable_cores(cpus),
    )
    request.check()
    from lib.evaluation import evaluation as engine

    with atomic.lock(request.folder, "the evaluation"), model_to_score(request) as scored:
        films = films_to_score(request, scored.manifest)
        options = options_of(request, scored.manifest)
        earlier = earlier_predictions(request, films, scored.manifest)
        predictions = predict(request, films, scored)
        beside = predict_baselines(request, films, scored)
        probe = probe_sources(request, films, scored)
        evaluation = engine.evaluate(
            predictions, beside, scored.identity, scored.calibration, options, earlier, probe
        )
        write_all(request, evaluation, predictions, films, scored)
    return print_results(request, evaluation)


@dataclass(frozen=True)
class Request:
    """The flags, and the folders that follow from them."""

    model: Path | None
    checkpoint: Path | None
    backbone: str | None
    output: Path | None
    positive: str | None
    prevalences: tuple[float, ...]
    compare: Path | None
    baselines: bool
    precision: PrecisionChoice
    data_dir: Path
    runs_dir: Path
    seed: int
    cores: int
    readers: int  # processes and threads that decode

    @property
    def folder(self) -> Path:
        """Of the tables, the figures and metrics.json."""
        return self.output or self.runs_dir / "evaluation"

    @property
    def report(self) -> Path:
        """The page to read."""
        return (self.output or self.runs_dir) / "report.html"

    @property
    def model_card(self) -> Path:
        """Beside RUNS_DIR's own model, else beside the tables."""
        is_own = self.model is None and self.checkpoint is None and self.output is None
        return (self.runs_dir / "model" if is_own else self.folder) / "MODEL_CARD.md"

    def check(self) -> None:
        """Refuse combinations of flags.

        Raises:
            UsageError: two models, or a comparison with the folder that is written.
        """
        if self.model and self.checkpoint:
            raise UsageError("--model and --checkpoint_path name two models; give one of them.")
        if self.compare and self.compare.resolve() == self.folder.resolve():
            raise UsageError(
                f"--compare {self.compare} is the folder that this evaluation is written to. "
                "Give another folder for the results (--output), or keep a copy of the earlier one."
            )


@dataclass(frozen=True)
class Scored:
    """A model that is ready to predict."""

    predictor: "Predictor"
    triage: "Triage"

    @property
    def manifest(self) -> "ModelManifest":
        """What model.json holds."""
        return self.predictor.manifest

    @property
    def calibration(self) -> "Calibration | None":
        """What validation films taught; None: the model was made without them."""
        return self.triage.calibration

    @property
    def identity(self) -> "ScoredModel":
        """The model in metrics.json."""
        from lib.evaluation.results import ScoredModel

        return ScoredModel(
            name=self.manifest.name,
            phase=self.manifest.phase,
            precision=self.predictor.precision,
            weights_sha256=self.manifest.weights_sha256,
            split_sha256=self.manifest.split_sha256,
        )


@contextmanager
def model_to_score(request: Request) -> Iterator[Scored]:
    """The compiled model; a checkpoint is compiled into a temporary folder.

    Raises:
        JobError: no model, or one of another backbone.
    """
    from lib.prediction.predictor import Predictor
    from lib.prediction.triage import Triage

    with TemporaryDirectory() as scratch:
        folder = request.model or request.runs_dir / "model"
        if request.checkpoint:
            folder = Path(scratch) / "model"
            _compile(request.checkpoint, folder, request.cores)
        predictor = Predictor(folder, request.precision, request.cores, request.readers)
        manifest = predictor.manifest
        if request.backbone not in (None, manifest.backbone):
            raise JobError(
                f"{folder} holds {manifest.backbone}, but --backbone is {request.backbone}. "
                f"Train {request.backbone}, or leave the flag out."
            )
        yield Scored(predictor, Triage.of(folder, manifest))


def films_to_score(request: Request, manifest: "ModelManifest") -> "EvaluationSet":
    """The test films of the split that the model was trained on.

    Raises:
        JobError: another split, whose test films may be among the model's training films; or no
        test film.
    """
    from lib.evaluation.films import EvaluationSet

    films = EvaluationSet.of_split(request.data_dir)
    if manifest.split_sha256 != read_split_digest(request.data_dir):
        raise JobError(
            "this model was trained on another split than data/split.csv, so the test films may be "
            "among its training films. Train on this split first, or restore the split (same "
            "films, seed and fractions)."
        )
    return films


def options_of(request: Request, manifest: "ModelManifest") -> "Options":
    """The class of interest, the prevalences and the seed.

    Raises:
        JobError: the model does not have the class.
    """
    from lib.evaluation.evaluation import Options
    from lib.prediction.classes import CLASS_OF_INTEREST

    if request.positive is not None and request.positive not in manifest.classes:
        raise JobError(
            f"--positive {request.positive}: this model knows {', '.join(manifest.classes)}."
        )
    positive = request.positive or CLASS_OF_INTEREST
    return Options(positive, request.prevalences, request.seed)


def earlier_predictions(
    request: Request, films: "EvaluationSet", manifest: "ModelManifest"
) -> "pd.DataFrame | None":
    """The table of --compare, refused before any film is read if it is of other films."""
    from lib.evaluation.predictions import read_earlier

    if request.compare is None:
        return None
    return read_earlier(request.compare, films.names, films.labels, manifest.classes)


def predict(request: Request, films: "EvaluationSet", scored: Scored) -> "pd.DataFrame":
    """Write predictions.csv, one row per film, and read it again."""
    from lib.evaluation.predictions import read_predictions
    from lib.prediction.rows import RowSchema, row_of

    files = [film.file for film in films.films]
    schema = RowSchema(scored.manifest.classes, probability_format=".9g")
    answers = console.track(scored.predictor.predict(files), "test films", len(files))
    rows = []
    for film, answer in zip(films.films, answers, strict=True):
        row = row_of(film.name, answer, scored.triage, scored.manifest.name)
        rows.append(_labelled(film, schema.cells(row)))
    table = request.folder / "predictions.csv"
    atomic.write_csv(table, list(rows[0]), rows)
    return read_predictions(table)


def predict_baselines(request: Request, films: "EvaluationSet", scored: Scored) -> "pd.DataFrame":
    """Write baselines.csv; without rows where none is wanted or there is no training film."""
    from lib.evaluation import baselines
    from lib.evaluation.hidden_lungs import LunglessFeatures

    table = baselines.no_baselines()
    if request.baselines and films.training:
        lungless = LunglessFeatures(scored.predictor)
        compute = baselines.Compute(request.seed, request.cores, request.readers, lungless)
        table = baselines.predict_baselines(films, compute)
    _write_table(table, request.folder / "baselines.csv")
    return table


def probe_sources(request: Request, films: "EvaluationSet", scored: Scored) -> "pd.DataFrame":
    """Write source_probe.csv; without rows like baselines.csv, or if no class has two sources."""
    from lib.evaluation import source_probe

    def features_of(files: Sequence[Path]) -> list[Any]:
        answers = console.track(scored.predictor.predict(files), "films of the probe", len(files))
        return [answer.features for answer in answers]

    table = source_probe.no_probe()
    if request.baselines and films.training:
        table = source_probe.probe_sources(films, features_of, request.seed)
    _write_table(table, request.folder / "source_probe.csv")
    return table


def write_all(
    request: Request,
    evaluation: "Evaluation",
    predictions: "pd.DataFrame",
    films: "EvaluationSet",
    scored: Scored,
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


def print_results(request: Request, evaluation: "Evaluation") -> int:
    """Print the scores and return the exit code."""
    from lib.reports.summary import print_evaluation

    print_evaluation(evaluation, request.folder, request.report)
    if evaluation.unreadable:
        console.warn(
            f"{evaluation.unreadable} test films could not be read; predictions.csv says why."
        )
        return SOME_INPUTS_UNUSABLE
    return DONE


def _compile(checkpoint_path: Path, folder: Path, cores: int) -> None:
    """Compile a checkpoint into a model folder.

    It is used in fp32: without validation films its agreement in bfloat16 is unknown.
    """
    signals.import_torch()
    from lib.network import backbones, checkpoints, export

    checkpoint = checkpoints.load(checkpoint_path)
    network = backbones.build(checkpoint.architecture, len(checkpoint.classes))
    network.load_state_dict(checkpoint.state)
    export.write_model(folder, checkpoint, network, [], cores)


def _write_table(table: "pd.DataFrame", path: Path) -> None:
    columns = list(table.columns)
    rows = [dict(zip(columns, values, strict=True)) for values in table.itertuples(index=False)]
    atomic.write_csv(path, columns, rows)


def _labelled(film: "LabelledFilm", cells: Mapping[str, str]) -> dict[str, str]:
    """A row of predictions.csv: the film's own columns among the cells of its prediction."""
    label = {"path": film.name, "label": film.label}
    origin = {"group": film.group, "source": film.source}
    behind = ("needs_review", "reasons", "outside_lungs", "error")
    before = [name for name in cells if name not in (*behind, "path", "model")]
    return {
        **label,
        **{name: cells[name] for name in before},
        **origin,
        **{name: cells[name] for name in behind},
    }


if __name__ == "__main__":
    execute.run(evaluate)
