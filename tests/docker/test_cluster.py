"""A real Ray cluster of containers: the same tables and weights as on one machine, whatever happens
to its nodes.
"""

import csv
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import film
from tests.docker.conftest import Compose
from tests.docker.test_services import chain

pytestmark = pytest.mark.engine
__all__ = ["chain"]  # the fixture

FILMS = 900
SHOW = """
import json, os
print(json.dumps([os.getuid(), open('/proc/self/status').read(), os.access('/app', os.W_OK)]))
"""


class Nodes:
    """The cluster, and the two jobs that use it."""

    def __init__(self, compose: Compose, films: Path) -> None:
        self.compose, self.films = compose, films

    def __call__(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return self.compose("--profile", "cluster", *words, CLUSTER_FILMS=str(self.films))

    def up(self) -> None:
        done = self("up", "--detach", "--wait", "--scale", "worker=3", "head", "worker")
        assert done.returncode == 0, done.stderr

    def start_predict(self, table: str, *more: str) -> "subprocess.Popen[str]":
        impatient = [
            "-e",
            "RAY_CLIENT_RECONNECT_GRACE_PERIOD=2",
        ]  # seconds that Ray waits for a head that was lost
        words = [
            "run",
            "--rm",
            *impatient,
            "cluster_predict",
            "--input",
            "/films",
            "--output",
            f"runs/{table}",
            *more,
        ]
        variables = {**self.compose.environment, "CLUSTER_FILMS": str(self.films)}
        command = [*self.compose.command, *words]
        return subprocess.Popen(
            command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def wait_for_rows(self, table: str, count: int, job: "subprocess.Popen[str]") -> None:
        """Wait until the journal of a table holds `count` rows, while its job runs."""
        journal = self.compose.folder / "runs" / f".{table}.journal"
        while not journal.exists() or journal.read_bytes().count(b"\n") <= count:
            assert job.poll() is None, job.communicate()
            time.sleep(0.05)

    def container(self, service: str) -> str:
        """One container of a service."""
        return self("ps", "--quiet", service).stdout.split()[0]

    @staticmethod
    def kill(container: str) -> None:
        """As a power failure would."""
        subprocess.run(["docker", "kill", container], capture_output=True, check=True)

    def digest(self, table: str) -> str:
        return hashlib.sha256((self.compose.folder / "runs" / table).read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def nodes(chain: Compose, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Three workers of one core each; 900 films below /films, one of them broken."""
    films = tmp_path_factory.mktemp("archive")
    originals = [film(films / f"original_{seed}.png", seed=seed, side=300) for seed in range(20)]
    for number in range(FILMS - len(originals) - 1):
        (films / f"{number:05}.png").hardlink_to(originals[number % len(originals)])
    (films / "broken.png").write_text("no film")
    films.chmod(0o755)
    found = Nodes(chain, films)
    built = found("build", "head")
    assert built.returncode == 0, built.stderr
    try:
        found.up()
        yield found
    finally:
        found("down", "--timeout", "1")


@pytest.fixture(scope="module")
def alone(nodes: Nodes) -> str:
    """Digest of the table that one machine writes."""
    mount = f"{nodes.films}:/films:ro"
    done = nodes.compose.run(
        "-v", mount, "predict_batch", "--input", "/films", "--output", "runs/alone.csv"
    )
    assert done.returncode == 3, done.stderr
    return nodes.digest("alone.csv")


def test_a_worker_that_dies_costs_no_row_and_changes_no_byte(nodes: Nodes, alone: str) -> None:
    worker = nodes.container("worker")
    job = nodes.start_predict("killed.csv")
    nodes.wait_for_rows("killed.csv", 20, job)
    nodes.kill(worker)
    _, errors = job.communicate(timeout=400)
    assert job.returncode == 3, errors
    assert nodes.digest("killed.csv") == alone
    with open(nodes.compose.folder / "runs/killed.csv", newline="") as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == FILMS
    assert [row["path"] for row in rows if row["error"]] == ["broken.png"]


def test_when_the_head_dies_the_same_command_goes_on(nodes: Nodes, alone: str) -> None:
    head = nodes.container("head")
    job = nodes.start_predict("headless.csv")
    nodes.wait_for_rows("headless.csv", 20, job)
    nodes.kill(head)
    _, errors = job.communicate(timeout=400)
    assert job.returncode == 1
    assert "the same command continues it" in errors
    assert not (nodes.compose.folder / "runs/headless.csv").exists()
    nodes("down", "--timeout", "1")
    nodes.up()
    again = nodes.start_predict("headless.csv")
    said, errors = again.communicate(timeout=400)
    assert again.returncode == 3, errors
    assert "an interrupted run left" in said
    assert nodes.digest("headless.csv") == alone


def test_a_training_whose_films_went_through_the_cluster_ends_with_the_same_weights(
    nodes: Nodes,
) -> None:
    folder = nodes.compose.folder
    summary = json.loads((folder / "runs/phase_a/summary.json").read_text())
    cache = folder / "data/cache/features"
    filled = _rows_by_film(cache)
    assert filled
    for path in cache.glob("*/*.f16"):
        path.unlink()
    done = nodes("run", "--rm", "cluster_train", "--phase", "a", "--epochs", "1", "--restart")
    assert done.returncode == 0, done.stderr
    assert (
        json.loads((folder / "runs/phase_a/summary.json").read_text())["weights_sha256"]
        == summary["weights_sha256"]
    )
    assert _rows_by_film(cache) == filled


def _rows_by_film(cache: Path) -> dict[tuple[str, bytes], bytes]:
    """The cached activations; on a cluster they come in any order."""
    found = {}
    for path in cache.glob("*/*.f16"):
        keys = path.with_suffix(".keys").read_bytes()
        films, content = len(keys) // 32, path.read_bytes()
        size = len(content) // films
        for at in range(films):
            row = content[at * size : (at + 1) * size]
            found[path.name, keys[32 * at : 32 * at + 32]] = row
    return found


def test_films_that_the_nodes_do_not_see_are_refused_before_any_work(nodes: Nodes) -> None:
    done = nodes(
        "run",
        "--rm",
        "-v",
        f"{nodes.films}:/elsewhere:ro",
        "cluster_predict",
        "--input",
        "/elsewhere",
        "--output",
        "runs/no.csv",
    )
    assert done.returncode == 1
    assert "does not see /elsewhere" in done.stderr


def test_more_cores_than_any_node_has_are_refused_instead_of_waited_for(nodes: Nodes) -> None:
    done = nodes(
        "run",
        "--rm",
        "cluster_predict",
        "--input",
        "/films",
        "--output",
        "runs/no.csv",
        "--cpus",
        "2",
    )
    assert done.returncode == 1
    assert "--cpus 2: no node of the cluster has that many cores, the largest has 1" in done.stderr


def test_without_ray_the_job_says_where_it_is(nodes: Nodes) -> None:
    done = nodes.compose.run(
        "predict_batch", "--input", "data", "--output", "runs/no.csv", "--cluster", "auto"
    )
    assert done.returncode == 1
    assert "--cluster needs Ray, which is not installed here" in done.stderr


def test_parquet_says_what_it_needs_and_works_alone_in_the_image_that_has_it(nodes: Nodes) -> None:
    words = (
        "-v",
        f"{nodes.films}:/films:ro",
        "predict_batch",
        "--input",
        "/films/broken.png",
        "--output",
        "runs/x.parquet",
    )
    done = nodes.compose.run(*words)
    assert done.returncode == 1
    assert "Parquet needs pyarrow" in done.stderr
    done = nodes.compose.run(*words, IMAGE=os.environ.get("CLUSTER_IMAGE", "cxr-jobs:cluster"))
    assert done.returncode == 3, done.stderr
    assert (nodes.compose.folder / "runs/x.parquet").exists()


def test_nodes_have_no_rights_and_no_way_out(nodes: Nodes) -> None:
    for service in ("head", "worker"):
        done = nodes("exec", service, "python", "-c", SHOW)
        user, status, writable = json.loads(done.stdout)
        assert user != 0
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        assert not writable
    label = f"com.docker.compose.project={nodes.compose.command[-1]}"
    network = subprocess.run(
        ["docker", "network", "ls", "--quiet", "--filter", f"label={label}"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    inspected = json.loads(
        subprocess.run(
            ["docker", "network", "inspect", *network], capture_output=True, check=True
        ).stdout
    )
    assert [one["Internal"] for one in inspected if one["Name"].endswith("_cluster")] == [True]
