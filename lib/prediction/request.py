"""The request of one predict_batch run, and every combination that is refused before any work."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lib.images import buckets, dicom
from lib.images.decode import ANY_SIZE
from lib.images.files import FILE_SECONDS
from lib.network.choices import PrecisionChoice
from lib.run.errors import UsageError
from lib.storage import atomic, tables
from lib.workers.cores import usable_cores
from lib.workers.ray import check_address


@dataclass(frozen=True)
class OperatingRule:
    """Which class is predicted from a threshold on, not only when it is the likeliest."""

    positive: str = ""  # class, or ABNORMAL; empty: none
    threshold: float | None = None  # probability; None: the model's stored threshold

    @staticmethod
    def of(operating_point: str, threshold: str) -> "OperatingRule":
        """From the flags --operating_point CLASS and --threshold CLASS=X.

        Raises:
            UsageError: --threshold of another form, or both flags.
        """
        if not threshold:
            return OperatingRule(operating_point)
        if operating_point:
            raise UsageError(
                f"--threshold {threshold} and --operating_point {operating_point} exclude each "
                "other: the one gives a threshold, the other takes the stored one."
            )
        positive, _, value = threshold.rpartition("=")
        try:
            probability = float(value)
        except ValueError:
            probability = -1.0
        if not positive or not 0 <= probability <= 1:
            raise UsageError(
                f"--threshold {threshold} is not of the form CLASS=X with a probability X from 0 "
                "to 1, such as TUBERCULOSIS=0.31."
            )
        return OperatingRule(positive, probability)

    def __str__(self) -> str:
        return self.positive if self.threshold is None else f"{self.positive}={self.threshold}"


@dataclass(frozen=True)
class PredictOptions:
    """What decides a row besides the film and the model."""

    precision: PrecisionChoice = "auto"
    rule: OperatingRule = field(default_factory=OperatingRule)
    review_below: float = 0.0  # probability of the predicted class
    maps: bool = False  # draw a map of the evidence for each film
    tags: tuple[str, ...] = ()  # DICOM keywords that become columns
    max_pixels: int = ANY_SIZE
    seconds: float = FILE_SECONDS  # to read one film
    trust_headers: bool = False  # read DICOM files that do not say that they are chest films
    sample: int = 0  # films that are drawn for labelling; above 0 they are marked in a column
    seed: int = 0  # of the draw


@dataclass(frozen=True)
class Request:
    """One run: films, model, table, and the files that are written beside the table."""

    input: str
    output: Path
    model: Path  # folder
    options: PredictOptions
    backbone: str | None = None  # refuse a model of another backbone
    rows_per_file: int = 0
    resume: bool = True
    follow_links: bool = False  # enter linked folders, read links that lead out of the input
    incremental: Path | None = None  # database of the contents that earlier runs have classified
    explain: Path | None = None  # folder of the maps
    report: Path | None = None
    cluster: str = ""
    cpus: int = 0
    workers: int = 0

    def checked(self) -> "Request":
        """This request.

        Raises:
            UsageError: an input, output or cluster address that none can be; an unknown DICOM
                keyword; a file to write that is, or lies in, the table; maps among the films.
            JobError: a package for the input or the output is missing.
        """
        buckets.check(self.input)
        tables.check(self.output, self.rows_per_file)
        dicom.check_keywords(self.options.tags)
        check_address(self.cluster)
        if self.report and self.report.suffix.lower() != ".html":
            raise UsageError(f"--report {self.report}: give a name that ends in .html.")
        if self.explain and Path(self.input).absolute().is_relative_to(self.explain.absolute()):
            raise UsageError(
                f"--explain {self.explain} holds the films: a map could replace one of them. Give "
                "another folder."
            )
        beside = {"report": self.report, "explain": self.explain, "incremental": self.incremental}
        for flag, path in beside.items():
            if path and path.absolute().is_relative_to(self.output.absolute()):
                raise UsageError(
                    f"--{flag} {path} is the table itself or within it. Give another name."
                )
        return self

    @property
    def written(self) -> list[Path]:
        """Files and folders that the run writes; they are no films."""
        paths = (self.output, self.explain, self.report, self.incremental)
        return [path for path in paths if path]

    @property
    def cores(self) -> int:
        """Cores for inference on this machine."""
        return usable_cores(self.cpus)

    @property
    def readers(self) -> int:
        """Processes that decode films on this machine."""
        return self.workers or self.cores

    @contextmanager
    def locks(self) -> Iterator[None]:
        """Hold the locks of the files that the run changes.

        Raises:
            LockedError: another run holds one of them.
        """
        with ExitStack() as held:
            held.enter_context(atomic.lock_of(self.output))
            if self.incremental:
                held.enter_context(atomic.lock_of(self.incremental))
            yield
