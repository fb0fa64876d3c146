"""The pieces of a prediction, each alone, for the comparison with their sum.

python -m tests.benchmarks.ours predict|decode|model --data FOLDER --model DIR --out FILE.json
"""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import fire

from lib.images.decode import read_grey
from lib.prediction.predictor import Predictor
from lib.workers.cores import usable_cores
from lib.workers.threads import map_ordered


def _measure(
    data: str, out: str, model: str, piece: Callable[[Predictor, list[Path]], Iterable[Any]]
) -> None:
    files = sorted(Path(data).rglob("*.*"))
    cores = usable_cores()
    predictor = Predictor(Path(model), "auto", cores, cores)
    began = time.perf_counter()
    films = sum(1 for _ in piece(predictor, files))
    seconds = time.perf_counter() - began
    Path(out).write_text(
        json.dumps({"seconds": seconds, "films": films, "precision": predictor.precision})
    )


def predict(data: str, out: str, model: str) -> None:
    """Files to probabilities, as predict_batch does it."""
    _measure(data, out, model, lambda predictor, files: predictor.predict(files))


def decode(data: str, out: str, model: str) -> None:
    """Files to grey arrays on all cores, no model."""
    _measure(
        data,
        out,
        model,
        lambda predictor, files: map_ordered(
            lambda path: read_grey(path, predictor.manifest.input_side), files, predictor.readers
        ),
    )


def model(data: str, out: str, model: str) -> None:
    """The same grey array through the model on all cores, no files."""

    def piece(predictor: Predictor, files: list[Path]) -> Iterable[Any]:
        grey = read_grey(files[0], predictor.manifest.input_side)
        return predictor.graph.stream((None, grey) for _ in files)

    _measure(data, out, model, piece)


if __name__ == "__main__":
    fire.Fire({"predict": predict, "decode": decode, "model": model})
