"""The result of an evaluation as data. metrics.json is its serialised form.

The text beside a field is its description in docs/metrics.schema.json (lib/evaluation/schema.py).
Adding a field with a default keeps `VERSION`; changing or removing one raises it.
"""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from lib.network.choices import Phase

VERSION = 1

Interval = tuple[float, float]
Level = Literal["chance", "undecided", "shortcut", "confounded", "clear"]


@dataclass(frozen=True)
class Estimate:
    """A score, or a difference of scores, with its uncertainty."""

    value: Annotated[float | None, "null: not defined on these films"]
    interval: Annotated[Interval | None, "95 % interval; null: too few patients or films"]


@dataclass(frozen=True)
class ClassScores:
    """One class against all others, at the predicted class."""

    films: Annotated[int, "films with this label and a prediction"]
    precision: Estimate
    recall: Annotated[Estimate, "sensitivity"]
    specificity: Estimate
    f1: Estimate
    auroc: Annotated[Estimate, "area under the one-vs-rest ROC curve"]


@dataclass(frozen=True)
class Scores:
    """The scores of a set of predictions."""

    accuracy: Estimate
    macro_f1: Annotated[Estimate, "mean F1 of the classes that have one"]
    brier: Annotated[Estimate, "mean squared distance to the truth, 0 to 2"]
    per_class: dict[str, ClassScores]


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions whose confidence lies in one bin."""

    films: int
    confidence: Annotated[float, "mean"]
    accuracy: float


@dataclass(frozen=True)
class Reliability:
    """How well confidence agrees with accuracy."""

    ece: Annotated[float, "expected calibration error"]
    brier: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True)
class CalibrationScores:
    """Reliability before and after the temperature."""

    temperature: float
    before: Reliability
    after: Reliability


@dataclass(frozen=True)
class ConformalScores:
    """How conformal sets do on the films."""

    stated_coverage: Annotated[float, "share that validation films were fitted to"]
    coverage: Annotated[float, "share of films whose set holds the true class"]
    one_class: Annotated[float, "share of sets with exactly one class"]


@dataclass(frozen=True)
class PredictiveValues:
    """Predictive values at one prevalence, by Bayes' rule."""

    prevalence: float
    ppv: Annotated[Estimate, "positive predictive value"]
    npv: Annotated[Estimate, "negative predictive value"]


@dataclass(frozen=True)
class TargetCheck:
    """Whether the operating point reaches a published minimum."""

    name: str
    sensitivity: float
    specificity: float
    result: Annotated[Literal["met", "missed", "undecided"], "judged by the ends of both intervals"]


@dataclass(frozen=True)
class OperatingPoint:
    """What it does to call every film positive from a threshold on."""

    positive: Annotated[str, "class of interest, or abnormal: every class but NORMAL"]
    threshold: Annotated[float, "lowest probability that is called positive"]
    sensitivity: Estimate
    specificity: Estimate
    cases: Annotated[int, "films of the class"]
    missed: int
    false_alarms: int
    predictive_values: tuple[PredictiveValues, ...]
    target: Annotated[TargetCheck | None, "null: no published minimum for this class"]


@dataclass(frozen=True)
class SourceScores:
    """Scores of the films of one source."""

    source: str
    films: Annotated[dict[str, int], "by class"]
    accuracy: Estimate
    auroc: Annotated[dict[str, Estimate], "by class; only classes with enough films on both sides"]
    baselines: Annotated[dict[str, float], "accuracy of each baseline on these films"]


@dataclass(frozen=True)
class BaselineScores:
    """A baseline that sees no lung, on the same films."""

    what: Annotated[str, "what it sees"]
    macro_f1: float
    margin: Annotated[Estimate, "macro-F1 of the model minus that of the baseline, paired"]
    no_lungs_found: Annotated[
        int | None,
        "films without plausible lungs, where a central rectangle is black; null: hides no lungs",
    ] = None


@dataclass(frozen=True)
class SourceProbe:
    """How well the network's features tell the source of the films of one class."""

    label: Annotated[str, "class"]
    films: Annotated[dict[str, int], "by source"]
    accuracy: Annotated[Estimate, "of a logistic regression, cross-validated by patient"]
    chance: Annotated[float, "share of the most frequent source"]
    shuffled: Annotated[float, "control: accuracy for sources that were shuffled within the class"]


@dataclass(frozen=True)
class Verdict:
    """What the macro-F1 is worth beside the baselines."""

    level: Level
    words: str
    best_baseline: str
    share_without_lungs: Annotated[
        float, "part of the way from chance to the model that the best baseline gets"
    ]


@dataclass(frozen=True)
class Review:
    """How many films ask for a human look."""

    share: float
    accuracy_of_the_rest: Annotated[float | None, "null: no other film has a prediction"]


@dataclass(frozen=True)
class Comparison:
    """This evaluation minus an earlier one, film by film."""

    films: Annotated[int, "films that both could read"]
    differences: Scores


@dataclass(frozen=True)
class HomeScores:
    """Scores of the same model on the test films of its own split."""

    films: int
    accuracy: Estimate
    macro_f1: Estimate
    recall: Annotated[dict[str, Estimate], "by class"]
    auroc: Annotated[dict[str, Estimate], "by class"]
    ece: Annotated[float | None, "expected calibration error; null: not calibrated"]
    sensitivity: Annotated[Estimate | None, "at the stored threshold of the class of interest"]
    specificity: Annotated[Estimate | None, "at the stored threshold of the class of interest"]
    screening_sensitivity: Annotated[Estimate | None, "of 1 - P(NORMAL) at its stored threshold"]
    screening_specificity: Annotated[Estimate | None, "of 1 - P(NORMAL) at its stored threshold"]
    needs_review: Annotated[float, "share of the films"]
    out_of_distribution: Annotated[
        float | None, "share of films unlike the training films; null: not known"
    ]


@dataclass(frozen=True)
class Rates:
    """Sensitivity and specificity at a stored threshold."""

    positive: Annotated[str, "class, or abnormal: every class but NORMAL"]
    sensitivity: Estimate
    specificity: Estimate


@dataclass(frozen=True)
class SiteScores:
    """What a calibration is worth at a site."""

    ece: Annotated[float, "expected calibration error"]
    brier: float
    coverage: Annotated[float, "share of films whose conformal set holds the true class"]
    rates: Annotated[tuple[Rates, ...], "of the class of interest and of 1 - P(NORMAL)"]
    needs_review: Annotated[float, "share of the films"]
    out_of_distribution: Annotated[float, "share of the films"]


@dataclass(frozen=True)
class Recalibration:
    """The model set up for a site: calibrated on half of its films, scored on the other half, and
    the other way round, so that every film is scored once.
    """

    model: Annotated[str, "name of the new model in every table"]
    films: Annotated[dict[str, int], "by class; all of them fitted the new model"]
    temperature: float
    offsets: Annotated[dict[str, float], "of each class, added to its scaled logit"]
    thresholds: Annotated[dict[str, float], "stored in the new model, by class or abnormal"]
    prevalences: Annotated[
        dict[str, float],
        "stated; ece, brier and coverage are of films weighted to them; empty: as in the films",
    ]
    before: Annotated[SiteScores, "with the calibration of home"]
    after: Annotated[SiteScores, "with the calibration of the other half"]


@dataclass(frozen=True)
class External:
    """What only an evaluation of films from elsewhere has."""

    name: Annotated[str, "of the folder"]
    left_out: Annotated[dict[str, int], "files that are not scored, by reason; see excluded.csv"]
    no_copies_because: Annotated[
        str, "why copies of the model's own films were not looked for; empty: they were"
    ]
    namesakes: Annotated[int, "films whose patient has the name of a patient at home"]
    missing_classes: Annotated[tuple[str, ...], "classes of the model without a film"]
    out_of_distribution: Annotated[
        float | None, "share of films unlike the training films; null: not calibrated"
    ]
    fitted: Annotated[
        OperatingPoint | None,
        "at the threshold that the stored sensitivity would take here, chosen on these very films",
    ]
    fitted_screening: Annotated[OperatingPoint | None, "the same for 1 - P(NORMAL)"]
    home: Annotated[HomeScores | None, "null: no evaluation of this model at home was found"]
    recalibration: Annotated[
        Recalibration | None, "null: the model was not set up for this place"
    ] = None


@dataclass(frozen=True)
class LabelledBatch:
    """What only an evaluation of a table of predictions with a reader's labels has."""

    table: Annotated[str, "name of the file"]
    chosen: Annotated[
        Literal["all", "random sample", "review only", "some"],
        "which films of the table have a label; the scores are of the random sample alone, if all "
        "of it has one",
    ]
    generalises: Annotated[bool, "whether the scores are an estimate of the whole table"]
    words: str
    readable: Annotated[int, "films of the table with a prediction"]
    answered: Annotated[int, "films of the table that the reader has answered, in any way"]
    not_a_chest_film: Annotated[int, "answered films that are none"]
    cannot_tell: Annotated[int, "answered films of which the reader cannot tell the class"]
    unknown_class: Annotated[int, "answered films of a class that the model does not know"]
    not_in_table: Annotated[int, "labels without a film in the table"]
    learnt: Annotated[
        int, "scored films that the model was trained or selected on, as far as digests tell"
    ] = 0


@dataclass(frozen=True)
class LeftOutBaseline:
    """A baseline that learned from the same films as the fold."""

    mean_auroc: Annotated[float, "mean over the classes"]
    auroc: Annotated[dict[str, float], "by class"]
    margin: Annotated[Estimate, "mean AUROC of the fold's model minus that of the baseline, paired"]


@dataclass(frozen=True)
class LeftOutSource:
    """The training repeated without one source, scored inside that source."""

    source: str
    films: Annotated[dict[str, int], "films that are scored, by class: those other sources hold"]
    training_films: Annotated[int, "of the other sources"]
    phase: Annotated[Phase, "a: the head was trained; b: the last block as well"]
    mean_auroc: Annotated[Estimate, "mean over the classes"]
    auroc: Annotated[
        dict[str, Estimate],
        "by class, each against the others of the source; no other class counts",
    ]
    baselines: Annotated[dict[str, LeftOutBaseline], "empty: none was run"]
    home_films: Annotated[int, "test films of the source that both models score"]
    home: Annotated[
        dict[str, Estimate], "AUROC of the scored model on these; empty: too few test films"
    ]
    change: Annotated[
        dict[str, Estimate], "AUROC without the source minus with it on these, paired"
    ]


@dataclass(frozen=True)
class LeaveSourceOut:
    """What the training gives inside sources that it does not see."""

    sources: tuple[LeftOutSource, ...]
    none_because: Annotated[str, "why no source was left out; empty: some were"] = ""


@dataclass(frozen=True)
class Spread:
    """A score over several seeds."""

    mean: float
    deviation: Annotated[float | None, "standard deviation; null: one seed"]
    lowest: float
    highest: float


@dataclass(frozen=True)
class Repeats:
    """Scores of heads that were trained on other splits of the same films, one per seed."""

    seeds: tuple[int, ...]
    training_films: Annotated[int, "mean over the seeds"]
    test_films: Annotated[int, "mean over the seeds"]
    accuracy: Spread
    macro_f1: Spread
    auroc: Annotated[dict[str, Spread], "by class"]


@dataclass(frozen=True)
class ScoredModel:
    """Which model was scored, and how it was computed."""

    name: str
    phase: str
    precision: str
    weights_sha256: str
    split_sha256: str
    operating_point: Annotated[
        str, "class, or abnormal, predicted from its stored threshold on; empty: none"
    ] = ""


@dataclass(frozen=True)
class Evaluation:
    """All scores of a model on a set of labelled films."""

    version: Annotated[int, "of this format"]
    model: ScoredModel
    classes: tuple[str, ...]
    films: Annotated[int, "films with a prediction: all scores are of these"]
    unreadable: Annotated[int, "films without a prediction"]
    groups: Annotated[int, "independent groups (patients) that the intervals are drawn from"]
    confusion_matrix: Annotated[tuple[tuple[int, ...], ...], "rows: label, columns: prediction"]
    scores: Scores
    sources: tuple[SourceScores, ...]
    review: Review
    calibration: Annotated[CalibrationScores | None, "null: the model is not calibrated"]
    conformal: Annotated[ConformalScores | None, "null: the model is not calibrated"]
    operating_point: Annotated[
        OperatingPoint | None, "null: no stored threshold, or no film of the class or of others"
    ]
    baselines: Annotated[dict[str, BaselineScores], "empty: none was run"]
    verdict: Annotated[Verdict | None, "null: no baseline was run"]
    comparison: Annotated[Comparison | None, "null: no earlier evaluation was named"]
    screening: Annotated[
        OperatingPoint | None, "of 1 - P(NORMAL), anything abnormal; null: as operating_point"
    ] = None
    external: Annotated[External | None, "null: the test films of the model's own split"] = None
    source_probes: Annotated[
        tuple[SourceProbe, ...], "empty: none was run, or no class has films of two sources"
    ] = ()
    labelled: Annotated[LabelledBatch | None, "null: not a table with a reader's labels"] = None
    leave_source_out: Annotated[LeaveSourceOut | None, "null: not asked for"] = None
    repeats: Annotated[Repeats | None, "null: not asked for"] = None

    @property
    def classes_with_films(self) -> int:
        """How many classes have a film: guessing among them is chance."""
        return sum(of_class.films > 0 for of_class in self.scores.per_class.values())

    def to_json(self) -> dict[str, Any]:
        """The content of metrics.json."""
        return asdict(self)
