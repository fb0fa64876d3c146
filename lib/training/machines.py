"""Where the frozen layers are computed: on this machine, or on a cluster of one kind of machine."""

from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

from lib.network.choices import Precision, PrecisionChoice
from lib.network.graph import runtime_of_this_machine
from lib.run.errors import JobError
from lib.workers.cores import usable_cores
from lib.workers.ray import Cluster, Runtime


class Machines:
    """The cores of this machine, and the nodes of a cluster if one is used. A context manager."""

    def __init__(
        self, address: str = "", cpus: int = 0, workers: int = 0, data_dir: Path = Path()
    ) -> None:
        """`address` is that of a Ray cluster, empty for this machine.

        `cpus` limits the cores here (0: all that may be used) and is the number of cores of a
        worker process on a cluster. `workers` is the number of threads that read films (0: one per
        core). The nodes must see `data_dir` under its absolute path.
        """
        self.cores = usable_cores(cpus)
        self.readers = workers or self.cores
        self.cluster: Cluster | None = None
        self._address, self._cores_per_worker, self._data_dir = address, cpus or 1, data_dir
        self._stack = ExitStack()

    def __enter__(self) -> "Machines":
        """Connect to the cluster, if one is used.

        Raises:
            JobError: no connection, or nodes whose results differ in the last bits.
        """
        if self._address:
            with ExitStack() as connection:
                self.cluster = connection.enter_context(
                    Cluster(self._address, self._cores_per_worker)
                )
                _ = self.runtime  # refuses mixed nodes before any work
                self._stack = connection.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def runtime(self) -> Runtime:
        """Library and kind of CPU, and whether it has instructions for bfloat16."""
        if self.cluster is None:
            return runtime_of_this_machine()
        nodes = self.cluster.nodes(runtime_of_this_machine, [self._data_dir.absolute()])
        fingerprints = {node.setup for node in nodes}
        if len(fingerprints) > 1:
            raise JobError(
                f"the nodes compute differently ({'; '.join(sorted(fingerprints))}), but cached "
                "activations must not depend on the node. Use a cluster of one kind of machine."
            )
        return fingerprints.pop(), all(node.has_bf16 for node in nodes)

    def precision(self, choice: PrecisionChoice) -> Precision:
        """The precision in use: "auto" is bfloat16 where every machine has it."""
        if choice != "auto":
            return choice
        return "bf16" if self.runtime[1] else "fp32"
