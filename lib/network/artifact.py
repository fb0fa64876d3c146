"""The model folder: what model.json says of the compiled graphs, checked against the files beside
it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lib.network.graph import native_precision
from lib.run.errors import JobError
from lib.storage.atomic import recover_folder, sha256_of, write_json

FORMAT = 2
LARGEST_SHIFT = (
    0.005  # mean |Δp| of bfloat16 against fp32 on validation films, up to which it is used unasked
)


@dataclass(frozen=True)
class Agreement:
    """How close bfloat16 came to fp32 on validation films, measured where the model was made."""

    films: int
    same_prediction: float  # share of films
    mean_shift: float  # mean |Δp| over films and classes
    largest_shift: float


@dataclass(frozen=True)
class ModelManifest:
    """model.json: what the graphs of a model folder are and where they come from."""

    backbone: str
    classes: tuple[str, ...]
    input_side: int  # pixels
    phase: str
    epoch: int
    weights_sha256: str
    split_sha256: str
    bf16: Agreement | None  # None: made on a CPU without bfloat16
    files: dict[str, str]  # file name → sha256
    made_with: dict[str, str]  # package → version
    calibration: dict[str, Any] | None = (
        None  # lib/prediction/calibration.py; None: made without validation films
    )

    @property
    def name(self) -> str:
        """Backbone and the first digits of the weights' digest: what the `model` column of a CSV
        says.
        """
        return f"{self.backbone}@{self.weights_sha256[:12]}"

    def write(self, folder: Path) -> None:
        """Write model.json, with a digest of itself."""
        content = {"format": FORMAT, **asdict(self)}
        write_json(folder / "model.json", {**content, "sha256": _digest_of(content)})

    @staticmethod
    def read(folder: Path) -> "ModelManifest":
        """Read model.json and check it and the files beside it against their digests.

        Raises:
            JobError: no model, an unknown format, or files that changed.
        """
        recover_folder(folder)
        remedy = "Train a model first (make all), or name its folder with --model."
        try:
            content = json.loads((folder / "model.json").read_text())
        except FileNotFoundError:
            raise JobError(f"there is no model in {folder}. {remedy}") from None
        except (OSError, ValueError) as error:
            raise JobError(f"{folder / 'model.json'} cannot be read: {error}. {remedy}") from error
        if content.get("format") != FORMAT:
            raise JobError(f"{folder} is not a model of this version of the program. {remedy}")
        if content.pop("sha256", None) not in (
            None,
            _digest_of(content),
        ):  # None: made before there was one
            raise JobError(
                f"{folder / 'model.json'} was changed: copy the whole folder again, or train again."
            )
        del content["format"]
        agreement = content.pop("bf16")
        card = ModelManifest(
            **{**content, "classes": tuple(content["classes"])},
            bf16=Agreement(**agreement) if agreement else None,
        )
        for name, digest in card.files.items():
            if not (folder / name).is_file() or sha256_of(folder / name) != digest:
                raise JobError(
                    f"{folder / name} is missing or damaged: copy the whole folder again, or train again."
                )
        return card

    @property
    def bf16_agrees(self) -> bool:
        """Whether bfloat16 is known to give nearly the same answers."""
        return self.bf16 is not None and self.bf16.mean_shift <= LARGEST_SHIFT

    def precision(self, wanted: str) -> str:
        """ "auto" is bf16 where this CPU has it and the model is known to bear it, else fp32."""
        if wanted != "auto":
            return wanted
        return native_precision() if self.bf16_agrees else "fp32"


def _digest_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
