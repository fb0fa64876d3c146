"""The classifier of a cluster: its connection is closed, also if the block never began."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lib.prediction import classify
from lib.prediction.classify import ClusterClassifier
from lib.prediction.request import PredictOptions
from lib.run.errors import JobError
from lib.workers.ray import Cluster, Node

NODE = Node("n1", 2, "digest", "openvino cpu", has_bf16=True, missing=())


class Connection(Cluster):
    """A cluster of two nodes with nothing behind it, which counts its open connections."""

    open = 0
    nodes_of_cluster: tuple[Node, ...] | JobError = (NODE,)

    def __init__(self, address: str, cores: int = 1) -> None:
        self.address, self.cores = address, cores
        Connection.open += 1

    def __exit__(self, *_: object) -> None:
        Connection.open -= 1

    def nodes(self, *_: object) -> list[Node]:
        if isinstance(self.nodes_of_cluster, JobError):
            raise self.nodes_of_cluster
        return list(self.nodes_of_cluster)


class Films:
    """Inputs without a film."""

    names = ()
    mounts = (Path("/nowhere"),)


@pytest.fixture
def model(chain: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(classify, "Cluster", Connection)
    Connection.open, Connection.nodes_of_cluster = 0, (NODE,)
    yield chain / "runs/model"
    assert Connection.open == 0


def _classifier(model: Path, **options: str) -> ClusterClassifier:
    films: object = Films()
    return ClusterClassifier("auto", model, PredictOptions(**options), films, 1, 1)  # type: ignore[arg-type]


def test_a_cluster_whose_nodes_do_not_see_the_films_is_left(model: Path) -> None:
    Connection.nodes_of_cluster = JobError("n1 does not see /nowhere")
    with pytest.raises(JobError, match="does not see"), _classifier(model):
        pytest.fail("the block began")


def test_nothing_is_connected_before_the_block_and_nothing_after_it(model: Path) -> None:
    classifier = _classifier(model)
    assert Connection.open == 0
    with classifier:
        assert Connection.open == 1
    assert Connection.open == 0


def test_auto_is_bf16_only_if_every_node_has_it(model: Path) -> None:
    slow = Node("n2", 2, "digest", "openvino cpu", has_bf16=False, missing=())
    for nodes, precisions in (((NODE,), {"bf16", "fp32"}), ((NODE, slow), {"fp32"})):
        Connection.nodes_of_cluster = nodes
        with _classifier(model) as classifier:
            assert classifier.options.precision in precisions
    with _classifier(model, precision="bf16") as classifier:
        assert classifier.options.precision == "bf16"
