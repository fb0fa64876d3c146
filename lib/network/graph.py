"""The compiled model applied to films, in input order and without torch: runs/model/ read, checked, fed through a queue."""

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lib.images.decode import ANY_SIZE
from lib.images.reader import Film, FilmReader, Reader
from lib.network.openvino import core, ov
from lib.run.errors import JobError
from lib.storage.atomic import recover_folder, sha256_of, write_json
from lib.workers.processes import Isolated, start_server

FORMAT = 2
FILMS_PER_REQUEST = 4  # of 1, 2, 4 and 8 the fastest with decoding beside it
LARGEST_SHIFT = (
    0.005  # mean |Δp| of bfloat16 against fp32 on validation films, up to which it is used unasked
)
FILE_SECONDS = 20.0  # to read one file; a damaged one may keep its decoder busy for ever
Key = TypeVar("Key")
Source = TypeVar("Source")
Outputs = tuple[np.ndarray, ...]
_NOTHING = np.empty(0)


def usual_precision() -> str:
    """What this CPU computes fastest in: bf16 where it has instructions for it, else fp32."""
    fastest = core().get_property("CPU", "INFERENCE_PRECISION_HINT")
    return "bf16" if fastest == ov.Type.bf16 else "fp32"


def numeric_setup() -> str:
    """What a result's last bits may depend on besides the graph: the library and the kind of CPU."""
    capabilities = sorted(
        set(core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")) & {"BF16", "FP16", "INT8"}
    )
    return f"openvino {ov.__version__} {core().get_property('CPU', 'FULL_DEVICE_NAME')} {' '.join(capabilities)}"


class Graph:
    """A graph compiled for this CPU.

    Each core has a stream of one thread and a fixed number of films per request: a film's answer does not depend on
    the number of cores or on its neighbours.
    """

    def __init__(self, folder: Path, precision: str, cores: int) -> None:
        """`folder` holds what `lib.network.export.write_graphs` wrote; `precision` is "fp32" or "bf16"."""
        model = core().read_model(folder / f"{precision}.xml")
        model.reshape([FILMS_PER_REQUEST, *list(model.inputs[0].shape)[1:]])
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "NUM_STREAMS": cores,
            "INFERENCE_NUM_THREADS": cores,
            "ENABLE_CPU_PINNING": False,  # the kernel knows which cores of a container are free
        }
        compiled = core().compile_model(model, "CPU", settings)
        self.output_shapes = [tuple(output.shape)[1:] for output in compiled.outputs]
        self.threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))
        self._requests = [compiled.create_infer_request() for _ in range(2 * cores)]

    def stream(
        self, films: Iterable[tuple[Key, np.ndarray | None]]
    ) -> Iterator[tuple[Key, Outputs | None]]:
        """Per item, in order: its key and one array per output. Items without a film (None) pass through.

        Films are `(side, side) uint8`. At most two requests per core are under way, so memory does not grow with `films`.
        """
        free, busy = deque(self._requests), deque[tuple[Any, list[tuple[Key, np.ndarray | None]]]]()
        try:
            for batch in _batches(films):
                if not free:
                    yield from _finish(busy, free)
                request = free.popleft()
                _start(request, [film for _, film in batch if film is not None])
                busy.append((request, batch))
            while busy:
                yield from _finish(busy, free)
        finally:
            for request, _ in busy:
                request.wait()


def _batches(
    films: Iterable[tuple[Key, np.ndarray | None]],
) -> Iterator[list[tuple[Key, np.ndarray | None]]]:
    batch: list[tuple[Key, np.ndarray | None]] = []
    held = 0
    for item in films:
        batch.append(item)
        held += item[1] is not None
        if held == FILMS_PER_REQUEST or len(batch) == 16 * FILMS_PER_REQUEST:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _start(request: Any, films: list[np.ndarray]) -> None:
    if films:
        data = request.get_input_tensor(0).data
        for place, film in enumerate(films):
            data[place, 0] = film
        data[len(films) :] = 0
        request.start_async()


def _finish(busy: deque[Any], free: deque[Any]) -> Iterator[tuple[Any, Outputs | None]]:
    request, batch = busy[0]
    request.wait()
    outputs = [tensor.data.copy() for tensor in request.output_tensors]
    busy.popleft()
    free.append(request)
    place = 0
    for key, film in batch:
        if film is None:
            yield key, None
        else:
            yield key, tuple(output[place] for output in outputs)
            place += 1


@dataclass(frozen=True)
class Agreement:
    """How close bfloat16 came to fp32 on validation films, measured where the model was made."""

    films: int
    same_prediction: float  # share of films
    mean_shift: float  # mean |Δp| over films and classes
    largest_shift: float


@dataclass(frozen=True)
class ModelCard:
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
        """Backbone and the first digits of the weights' digest: what the `model` column of a CSV says."""
        return f"{self.backbone}@{self.weights_sha256[:12]}"

    def write(self, folder: Path) -> None:
        """Write model.json, with a digest of itself."""
        content = {"format": FORMAT, **asdict(self)}
        write_json(folder / "model.json", {**content, "sha256": _digest_of(content)})

    @staticmethod
    def read(folder: Path) -> "ModelCard":
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
        card = ModelCard(
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
    def bears_bf16(self) -> bool:
        """Whether bfloat16 is known to give nearly the same answers."""
        return self.bf16 is not None and self.bf16.mean_shift <= LARGEST_SHIFT

    def precision(self, wanted: str) -> str:
        """ "auto" is bf16 where this CPU has it and the model is known to bear it, else fp32."""
        if wanted != "auto":
            return wanted
        return usual_precision() if self.bears_bf16 else "fp32"


def _digest_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Prediction:
    """What the model says of one film; nothing of a file that could not be read."""

    film: Film
    logits: np.ndarray | None = None  # (classes,)
    probabilities: np.ndarray | None = None  # (classes,) float64, calibrated, sums to 1
    features: np.ndarray = field(
        default_factory=lambda: _NOTHING
    )  # (C,) means of what the general layers see
    maps: np.ndarray = field(
        default_factory=lambda: _NOTHING
    )  # (classes, h, w): mean of a class's map + bias = its logit


class Predictor:
    """A model folder, compiled and ready for files."""

    def __init__(
        self, folder: Path, precision: str, cores: int, readers: int, seconds: float = FILE_SECONDS
    ) -> None:
        """`precision` is "auto", "fp32" or "bf16"; `readers` are the processes that decode, `seconds` their time per film.

        Raises:
            JobError: as `ModelCard.read`.
        """
        start_server()  # takes 0.2 s beside the compilation
        self.card = ModelCard.read(folder)
        self.precision = self.card.precision(precision)
        self.temperature = self.card.calibration["temperature"] if self.card.calibration else 1.0
        self.graph = Graph(folder, self.precision, cores)
        self.readers, self.seconds = readers, seconds

    def predict(self, paths: Iterable[Path]) -> Iterator[Prediction]:
        """One `Prediction` per path, in order. Films may have any size: ingest let them in under its limit."""
        with self.readers_of(Reader(self.card.input_side, ANY_SIZE)) as readers:
            yield from self.answers(readers, paths)

    def readers_of(self, reader: FilmReader[Source]) -> Isolated[Source, Film]:
        """Processes that read with `reader`, which has the model's `side`, and outlast a call of `answers`."""
        return Isolated(reader, reader.lost, self.readers, self.seconds)

    def answers(
        self, readers: Isolated[Source, Film], sources: Iterable[Source]
    ) -> Iterator[Prediction]:
        """One `Prediction` per source, in order; files are read a few requests ahead.

        One that crashes its decoder is an error in its prediction and harms no other.
        """
        films = readers.map(sources, self.readers + 2 * FILMS_PER_REQUEST)
        for film, outputs in self.graph.stream(
            (film, None if film.error else film.grey) for film in films
        ):
            if outputs is None:
                yield Prediction(film)
            else:
                logits, features, maps = outputs
                yield Prediction(film, logits, softmax(logits / self.temperature), features, maps)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis, `float64`."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    probabilities: np.ndarray = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities
