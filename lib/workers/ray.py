"""A function over many chunks of work on a Ray cluster: the one place that knows Ray.

Ray Data moves chunks to a pool of actors, holds back what would not fit into memory, and repeats
what a lost node had not finished. It cannot run behind ray://, so an actor on the head node runs
it, and the job, wherever it is, asks that actor for results. They come in any order: the jobs know
where each belongs.
"""

import hashlib
import logging
import os
import pickle
import shutil
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from lib.run.errors import JobError, UsageError
from lib.run.signals import defer_signals

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")
Function = Callable[[Chunk], Result]

AHEAD = 4  # answers of the head that are under way to the job
CHUNKS_PER_MESSAGE = 256
SECONDS_BETWEEN_SIGNALS = 0.5
SECONDS_TO_JOIN = 60.0  # that the first node may take
_HEAD = {"node:__internal_head__": 0.001}  # Ray's own mark of the head node
Runtime = tuple[str, bool]  # library and kind of CPU; whether it computes in bfloat16


@dataclass(frozen=True)
class Node:
    """What a node says of itself."""

    name: str
    cores: int
    program: str  # digest of this package there
    setup: str  # library and kind of CPU: what the last bits of an answer may depend on
    has_bf16: bool
    missing: tuple[str, ...]  # of the paths that it was asked for


@dataclass(frozen=True)
class Shipped:
    """A flat folder that travels to the nodes once, by the digest of its content."""

    digest: str
    files: Any  # reference in Ray's object store to {name: bytes}

    def unpack(self) -> Path:
        """The folder on this node: whole, and shared by all of its processes."""
        import ray

        folder = Path(tempfile.gettempdir()) / f"cxr-{self.digest[:24]}"
        if folder.is_dir() and _digest_of(_files_of(folder)) != self.digest:
            shutil.rmtree(folder)
        if not folder.is_dir():
            partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-"))
            for name, content in ray.get(self.files).items():
                (partial / name).write_bytes(content)
            try:
                os.rename(partial, folder)
            except OSError:  # another process of this node was faster
                shutil.rmtree(partial)
        return folder


def check_address(address: str) -> None:
    """Refuse what is no address of a cluster. Empty means none.

    Raises:
        UsageError: it is neither "auto" nor begins with ray://.
    """
    if address not in ("", "auto") and not address.startswith("ray://"):
        raise UsageError(
            f"--cluster {address}: give auto on a machine of the cluster, or ray://HEAD:10001."
        )


class Cluster:
    """A connection to a Ray cluster. A context manager."""

    def __init__(self, address: str, cores: int = 1) -> None:
        """`address` is "auto" on a machine of the cluster, or ray://HEAD:10001 from anywhere.

        Each worker process gets `cores`; one suits work that shares nothing.

        Raises:
            JobError: Ray is not installed here, or no cluster answers.
        """
        self.address, self.cores = address, cores
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise JobError(
                "--cluster needs Ray, which is not installed here. Use the image of the cluster "
                "(docker compose --profile cluster build), or install requirements-ray.lock."
            ) from error
        ours = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        with _explained(address):
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        for number, handler in ours.items():  # Ray's own would end the job without a word
            signal.signal(number, handler)

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        with suppress(Exception):  # a cluster that is gone cannot be left politely
            ray.shutdown()

    def nodes(self, runtime_of: Callable[[], Runtime], paths: Sequence[Path] = ()) -> list[Node]:
        """The nodes that compute. `runtime_of` is called and `paths` are looked for on each.

        Raises:
            JobError: there are none, none has the cores of a worker process, or one of them runs
                another version of this program or does not see a path.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

        with _explained(self.address):
            alive = _computing_nodes()
            deadline = time.monotonic() + SECONDS_TO_JOIN
            while not alive and time.monotonic() < deadline:
                time.sleep(1)
                alive = _computing_nodes()
            look = ray.remote(num_cpus=0, max_retries=0)(_look_around)
            asked = [
                look.options(scheduling_strategy=On(node["NodeID"], soft=False)).remote(
                    int(node["Resources"]["CPU"]), list(paths), runtime_of
                )
                for node in alive
            ]
            found: list[Node] = ray.get(asked, timeout=300)
        if not found:
            raise JobError(
                f"the cluster at {self.address} has no node with a CPU: start workers, then run again."
            )
        if not self.workers(found):
            largest = max(node.cores for node in found)
            raise JobError(
                f"--cpus {self.cores}: no node of the cluster has so many cores, the largest has {largest}."
            )
        for node in found:
            if node.program != program_digest():
                raise JobError(
                    f"{node.name} runs another version of this program: start every node from the same image."
                )
            if node.missing:
                raise JobError(
                    f"{node.name} does not see {', '.join(node.missing)}: mount it there under the same path, or read from a "
                    "bucket (s3://…)."
                )
        return found

    def workers(self, nodes: Iterable[Node]) -> int:
        """Worker processes that these nodes have room for."""
        return sum(node.cores // self.cores for node in nodes)

    def ship(self, folder: Path) -> Shipped:
        """Offer the files of a flat folder to every node."""
        import ray

        files = _files_of(folder)
        with _explained(self.address):
            return Shipped(_digest_of(files), ray.put(files))

    def map(
        self, make: Callable[[], Function[Chunk, Result]], chunks: Iterable[Chunk]
    ) -> Iterator[Result]:
        """`make()(chunk)` for every chunk, results in any order.

        `make` is called once per worker process. It, chunks and results must be picklable.

        Raises:
            JobError: the function raised it, or the cluster is lost.
        """
        import ray

        with _explained(self.address), defer_signals() as raise_if_stopped:
            pipeline = ray.remote(num_cpus=0, resources=_HEAD, max_concurrency=1)(_Pipeline).remote(
                make, self.cores
            )

            def wait_for(reference: Any) -> Any:
                """Its value. A signal that came in the middle of Ray's own code would confuse it."""
                while not ray.wait([reference], timeout=SECONDS_BETWEEN_SIGNALS)[0]:
                    raise_if_stopped()
                raise_if_stopped()
                return ray.get(reference)

            try:
                for message in batched(
                    (pickle.dumps(chunk) for chunk in chunks), CHUNKS_PER_MESSAGE
                ):
                    wait_for(pipeline.add.remote(message))
                waiting = deque(pipeline.next.remote() for _ in range(AHEAD))
                while (answer := wait_for(waiting.popleft())) is not None:
                    waiting.append(pipeline.next.remote())
                    result = pickle.loads(answer)  # noqa: S301  # our own workers wrote it
                    if isinstance(result, JobError):
                        raise result
                    yield result
            finally:
                with suppress(Exception):
                    ray.kill(pipeline)


class _Pipeline:
    """An actor on the head node: runs Ray Data over the chunks that it was given."""

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
        answers = data.map_batches(
            _Worker,
            fn_constructor_args=(self._make,),
            compute=pool,
            num_cpus=self._cores,
            batch_size=None,
            batch_format="pyarrow",
        )
        for batch in answers.iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=1
        ):
            yield from batch.column("result").to_pylist()


class _Worker:
    """One process of the pool. What it makes, it makes at the first chunk: an error is then a
    result like any other.
    """

    def __init__(self, make: Callable[[], Function[Any, Any]]) -> None:
        self._make = make
        self._function: Function[Any, Any] | None = None

    def __call__(self, batch: Any) -> Any:
        import pyarrow as pa

        results = [pickle.dumps(self._answer(chunk)) for chunk in batch.column("chunk").to_pylist()]
        return pa.table({"result": pa.array(results, pa.large_binary())})

    def _answer(self, chunk: bytes) -> Any:
        try:
            self._function = self._function or self._make()
            return self._function(pickle.loads(chunk))  # noqa: S301  # the job wrote it
        except JobError as error:
            return error


def batched(items: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    """Lists of `size` items, the last one shorter."""
    source = iter(items)
    while found := list(islice(source, size)):
        yield found


def chunks_of(count: int, workers: int, largest: int) -> list[range]:
    """`range(count)` in pieces of `largest` at most, small enough that every worker gets several."""
    size = max(1, min(largest, count // (8 * workers)))
    return [range(begin, min(begin + size, count)) for begin in range(0, count, size)]


def program_digest() -> str:
    """Of the sources of this package: two machines with the same one run the same program."""
    package = Path(__file__).parents[1]
    names = sorted(path.relative_to(package).as_posix() for path in package.rglob("*.py"))
    sources = (name.encode() + b"\0" + (package / name).read_bytes() for name in names)
    return hashlib.sha256(b"\0".join(sources)).hexdigest()


def _look_around(cores: int, paths: list[Path], runtime_of: Callable[[], Runtime]) -> Node:
    setup, has_bf16 = runtime_of()
    missing = tuple(str(path) for path in paths if not path.exists())
    return Node(
        os.uname().nodename,
        cores,
        program_digest(),
        setup,
        has_bf16,
        missing,
    )


def _computing_nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]


def _files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def _digest_of(files: Mapping[str, bytes]) -> str:
    digests = "".join(
        f"{name} {hashlib.sha256(content).hexdigest()}\n" for name, content in sorted(files.items())
    )
    return hashlib.sha256(digests.encode()).hexdigest()


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Ray's many errors become one kind."""
    import ray

    try:
        yield
    except JobError:
        raise
    except (ray.exceptions.RayError, ConnectionError, TimeoutError, RuntimeError) as error:
        raise JobError(
            f"the cluster at {address} failed or was lost: {str(error).strip().splitlines()[-1][:300]}. What was "
            "finished is kept; the same command takes it up again."
        ) from error
