"""A trained checkpoint applied to files: probabilities in input order, one result per file whatever the file is."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lib import backbones
from lib.checkpoints import Checkpoint
from lib.errors import UnreadableFilmError
from lib.parallel import map_ordered
from lib.radiograph import read_grey
from lib.training import to_input

LOW_CONTRAST = 6.0  # standard deviation of grey levels below which a film shows nothing


@dataclass(frozen=True)
class Prediction:
    """What the model says of one file, or why it could not be asked."""

    path: Path
    probabilities: np.ndarray | None  # (classes,) float64, sums to 1
    contrast: float = 0.0  # standard deviation of the grey levels, 0..127
    error: str = ""


class Predictor:
    """A network in evaluation mode, ready for batches."""

    def __init__(self, checkpoint: Checkpoint, threads: int, batch_size: int = 32) -> None:
        self.checkpoint, self.threads, self.batch_size = checkpoint, threads, batch_size
        network = backbones.build(checkpoint.row, len(checkpoint.classes))
        network.load_state_dict(checkpoint.state)
        self.network = network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def name(self) -> str:
        """Backbone and the first digits of the weights' digest: what the `model` column of a CSV says."""
        return f"{self.checkpoint.backbone}@{self.checkpoint.digest[:12]}"

    def predict(self, paths: Iterable[Path]) -> Iterator[Prediction]:
        """One `Prediction` per path, in order. Files are read on threads, at most two batches ahead."""
        batch: list[tuple[Path, np.ndarray | str]] = []
        for item in map_ordered(self._read, paths, self.threads, lookahead=2 * self.batch_size):
            batch.append(item)
            if len(batch) == self.batch_size:
                yield from self._predict_batch(batch)
                batch = []
        if batch:
            yield from self._predict_batch(batch)

    def _read(self, path: Path) -> tuple[Path, np.ndarray | str]:
        try:
            return path, read_grey(path, self.checkpoint.row.input_side)
        except UnreadableFilmError as error:
            return path, str(error)

    @torch.inference_mode()
    def _predict_batch(self, batch: list[tuple[Path, np.ndarray | str]]) -> Iterator[Prediction]:
        greys = [film for _, film in batch if not isinstance(film, str)]
        answers: Iterator[np.ndarray] = iter(())
        if greys:
            logits = self.network(to_input(greys, self.checkpoint.row))
            answers = iter(torch.softmax(logits.double(), dim=1).numpy())
        for path, film in batch:
            if isinstance(film, str):
                yield Prediction(path, None, error=film)
            else:
                yield Prediction(path, next(answers), contrast=float(film.std()))
