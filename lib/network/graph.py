"""A compiled graph applied to films, in input order and without torch."""

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from lib.network.choices import Precision
from lib.network.instructions import may_use_bf16
from lib.network.numerics import Floats, Grey
from lib.network.openvino import core, ov

FILMS_PER_REQUEST = 4  # of 1, 2, 4 and 8 the fastest with decoding beside it
Key = TypeVar("Key")
Outputs = tuple[Floats, ...]  # one array per output of the graph


def native_precision() -> Precision:
    """The floating-point precision that this CPU is fastest in: bf16 where it has instructions
    for it.
    """
    fastest = core().get_property("CPU", "INFERENCE_PRECISION_HINT")
    return "bf16" if fastest == ov.Type.bf16 and may_use_bf16() else "fp32"


def runtime_fingerprint() -> str:
    """The library and the kind of CPU: the last bits of a result may depend on them."""
    capabilities = sorted(
        set(core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")) & {"BF16", "FP16", "INT8"}
    )
    device = core().get_property("CPU", "FULL_DEVICE_NAME")
    return f"openvino {ov.__version__} {device} {' '.join(capabilities)}"


def runtime_of_this_machine() -> tuple[str, bool]:
    """`runtime_fingerprint`, and whether this CPU has instructions for bfloat16."""
    return runtime_fingerprint(), native_precision() == "bf16"


class Graph:
    """A graph compiled for this CPU.

    Each core has a stream of one thread, and each request a fixed number of films: a film's outputs
    depend neither on the number of cores nor on its neighbours.
    """

    def __init__(self, folder: Path, precision: Precision, cores: int) -> None:
        """`folder` holds <precision>.xml with its .bin file."""
        model = core().read_model(folder / f"{precision}.xml")
        model.reshape([FILMS_PER_REQUEST, *list(model.inputs[0].shape)[1:]])
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "NUM_STREAMS": cores,
            "INFERENCE_NUM_THREADS": cores,
            "ENABLE_CPU_PINNING": False,  # the kernel knows which cores of a container are free
        }
        compiled = core().compile_model(model, "CPU", settings)
        self.threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))
        self._requests = [compiled.create_infer_request() for _ in range(2 * cores)]

    def stream(
        self, films: Iterable[tuple[Key, Grey | None]]
    ) -> Iterator[tuple[Key, Outputs | None]]:
        """Per item, in order: its key and the outputs, None for an item without a film.

        At most two requests per core are in flight, so memory does not grow with `films`.
        """
        free, busy = deque(self._requests), deque[tuple[Any, list[tuple[Key, Grey | None]]]]()
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
    films: Iterable[tuple[Key, Grey | None]],
) -> Iterator[list[tuple[Key, Grey | None]]]:
    batch: list[tuple[Key, Grey | None]] = []
    count = 0
    for item in films:
        batch.append(item)
        count += item[1] is not None
        if count == FILMS_PER_REQUEST or len(batch) == 16 * FILMS_PER_REQUEST:
            yield batch
            batch, count = [], 0
    if batch:
        yield batch


def _start(request: Any, films: list[Grey]) -> None:
    if films:
        data = request.get_input_tensor(0).data
        for index, film in enumerate(films):
            data[index, 0] = film
        data[len(films) :] = 0
        request.start_async()


def _finish(busy: deque[Any], free: deque[Any]) -> Iterator[tuple[Any, Outputs | None]]:
    request, batch = busy[0]
    request.wait()
    outputs = [tensor.data.copy() for tensor in request.output_tensors]
    busy.popleft()
    free.append(request)
    index = 0
    for key, film in batch:
        if film is None:
            yield key, None
        else:
            yield key, tuple(output[index] for output in outputs)
            index += 1
