"""The pieces of a prediction, each alone, for the comparison with their sum.

python -m tests.benchmarks.ours predict|decode|model --data FOLDER --model DIR --out FILE.json
"""

import json
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import fire

from lib.images.decode import read_grey
from lib.prediction.predictor import Predictor
from lib.workers.cores import usable_cores
from lib.workers.threads import map_ordered

Piece = Callable[[list[Path]], Iterable[Any]]


def _measure(
    data: str, out: str, model: str, piece_of: Callable[[Predictor, ExitStack], Piece]
) -> None:
    """Time a piece on all films, after a few that compile graphs and start processes."""
    files = sorted(Path(data).rglob("*.*"))
    cores = usable_cores()
    predictor = Predictor(Path(model), "auto", cores, cores)
    with ExitStack() as open_until_measured:
        piece = piece_of(predictor, open_until_measured)
        deque(piece(files[: 4 * cores]), maxlen=0)
        began = time.perf_counter()
        films = sum(1 for _ in piece(files))
        seconds = time.perf_counter() - began
    Path(out).write_text(
        json.dumps({"seconds": seconds, "films": films, "precision": predictor.precision})
    )


def predict(data: str, out: str, model: str) -> None:
    """Files to probabilities, as predict_batch does it."""

    def piece_of(predictor: Predictor, open_until_measured: ExitStack) -> Piece:
        readers = open_until_measured.enter_context(predictor.readers_of_files())
        return lambda files: predictor.answers(readers, files)

    _measure(data, out, model, piece_of)


def decode(data: str, out: str, model: str) -> None:
    """Files to grey arrays on all cores, no model."""

    def piece_of(predictor: Predictor, _: ExitStack) -> Piece:
        side = predictor.manifest.input_side
        return lambda files: map_ordered(
            lambda path: read_grey(path, side), files, predictor.readers
        )

    _measure(data, out, model, piece_of)


def model(data: str, out: str, model: str) -> None:
    """The same grey array through the model on all cores, no files."""

    def piece_of(predictor: Predictor, _: ExitStack) -> Piece:
        def through_the_model(files: list[Path]) -> Iterable[Any]:
            grey = read_grey(files[0], predictor.manifest.input_side)
            return predictor.graph.stream((None, grey) for _ in files)

        return through_the_model

    _measure(data, out, model, piece_of)


if __name__ == "__main__":
    fire.Fire({"predict": predict, "decode": decode, "model": model})
