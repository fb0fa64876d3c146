"""The actors of a Ray cluster: a pipeline on the head node, and the workers that compute."""

import pickle
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from lib.run.errors import JobError

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")
Function = Callable[[Chunk], Result]


class Pipeline:
    """An actor on the head node that runs Ray Data over its chunks."""

    def __init__(self, make: Callable[[], Function[Any, Any]], cores: int) -> None:
        self._make, self._cores = make, cores
        self._blocks: list[Any] = []
        self._results: Iterator[bytes] | None = None

    def add(self, chunks: list[bytes]) -> None:
        import pyarrow as pa

        self._blocks += [pa.table({"chunk": pa.array([chunk], pa.binary())}) for chunk in chunks]

    def next(self) -> bytes | None:
        """The next result, None after the last."""
        self._results = self._results or self._run()
        return next(self._results, None)

    def _run(self) -> Iterator[bytes]:
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.enable_operator_progress_bars = False
        data = ray.data.from_arrow(self._blocks)
        self._blocks = []
        capacity = int(ray.cluster_resources().get("CPU", 1)) // self._cores
        pool = ray.data.ActorPoolStrategy(
            min_size=1, initial_size=max(capacity, 1)
        )  # Ray may add more
        results = data.map_batches(
            Worker,
            fn_constructor_args=(self._make,),
            compute=pool,
            num_cpus=self._cores,
            batch_size=None,
            batch_format="pyarrow",
        )
        for batch in results.iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=1
        ):
            yield from batch.column("result").to_pylist()


class Worker:
    """One process of the pool.

    The function is made at the first chunk, so that an error in its making is a result as well.
    """

    def __init__(self, make: Callable[[], Function[Any, Any]]) -> None:
        self._make = make
        self._function: Function[Any, Any] | None = None

    def __call__(self, batch: Any) -> Any:
        import pyarrow as pa

        results = [pickle.dumps(self._run(chunk)) for chunk in batch.column("chunk").to_pylist()]
        return pa.table({"result": pa.array(results, pa.large_binary())})

    def _run(self, chunk: bytes) -> Any:
        try:
            self._function = self._function or self._make()
            return self._function(pickle.loads(chunk))  # noqa: S301  # written by the job
        except JobError as error:
            return error
