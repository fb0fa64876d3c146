"""The model folder: what model.json says about the compiled graphs, and the check of the files."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lib.network.choices import Crop, Phase, Precision, PrecisionChoice
from lib.network.graph import native_precision
from lib.network.instructions import has_vnni
from lib.run.errors import JobError
from lib.storage.atomic import recover_folder, sha256_of, write_json

FORMAT = 2  # raised when older programs would misread the folder; an added field does not raise it
LARGEST_SHIFT = 0.005  # mean |Δp| of bfloat16 or int8 up to which "auto" uses it
LEAST_SAME = 0.995  # of the predicted classes of fp32 that int8 must keep
LEAST_SPEED = 1.5  # times fp32 that int8 must reach: less is not worth other answers
MANIFEST_FILE = "model.json"
REMEDY = "Train a model first (make all), or name its folder with --model."


@dataclass(frozen=True)
class Agreement:
    """How closely a precision agrees with fp32 on validation films, measured by the train job."""

    films: int
    same_prediction: float  # proportion of films
    mean_shift: float  # mean |Δp| over films and classes
    largest_shift: float


@dataclass(frozen=True)
class Int8(Agreement):
    """How closely int8 agrees with fp32, and what it gains."""

    speed: float  # times fp32, on one thread of the CPU that trained

    @property
    def is_usable(self) -> bool:
        """Whether agreement and gain are good enough to answer with."""
        return (
            self.same_prediction >= LEAST_SAME
            and self.mean_shift <= LARGEST_SHIFT
            and self.speed >= LEAST_SPEED
        )

    def __str__(self) -> str:
        return (
            f"int8 predicts the same class as fp32 for {self.same_prediction:.1%} of {self.films} "
            f"validation films; probabilities differ by {self.mean_shift:.4f} on average; "
            f"{self.speed:.1f} times as fast"
        )


@dataclass(frozen=True)
class ModelManifest:
    """The content of model.json: what the graphs of a model folder are and where they come from.

    A new field needs a default: folders written before it are then still read. The default must
    describe those folders.
    """

    backbone: str
    classes: tuple[str, ...]
    input_side: int  # pixels
    phase: Phase
    epoch: int
    weights_sha256: str
    split_sha256: str
    bf16: Agreement | None  # None: made on a CPU without bfloat16
    files: dict[str, str]  # file name → sha256
    made_with: dict[str, str]  # package → version
    calibration: dict[str, Any] | None = None  # lib/prediction/calibration.py; None: no films
    crop: Crop = "none"  # lungs: the folder holds the segmenter, lungs.xml, .bin and .json
    even_exposure: bool = False  # crops get the same mean and deviation of grey levels
    film_side: int = 0  # pixels that films are brought to before the crop; 0: see `decoded_side`
    int8: Int8 | None = None  # None: made without VNNI or films, or by phase A
    site: str = ""  # place that the calibration was fitted at; empty: validation films at home

    @property
    def name(self) -> str:
        """The `model` column of a CSV: backbone and first digits of the weights' digest.

        For a model that was set up for a site, also the site and digits of the calibration's
        digest.
        """
        name = f"{self.backbone}@{self.weights_sha256[:12]}"
        return f"{name}+{self.site}@{_digest_of(self.calibration or {})[:6]}" if self.site else name

    @property
    def decoded_side(self) -> int:
        """Pixels per side that a film is decoded to. Models with a crop that do not say it were
        trained on films of twice the input's side.
        """
        return self.film_side or self.input_side * (2 if self.crop == "lungs" else 1)

    def write(self, folder: Path) -> None:
        """Write model.json, with a digest of its own content."""
        content = {"format": FORMAT, **asdict(self)}
        # without them earlier versions read the folder as well
        for field in ("crop", "even_exposure", "film_side", "int8", "site"):
            if content[field] == getattr(ModelManifest, field):
                del content[field]
        write_json(folder / MANIFEST_FILE, {**content, "sha256": _digest_of(content)})

    @staticmethod
    def read(folder: Path) -> "ModelManifest":
        """Read model.json and check it and the files beside it against their digests.

        Raises:
            JobError: no model, one of another version of the program, or changed files.
        """
        recover_folder(folder)
        manifest = _read_manifest(folder)
        for name, digest in manifest.files.items():
            if not (folder / name).is_file() or sha256_of(folder / name) != digest:
                raise JobError(
                    f"{folder / name} is missing or damaged: copy the whole folder again, or train "
                    "again."
                )
        return manifest

    def require_in(self, folder: Path) -> None:
        """Refuse a folder whose model was replaced since this manifest was read from it.

        Raises:
            JobError: model.json is another one now, or missing while a training replaces it.
        """
        try:
            is_same = _read_manifest(folder) == self
        except JobError:
            is_same = False
        if not is_same:
            raise JobError(
                f"the model in {folder} was replaced while this run began. Run it again; finished "
                "rows are kept."
            )

    @property
    def bf16_agrees(self) -> bool:
        """Whether bfloat16 was measured to give nearly the same probabilities as fp32."""
        return self.bf16 is not None and self.bf16.mean_shift <= LARGEST_SHIFT

    def precision(self, choice: PrecisionChoice) -> Precision:
        """The precision in use.

        "auto" is bf16 where it agrees and this CPU has it; else int8 where it was measured to be
        good enough and this CPU has VNNI; else fp32. The measurements are those of the training, so
        that the same machine always gives the same answers.

        Raises:
            JobError: int8, and the model has none, or this CPU would compute other answers.
        """
        if choice == "int8":
            self._require_int8()
        if choice != "auto":
            return choice
        if self.bf16_agrees and native_precision() == "bf16":
            return "bf16"
        return "int8" if self.int8 and self.int8.is_usable and has_vnni() else "fp32"

    def _require_int8(self) -> None:
        if not (self.int8 and self.int8.is_usable):
            why = f": {self.int8}" if self.int8 else ""
            raise JobError(f"this model cannot be used in int8{why}. Give --precision auto.")
        if not has_vnni():
            raise JobError(
                "this CPU has no instructions for int8 (VNNI), or they are switched off "
                "(ONEDNN_MAX_CPU_ISA). Give --precision auto."
            )


def _read_manifest(folder: Path) -> ModelManifest:
    """model.json, without a check of the files beside it."""
    content = _read_content(folder / MANIFEST_FILE)
    _require_known_fields(folder, content)
    agreement, int8 = content.pop("bf16"), content.pop("int8", None)
    return ModelManifest(
        **{**content, "classes": tuple(content["classes"])},
        bf16=Agreement(**agreement) if agreement else None,
        int8=Int8(**int8) if int8 else None,
    )


def _read_content(path: Path) -> dict[str, Any]:
    """The fields of model.json, after the checks of its format and its digest."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise JobError(f"there is no model in {path.parent}. {REMEDY}") from None
    except (OSError, ValueError) as error:
        raise JobError(f"{path} cannot be read: {error}. {REMEDY}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise JobError(f"{path.parent} is not a model of this version of the program. {REMEDY}")
    digest = content.pop("sha256", None)  # None: written before model.json had a digest
    if digest not in (None, _digest_of(content)):
        raise JobError(f"{path} was changed: copy the whole folder again, or train again.")
    del content["format"]
    return content


def _require_known_fields(folder: Path, content: Mapping[str, Any]) -> None:
    """Refuse fields of a newer program: ignoring them could change predictions."""
    known = {field.name: field.default is MISSING for field in fields(ModelManifest)}
    newer = sorted(set(content) - set(known))
    if newer:
        raise JobError(
            f"{folder} was made by a newer version of the program: its model.json has "
            f"{', '.join(newer)}. Use that version, or train again with this one."
        )
    missing = [name for name, required in known.items() if required and name not in content]
    if missing:
        raise JobError(f"{folder / MANIFEST_FILE} lacks {', '.join(missing)}. {REMEDY}")


def _digest_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
