"""What the evaluate job is asked for, and the folders that follow from it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lib.evaluation.reading import Reading
from lib.network.choices import PrecisionChoice
from lib.run.errors import UsageError

if TYPE_CHECKING:
    from lib.evaluation.elsewhere import FolderElsewhere


@dataclass(frozen=True)
class Request:
    """The flags, and the folders that follow from them."""

    films: str | None  # None: the test films of the split
    labels: Path | None
    reading: Reading  # of films
    model: Path | None
    checkpoint: Path | None
    backbone: str | None
    output: Path | None
    positive: str | None
    operating_point: str
    prevalences: tuple[float, ...]
    compare: Path | None
    baselines: bool
    leave_source_out: bool
    repeats: int  # seeds of split and head; 0: none
    cache_gb: float
    precision: PrecisionChoice
    data_dir: Path
    runs_dir: Path
    seed: int
    cores: int
    readers: int  # processes and threads that decode

    @property
    def folder(self) -> Path:
        """Of the tables, the figures and metrics.json."""
        if self.elsewhere and not self.output:
            return self.runs_dir / "external" / self.elsewhere.name
        return self.output or self.runs_dir / "evaluation"

    @cached_property
    def elsewhere(self) -> "FolderElsewhere | None":
        """The folder that --films names.

        Raises:
            UsageError: a bucket or an archive.
            JobError: no such folder, or a damaged table of labels.
        """
        if self.films is None:
            return None
        from lib.evaluation.elsewhere import FolderElsewhere

        return FolderElsewhere.of(self.films, self.labels, self.reading)

    @property
    def report(self) -> Path:
        """The page to read."""
        return (self.folder if self.films or self.output else self.runs_dir) / "report.html"

    @property
    def model_card(self) -> Path | None:
        """Beside RUNS_DIR's own model, else beside the tables; None for films from elsewhere."""
        if self.films:
            return None
        is_own = self.model is None and self.checkpoint is None and self.output is None
        return (self.runs_dir / "model" if is_own else self.folder) / "MODEL_CARD.md"

    def check(self) -> None:
        """Refuse combinations of flags.

        Raises:
            UsageError: two models, a comparison with the folder that is written, results among the
                films, flags of --films without it, or as `elsewhere`.
            JobError: as `elsewhere`.
        """
        for flag, is_given in (("labels", self.labels), ("group_by", self.reading.is_grouped)):
            if is_given and not self.films:
                raise UsageError(f"--{flag} belongs to --films PATH, which is missing.")
        if self.elsewhere:
            self.elsewhere.require_apart(self.folder, self.runs_dir)
        for flag, again in (("leave_source_out", self.leave_source_out), ("repeats", self.repeats)):
            if again and self.films:
                raise UsageError(
                    f"--{flag} repeats the training on the films of the split; it does not go with "
                    "--films."
                )
        if self.model and self.checkpoint:
            raise UsageError("--model and --checkpoint_path name two models; give one of them.")
        if self.compare and self.compare.resolve() == self.folder.resolve():
            raise UsageError(
                f"--compare {self.compare} is the folder that this evaluation is written to. "
                "Give another folder for the results (--output), or keep a copy of the earlier one."
            )
