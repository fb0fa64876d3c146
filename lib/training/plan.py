"""The configuration of a training run: phases, defaults, refused combinations. Torch-free."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lib.network.choices import FILM_SIDE, Crop, Phase, Precision, PrecisionChoice, Tap
from lib.run.errors import UsageError
from lib.workers.ray import check_address

Scheduler = Literal["step", "cosine"]


@dataclass(frozen=True)
class PhaseDefaults:
    """The settings that --phase chooses; a flag overrides each of them."""

    epochs: int
    lr: float
    scheduler: Scheduler
    freeze_backbone: bool
    fine_tune_last_block: bool
    resume_from_checkpoint: bool


PHASES: dict[Phase, PhaseDefaults] = {
    "a": PhaseDefaults(
        epochs=5,
        lr=3e-4,
        scheduler="step",
        freeze_backbone=True,
        fine_tune_last_block=False,
        resume_from_checkpoint=False,
    ),
    "b": PhaseDefaults(
        epochs=8,
        lr=5e-4,
        scheduler="cosine",
        freeze_backbone=True,
        fine_tune_last_block=True,
        resume_from_checkpoint=True,
    ),
}


def defaults_of(setting: str) -> str:
    """The default of a setting in each phase, for its help text: "default by phase: a 5, b 8"."""
    values = (f"{phase} {getattr(row, setting)}" for phase, row in PHASES.items())
    return f"default by phase: {', '.join(values)}"


@dataclass(frozen=True)
class Overrides:
    """The flags that replace a default of the phase; None keeps the default."""

    epochs: int | None = None
    lr: float | None = None
    scheduler: Scheduler | None = None
    freeze_backbone: bool | None = None
    fine_tune_last_block: bool | None = None
    resume_from_checkpoint: bool | None = None


@dataclass(frozen=True)
class Acquisition:
    """How a training view differs from its film as films of other detectors and archives do.

    Each change but the gamma is applied to a share of the views. Pixels are those of the view.
    """

    gamma: float = 0.4  # exponent up to e^±0.4: tube voltage and the curves of manufacturers
    softness: float = 1.2  # pixels, sigma of a blur: focal spot, movement, phosphor plates
    sharpness: float = 1.5  # gain of an unsharp mask: the edge enhancement of a manufacturer
    noise: float = 8.0  # grey levels, standard deviation: low dose
    jpeg: tuple[int, int] = (25, 95)  # quality: photographed and exported films
    shrinking: float = 0.4  # smallest proportion of the side to be enlarged again: small copies
    equalised: float = 0.1  # share of views: adaptive processing of a detector


@dataclass(frozen=True)
class Augmentation:
    """Largest deviations of a training view from its film.

    There is no left-right flip: the heart lies on one side, and situs inversus is a finding.
    """

    degrees: float = 7.0
    translation: float = 0.04  # proportion of the side
    scaling: float = 0.08
    brightness: float = 0.15
    contrast: float = 0.15
    acquisition: Acquisition | None = field(default_factory=Acquisition)


@dataclass(frozen=True)
class Plan:
    """The settings of one run. With the films, the starting weights, the number of views and the
    precision in use they decide the final weights.
    """

    phase: Phase
    backbone: str
    epochs: int
    lr: float
    scheduler: Scheduler
    freeze_backbone: bool
    fine_tune_last_block: bool
    resume_from_checkpoint: bool
    batch_size: int
    weight_decay: float
    step_size: int
    gamma: float
    class_weight_power: float
    seed: int
    cached: bool = True  # activations of the frozen layers are kept on disk
    views: int | None = None  # augmented views per film in the cache; None: as many as fit
    precision: PrecisionChoice = "auto"  # of the frozen layers; "fp32" without a cache
    crop: Crop = "none"  # lungs: the network sees the box around the lungs
    even_exposure: bool = False  # of that box: the same mean and deviation of grey levels
    film_side: int = 0  # pixels that films are brought to before the crop; 0: there is no crop
    augmentation: Augmentation = field(default_factory=Augmentation)

    @property
    def tap(self) -> Tap:
        """The output of the frozen backbone that the trained layers start from."""
        return "cut" if self.fine_tune_last_block else "pooled"

    def resolved(self, views: int, precision: Precision) -> dict[str, Any]:
        """The settings by name, with the number of views and the precision in use."""
        settings = asdict(self) | {"views": views, "precision": precision}
        del settings["cached"]
        if self.crop == "none":  # the fingerprints of earlier versions
            del settings["crop"]
        if not self.even_exposure:
            del settings["even_exposure"]
        if not self.film_side:
            del settings["film_side"]
        if self.augmentation.acquisition is None:
            del settings["augmentation"]["acquisition"]
        return settings


def plan_of(
    phase: Phase,
    overrides: Overrides,
    *,
    cache: bool = True,
    views: int | None = None,
    precision: PrecisionChoice = "auto",
    vary_acquisition: bool = True,
    crop: Crop = "none",
    even_exposure: bool = True,
    film_side: int = FILM_SIDE,
    checkpoint_path: Path | None = None,
    cluster: str = "",
    **settings: Any,
) -> Plan:
    """Fill the phase's defaults in and refuse flags that contradict each other.

    `settings` are the other fields of `Plan`. Without a cache PyTorch computes every layer in fp32,
    so that "auto" and "fp32" are the same there.

    Raises:
        UsageError: a flag that would be ignored, or two that exclude each other.
    """
    _require_one_way_to_unfreeze(overrides)
    chosen = asdict(PHASES[phase]) | {
        name: value for name, value in asdict(overrides).items() if value is not None
    }
    if not chosen["freeze_backbone"]:
        chosen["fine_tune_last_block"] = False
    if checkpoint_path is not None and not chosen["resume_from_checkpoint"]:
        raise UsageError(
            "--checkpoint_path is only read with --resume_from_checkpoint True "
            "(the default of Phase B)."
        )
    if precision == "int8":
        raise UsageError(
            "--precision int8 (or PRECISION=int8 in the environment or .env) is for predict_batch "
            "and evaluate. The layers of a training are computed in auto, fp32 or bf16."
        )
    check_address(cluster)
    cached = cache and chosen["freeze_backbone"]
    if not cached:
        _require_no_cache_flags(cluster, views, precision)
        precision = "fp32"
    return Plan(
        phase=phase,
        cached=cached,
        views=views,
        precision=precision,
        augmentation=Augmentation(acquisition=Acquisition() if vary_acquisition else None),
        crop=crop,
        even_exposure=even_exposure and crop == "lungs",
        film_side=film_side if crop == "lungs" else 0,
        **chosen,
        **settings,
    )


def _require_one_way_to_unfreeze(overrides: Overrides) -> None:
    if overrides.freeze_backbone is False and overrides.fine_tune_last_block:
        raise UsageError(
            "--nofreeze_backbone already trains the whole network; --fine_tune_last_block "
            "unfreezes one block of a frozen backbone. Give one of the two."
        )


def _require_no_cache_flags(cluster: str, views: int | None, precision: PrecisionChoice) -> None:
    needs_cache = "it goes with --cache on and --freeze_backbone."
    if cluster:
        raise UsageError(f"--cluster {cluster} fills the cache of frozen layers: {needs_cache}")
    if views is not None:
        raise UsageError(f"--views {views} is the number of cached views per film: {needs_cache}")
    if precision == "bf16":
        raise UsageError(
            "--precision bf16 (or PRECISION=bf16 in the environment or .env) is the precision of "
            f"cached frozen layers: {needs_cache} Without a cache PyTorch trains in fp32: give "
            "--precision fp32 or auto."
        )
