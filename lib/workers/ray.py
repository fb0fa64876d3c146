"""A parallel map over chunks of work on a Ray cluster.

Ray Data moves chunks to a pool of actors, limits the memory in use, and repeats the work of lost
nodes. It cannot run behind ray://, so an actor on the head node runs it, and the job asks that
actor for results. Results come in any order.
"""

import hashlib
import logging
import os
import pickle
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lib.run.errors import JobError, UsageError
from lib.run.signals import defer_signals
from lib.workers.ray_actors import Chunk, Function, Pipeline, Result
from lib.workers.shipped import Shipped, digest_of, files_of

AHEAD = 4  # results requested from the head node in advance
CHUNKS_PER_MESSAGE = 256
SECONDS_BETWEEN_SIGNALS = 0.5
SECONDS_TO_JOIN = 60.0  # how long to wait for the first node
_HEAD = {"node:__internal_head__": 0.001}  # the resource that Ray gives the head node only
Runtime = tuple[str, bool]  # library and kind of CPU; whether it has bfloat16


@dataclass(frozen=True)
class Node:
    """A node of the cluster, as it describes itself."""

    name: str
    cores: int
    program: str  # digest of this package there
    setup: str  # library and kind of CPU, which decide the last bits of a result
    has_bf16: bool
    missing: tuple[str, ...]  # required paths that it does not see


def check_address(address: str) -> None:
    """Check the form of a cluster's address. Empty means no cluster.

    Raises:
        UsageError: neither "auto" nor ray://….
    """
    if address not in ("", "auto") and not address.startswith("ray://"):
        raise UsageError(
            f"--cluster {address}: give auto on a machine of the cluster, or ray://HEAD:10001."
        )


class Cluster:
    """A connection to a Ray cluster. A context manager."""

    def __init__(self, address: str, cores: int = 1) -> None:
        """`address` is "auto" on a machine of the cluster, or ray://HEAD:10001 from anywhere.

        `cores` is the number of cores of each worker process.

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
        with _ray_errors(address):
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        for number, handler in ours.items():  # Ray's handlers would end the job silently
            signal.signal(number, handler)

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        with suppress(Exception):  # the cluster may be gone
            ray.shutdown()

    def nodes(self, runtime_of: Callable[[], Runtime], paths: Sequence[Path] = ()) -> list[Node]:
        """The nodes that have a CPU. On each, `runtime_of` is called and `paths` are checked.

        Raises:
            JobError: no node, none with enough cores for a worker process, or one that runs another
                version of this program or does not see a path.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

        with _ray_errors(self.address):
            alive = _computing_nodes()
            deadline = time.monotonic() + SECONDS_TO_JOIN
            while not alive and time.monotonic() < deadline:
                time.sleep(1)
                alive = _computing_nodes()
            look = ray.remote(num_cpus=0, max_retries=0)(_look_around)
            reports = [
                look.options(scheduling_strategy=On(node["NodeID"], soft=False)).remote(
                    int(node["Resources"]["CPU"]), list(paths), runtime_of
                )
                for node in alive
            ]
            nodes: list[Node] = ray.get(reports, timeout=300)
        self._require_fit(nodes)
        return nodes

    def _require_fit(self, nodes: Sequence[Node]) -> None:
        if not nodes:
            raise JobError(
                f"the cluster at {self.address} has no node with a CPU: start workers, then run "
                "again."
            )
        if not self.workers(nodes):
            largest = max(node.cores for node in nodes)
            raise JobError(
                f"--cpus {self.cores}: no node of the cluster has that many cores, the largest has "
                f"{largest}."
            )
        for node in nodes:
            if node.program != program_digest():
                raise JobError(
                    f"{node.name} runs another version of this program: start every node from the "
                    "same image."
                )
            if node.missing:
                raise JobError(
                    f"{node.name} does not see {', '.join(node.missing)}: mount it there under the "
                    "same path, or read from a bucket (s3://…)."
                )

    def workers(self, nodes: Iterable[Node]) -> int:
        """The number of worker processes that fit on these nodes."""
        return sum(node.cores // self.cores for node in nodes)

    def ship(self, folder: Path) -> Shipped:
        """Put the files of a flat folder into the object store, for every node."""
        import ray

        files = files_of(folder)
        with _ray_errors(self.address):
            return Shipped(digest_of(files), ray.put(files))

    def map(
        self, make: Callable[[], Function[Chunk, Result]], chunks: Iterable[Chunk]
    ) -> Iterator[Result]:
        """`make()(chunk)` for every chunk, results in any order.

        `make` is called once per worker process. It, chunks and results must be picklable.

        Raises:
            JobError: the function raised it, or the cluster is lost.
        """
        import ray

        with _ray_errors(self.address), defer_signals() as raise_if_stopped:
            pipeline = ray.remote(num_cpus=0, resources=_HEAD, max_concurrency=1)(Pipeline).remote(
                make, self.cores
            )

            def wait_for(reference: Any) -> Any:
                """Its value. Signals are raised here only: they would break Ray's own code."""
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
                while (message := wait_for(waiting.popleft())) is not None:
                    waiting.append(pipeline.next.remote())
                    result = pickle.loads(message)  # noqa: S301  # written by our own workers
                    if isinstance(result, JobError):
                        raise result
                    yield result
            finally:
                with suppress(Exception):
                    ray.kill(pipeline)


def batched(items: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    """Lists of `size` items, the last one shorter."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


def chunks_of(count: int, workers: int, largest: int) -> list[range]:
    """`range(count)` in chunks of at most `largest`, about eight per worker."""
    size = max(1, min(largest, count // (8 * workers)))
    return [range(begin, min(begin + size, count)) for begin in range(0, count, size)]


def program_digest() -> str:
    """SHA-256 of the sources of this package: the same on machines that run the same program."""
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


@contextmanager
def _ray_errors(address: str) -> Iterator[None]:
    """Map Ray's errors to JobError."""
    import ray

    try:
        yield
    except JobError:
        raise
    except (ray.exceptions.RayError, ConnectionError, TimeoutError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1][:300]
        raise JobError(
            f"the cluster at {address} failed or was lost: {reason}. Finished work is kept; the "
            "same command continues it."
        ) from error
