"""What the evaluate job is asked for, and the folders that follow from it."""

from collections.abc import Mapping, Sequence
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
    predictions: Path | None  # a table that is scored without model and films
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
    recalibrate: Path | None  # folder of the model that is set up for the site of films
    prevalence: Mapping[str, float]  # there, of some classes
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
        if self.predictions and not self.output:
            return self.runs_dir / "labelled" / self.predictions.stem
        if self.films and not self.output:
            from lib.evaluation.elsewhere import name_of

            return self.runs_dir / "external" / name_of(self.films)
        return self.output or self.runs_dir / "evaluation"

    @cached_property
    def elsewhere(self) -> "FolderElsewhere | None":
        """The folder that --films names; a bucket's folder is copied to DATA_DIR/cache first.

        Raises:
            UsageError: an archive, or a URL that no bucket can have.
            JobError: no such folder, a damaged table of labels, or a bucket that does not answer.
        """
        if self.films is None:
            return None
        from lib.evaluation.elsewhere import FolderElsewhere

        cache = self.data_dir / "cache" / "fetched"
        return FolderElsewhere.of(self.films, self.labels, self.reading, cache)

    @property
    def report(self) -> Path:
        """The page to read."""
        is_beside = self.films or self.predictions or self.output
        return (self.folder if is_beside else self.runs_dir) / "report.html"

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
        if self.predictions:
            self._check_table()
        if self.labels and not (self.films or self.predictions):
            raise UsageError(
                "--labels belongs to --films PATH or --predictions TABLE, which is missing."
            )
        for flag, is_given in (
            ("group_by", self.reading.is_grouped),
            ("recalibrate", self.recalibrate),
        ):
            if is_given and not self.films:
                raise UsageError(f"--{flag} belongs to --films PATH, which is missing.")
        if self.prevalence and not self.recalibrate:
            raise UsageError("--prevalence belongs to --recalibrate DIR, which is missing.")
        if self.recalibrate and self.checkpoint:
            raise UsageError("--recalibrate takes a compiled model (--model), not a checkpoint.")
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
        if self.elsewhere:  # last, because a bucket is fetched for it
            written = (self.folder, self.runs_dir, self.recalibrate)
            self.elsewhere.require_apart(*filter(None, written))

    def _check_table(self) -> None:
        """Refuse flags that a table of predictions cannot have.

        Raises:
            UsageError: no labels, or a flag that asks for a model, for films or for a training.
                Settings that the environment gives to all jobs have no effect.
        """
        if not self.labels:
            raise UsageError(f"--predictions {self.predictions} needs --labels FILE.")
        others = {
            "films": self.films,
            "checkpoint_path": self.checkpoint,
            "operating_point": self.operating_point,
            "backbone": self.backbone,
            "leave_source_out": self.leave_source_out,
            "repeats": self.repeats,
        }
        for flag, value in others.items():
            if value:
                raise UsageError(
                    f"--{flag} does not go with --predictions: a table is scored as it is, without "
                    "films and training."
                )


def read_prevalence(texts: Sequence[str]) -> dict[str, float]:
    """Class → share of the films, from CLASS=X.

    Raises:
        UsageError: another form, a share that is none, or shares that leave nothing for the rest.
    """
    shares: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            shares[name.strip()] = float(number)
        except ValueError:
            raise UsageError(
                f"--prevalence takes CLASS=X,CLASS=X with X between 0 and 1, not {text!r}."
            ) from None
    if not all(0 < share < 1 for share in shares.values()) or sum(shares.values()) > 1 + 1e-9:
        raise UsageError(
            "--prevalence takes shares between 0 and 1 that add up to at most 1, not "
            f"{', '.join(texts)}."
        )
    return shares
