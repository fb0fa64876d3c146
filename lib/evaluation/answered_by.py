"""The model that answered in a table, found by the name that every row has."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lib.dataset.manifest import read_split, read_split_digest
from lib.evaluation.results import ScoredModel
from lib.network import versions
from lib.network.artifact import ModelManifest
from lib.prediction.calibration import Calibration
from lib.run.errors import JobError


@dataclass(frozen=True)
class AnsweringModel:
    """Name of a model, and what model.json says of it where its folder was found."""

    name: str
    manifest: ModelManifest | None = None

    @staticmethod
    def of_folder(folder: Path) -> "AnsweringModel":
        """The model of a folder.

        Raises:
            JobError: as `ModelManifest.read`.
        """
        manifest = ModelManifest.read(folder)
        return AnsweringModel(manifest.name, manifest)

    @staticmethod
    def find(name: str, folder: Path | None, runs_dir: Path) -> "AnsweringModel":
        """The model of that name in `folder`, else in the folder of runs; else its name alone."""
        kept = runs_dir / versions.FOLDER / Path(name).name  # a table may hold any text
        for place in [folder] if folder else [runs_dir / "model", kept]:
            with suppress(JobError):
                found = AnsweringModel.of_folder(place)
                if found.name == name:
                    return found
        return AnsweringModel(name)

    @property
    def calibration(self) -> Calibration | None:
        """Its stored thresholds; None where they are not known."""
        return Calibration.read(self.manifest.calibration) if self.manifest else None

    def learnt(self, data_dir: Path) -> frozenset[str]:
        """SHA-256 of its training and validation films, where `data_dir` holds its split."""
        with suppress(JobError):
            if self.manifest and read_split_digest(data_dir) == self.manifest.split_sha256:
                rows = read_split(data_dir)
                return frozenset(row.sha256 for row in rows if row.split in ("train", "val"))
        return frozenset()

    @property
    def identity(self) -> ScoredModel:
        """The model in metrics.json; what is not known is empty."""
        if self.manifest is None:
            return ScoredModel(self.name, "", "", "", "")
        manifest = self.manifest
        return ScoredModel(
            self.name, manifest.phase, "", manifest.weights_sha256, manifest.split_sha256
        )
