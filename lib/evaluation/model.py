"""The model that is scored, compiled and ready to predict."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from lib.evaluation.baselines import Thumbnails
from lib.evaluation.hidden_lungs import LunglessFeatures
from lib.evaluation.request import Request
from lib.evaluation.results import ScoredModel
from lib.network.artifact import ModelManifest
from lib.prediction.calibration import Calibration
from lib.prediction.predictor import Predictor
from lib.prediction.triage import Triage
from lib.run import signals
from lib.run.errors import JobError


@dataclass(frozen=True)
class Scored:
    """A model that is ready to predict."""

    predictor: Predictor
    triage: Triage
    thumbnails: Thumbnails = field(default_factory=dict)  # that were read

    @property
    def manifest(self) -> ModelManifest:
        """What model.json holds."""
        return self.predictor.manifest

    @property
    def calibration(self) -> Calibration | None:
        """What validation films taught; None: the model was made without them."""
        return self.triage.calibration

    @cached_property
    def lungless(self) -> LunglessFeatures:
        """The network's features of films whose lungs are hidden; each film is computed once."""
        return LunglessFeatures(self.predictor)

    @property
    def identity(self) -> ScoredModel:
        """The model in metrics.json."""
        return ScoredModel(
            name=self.manifest.name,
            phase=self.manifest.phase,
            precision=self.predictor.precision,
            weights_sha256=self.manifest.weights_sha256,
            split_sha256=self.manifest.split_sha256,
            operating_point=self.triage.operating_point,
        )


@contextmanager
def model_to_score(request: Request) -> Iterator[Scored]:
    """The compiled model; a checkpoint is compiled into a temporary folder.

    Raises:
        JobError: no model, or one of another backbone.
    """
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
        yield Scored(predictor, Triage.of(folder, manifest, request.operating_point))


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
