"""The compiled model applied to films, in input order and without torch: runs/model/ read, checked,
fed through a queue.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lib.network.openvino import core, ov

FILMS_PER_REQUEST = 4  # of 1, 2, 4 and 8 the fastest with decoding beside it
Key = TypeVar("Key")
Source = TypeVar("Source")
Outputs = tuple[np.ndarray, ...]
_NOTHING = np.empty(0)


def native_precision() -> str:
    """What this CPU computes fastest in: bf16 where it has instructions for it, else fp32."""
    fastest = core().get_property("CPU", "INFERENCE_PRECISION_HINT")
    return "bf16" if fastest == ov.Type.bf16 else "fp32"


def runtime_fingerprint() -> str:
    """What a result's last bits may depend on besides the graph: the library and the kind of CPU."""
    capabilities = sorted(
        set(core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")) & {"BF16", "FP16", "INT8"}
    )
    return f"openvino {ov.__version__} {core().get_property('CPU', 'FULL_DEVICE_NAME')} {' '.join(capabilities)}"


def runtime_of_this_machine() -> tuple[str, bool]:
    """`runtime_fingerprint`, and whether this CPU has instructions for bfloat16."""
    return runtime_fingerprint(), native_precision() == "bf16"


class Graph:
    """A graph compiled for this CPU.

    Each core has a stream of one thread and a fixed number of films per request: a film's answer
    does not depend on the number of cores or on its neighbours.
    """

    def __init__(self, folder: Path, precision: str, cores: int) -> None:
        """`folder` holds what `lib.network.export.write_graphs` wrote; `precision` is "fp32" or
        "bf16".
        """
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
        """Per item, in order: its key and one array per output. Items without a film (None) pass
        through.

        Films are `(side, side) uint8`. At most two requests per core are under way, so memory does
        not grow with `films`.
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
