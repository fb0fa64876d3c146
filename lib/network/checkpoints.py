"""Checkpoints: written whole, loaded without executing code, refused if they do not fit."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib.network.backbones import BACKBONES, Backbone
from lib.network.choices import Phase
from lib.run.errors import JobError
from lib.storage.atomic import whole_file

FORMAT = 2  # 1: the last block of an EfficientNet began later


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and what is needed to use it."""

    backbone: str
    classes: tuple[str, ...]
    phase: Phase
    epoch: int
    val_accuracy: float
    val_loss: float
    state: dict[str, Tensor]
    data_digest: str  # sha256 of the split.csv it was trained on
    parent_digest: str = ""  # sha256 of the weights it started from
    segmenter: str = (
        ""  # digest of the lung segmenter that films were cropped with; "": whole films
    )
    even_exposure: bool = False  # every crop has the same mean and deviation
    film_side: int = 0  # pixels that films were brought to before the crop; 0: it is not recorded

    @property
    def digest(self) -> str:
        """SHA-256 over names, types, shapes and bytes of all tensors."""
        return digest_of_weights(self.state)

    @property
    def architecture(self) -> Backbone:
        """The row of the backbone's table."""
        return BACKBONES[self.backbone]


def digest_of_weights(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of all tensors."""
    hashed = hashlib.sha256()
    for name, tensor in state.items():
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hashed.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def save(path: Path, content: Checkpoint) -> None:
    """Write `content`; the same content gives the same bytes."""
    state = {"format": FORMAT, **asdict(content), "classes": list(content.classes)}
    for name in ("segmenter", "even_exposure", "film_side"):  # as earlier versions read it
        if not state[name]:
            del state[name]
    save_state(path, state)


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a dictionary with torch.save; the file is whole or absent."""
    buffer = io.BytesIO()  # torch.save would write the path into the file
    torch.save(state, buffer)
    with whole_file(path) as file:
        file.write(buffer.getbuffer())


def load_state(path: Path) -> dict[str, Any]:
    """Read a dictionary with torch.load, without executing code.

    Raises:
        JobError: the file is damaged, holds no dictionary, or more than tensors and plain values.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise JobError(f"{path} is not a readable checkpoint: {reason}") from error
    if not isinstance(state, dict):
        raise JobError(f"{path} is not a readable checkpoint: it holds a {type(state).__name__}")
    return state


def load(path: Path, remedy: str = "Run the train job first (make train-a).") -> Checkpoint:
    """Read a checkpoint.

    Raises:
        JobError: missing, damaged, of another version of the program, or of an unknown backbone.
    """
    if not path.is_file():
        raise JobError(f"there is no checkpoint {path}. {remedy}")
    content = load_state(path)
    if content.get("backbone") not in BACKBONES:
        raise JobError(f"{path} is not a checkpoint of this program. {remedy}")
    if content.pop("format", None) != FORMAT:
        raise JobError(
            f"{path} is a checkpoint of another version of the program. Train again from Phase A "
            "on (make all TRAIN_A_ARGS=--restart)."
        )
    known = {field.name: field.default is MISSING for field in fields(Checkpoint)}
    if newer := sorted(set(content) - set(known)):
        raise JobError(
            f"{path} was made by a newer version of the program: it has {', '.join(newer)}. Use "
            "that version, or train again with this one."
        )
    if missing := [name for name, required in known.items() if required and name not in content]:
        raise JobError(f"{path} lacks {', '.join(missing)}. {remedy}")
    return Checkpoint(**{**content, "classes": tuple(content["classes"])})


def require_fit(path: Path, checkpoint: Checkpoint, backbone: str, classes: Sequence[str]) -> None:
    """Refuse a checkpoint of another backbone or of other classes.

    Raises:
        JobError: says what it holds and what was expected.
    """
    if checkpoint.backbone != backbone:
        raise JobError(
            f"{path} holds {checkpoint.backbone}, but --backbone is {backbone}. "
            f"Set --backbone {checkpoint.backbone}, or run Phase A with {backbone} first."
        )
    if checkpoint.classes != tuple(classes):
        raise JobError(
            f"{path} was trained on {', '.join(checkpoint.classes)}; the data has "
            f"{', '.join(classes)}. Run Phase A again."
        )
