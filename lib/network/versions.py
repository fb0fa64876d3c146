"""The versions of the model that were promoted: RUNS_DIR/models, and which of them answers."""

import json
from dataclasses import dataclass
from pathlib import Path

from lib.run.errors import JobError
from lib.storage import atomic

FOLDER = "models"  # below RUNS_DIR
POINTER = "promoted.json"


def answering_model(runs_dir: Path) -> Path:
    """The folder of the model that answers: the promoted one, else the trained one, runs/model.

    Raises:
        JobError: as `Versions.read`.
    """
    versions = Versions.read(runs_dir)
    return versions.folder_of(versions.current) if versions.current else runs_dir / "model"


@dataclass(frozen=True)
class Versions:
    """The promoted versions by name (`ModelManifest.name`), the oldest first; the last answers.

    A version is a folder RUNS_DIR/models/<name> that is never changed. promoted.json beside them
    has the order; it is written last, so that at any time a whole version answers.
    """

    folder: Path
    promoted: tuple[str, ...] = ()

    @staticmethod
    def read(runs_dir: Path) -> "Versions":
        """The versions of a folder of runs; none if nothing was promoted.

        Raises:
            JobError: promoted.json is damaged.
        """
        folder = runs_dir / FOLDER
        try:
            content = json.loads((folder / POINTER).read_text())
            return Versions(folder, tuple(Path(name).name for name in content["promoted"]))
        except FileNotFoundError:
            return Versions(folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise JobError(
                f"{folder / POINTER} cannot be read: {error}. Restore it from a backup, or delete "
                "it and promote a model again (make promote)."
            ) from error

    @property
    def current(self) -> str:
        """The version that answers; empty: nothing was promoted."""
        return self.promoted[-1] if self.promoted else ""

    def folder_of(self, name: str) -> Path:
        """Where a version lies."""
        return self.folder / name

    def promote(self, model: Path) -> "Versions":
        """Keep the folder `model` as a version that answers from now on.

        Raises:
            JobError: no whole model, or another one is kept under its name.
        """
        from lib.network.artifact import MANIFEST_FILE, ModelManifest  # load the inference engine

        manifest = ModelManifest.read(model)
        kept = self.folder_of(manifest.name)
        if not kept.exists():
            atomic.make_folder(self.folder)
            atomic.copy_folder(model, kept)
        elif (kept / MANIFEST_FILE).read_bytes() != (model / MANIFEST_FILE).read_bytes():
            raise JobError(
                f"{kept} holds the same weights with other thresholds or graphs, and tables name "
                "both alike. Give that folder another name to promote this model."
            )
        ModelManifest.read(kept)
        if self.current == manifest.name:
            return self
        return self._answer((*self.promoted, manifest.name))

    def rollback(self) -> "Versions":
        """Let the version before the current one answer; the current one is kept.

        Raises:
            JobError: there is none, or its folder is not whole.
        """
        from lib.network.artifact import ModelManifest  # loads the inference engine

        if len(self.promoted) < 2:
            raise JobError(
                f"no version was promoted before {self.current or 'this model'}: there is nothing "
                "to go back to."
            )
        ModelManifest.read(self.folder_of(self.promoted[-2]))
        return self._answer(self.promoted[:-1])

    def _answer(self, promoted: tuple[str, ...]) -> "Versions":
        atomic.write_json(self.folder / POINTER, {"promoted": promoted})
        return Versions(self.folder, promoted)
