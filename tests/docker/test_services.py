"""The real services: every job in its container, exit codes, ownership, and what a container cannot
do.
"""

import json
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import film
from tests.docker.conftest import CALLER, IMAGE, Compose, wait_for

pytestmark = pytest.mark.engine
JOBS = ["ingest", "split", "train", "evaluate", "predict_batch", "promote"]


@pytest.fixture(scope="session")
def chain(compose: Compose) -> Compose:
    """Every job has run once on 60 generated films, without any network."""
    fractions = ["--val_fraction", "0.2", "--test_fraction", "0.2"]
    for code, words in (
        (3, ["ingest", "--dataset", "phantom", "--phantom_films", "60"]),
        (0, ["split", *fractions]),
        (0, ["train", "--phase", "a", "--epochs", "1"]),
        (0, ["train", "--phase", "b", "--epochs", "1"]),
        (0, ["evaluate"]),
    ):
        done = compose.run(*words)
        assert done.returncode == code, f"{words}: {done.stdout}{done.stderr}"
    return compose


def test_the_chain_leaves_its_results(chain: Compose) -> None:
    runs = chain.folder / "runs"
    scores, model, phase_b = (
        json.loads((runs / name).read_text())
        for name in ("evaluation/metrics.json", "model/model.json", "phase_b/summary.json")
    )
    # Phase B counts Phase A's weights as epoch 0: after one epoch on so few films they may be best.
    assert phase_b["best_epoch"] == 0 or scores["model"]["phase"] == "b"
    digests = {content["weights_sha256"] for content in (scores["model"], model, phase_b)}
    assert len(digests) == 1
    assert (chain.folder / "runs/evaluation/overview.png").stat().st_size > 10_000


def test_every_file_belongs_to_the_caller(chain: Compose) -> None:
    strangers = [
        path
        for name in ("data", "runs")
        for path in (chain.folder / name).rglob("*")
        if path.stat().st_uid != CALLER
    ]
    assert strangers == []


def test_splits_are_hard_links_inside_the_mount(chain: Compose) -> None:
    films = list((chain.folder / "data/train").rglob("*.*"))
    assert films
    assert all(path.stat().st_nlink > 1 for path in films)


def test_a_folder_of_films_becomes_a_csv_and_a_broken_one_a_row(chain: Compose) -> None:
    inbox = chain.folder / "inbox"
    film(inbox / "good.png", side=200)
    (inbox / "broken.jpg").write_text("no film")
    done = chain.run(
        "-v",
        f"{inbox}:/input:ro",
        "predict_batch",
        "--input",
        "/input",
        "--output",
        "runs/predictions/x.csv",
    )
    assert done.returncode == 3, done.stderr
    lines = (chain.folder / "runs/predictions/x.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["path", "broken.jpg", "good.png"]


@pytest.mark.parametrize("job", JOBS)
def test_a_typo_exits_2_at_once_and_touches_nothing(own: Compose, job: str) -> None:
    done = own.run(job, "--sede", "3")
    assert done.returncode == 2
    assert "Did you mean '--seed'" in done.stderr or "unknown flag --sede" in done.stderr
    assert [path.name for name in ("data", "runs") for path in (own.folder / name).iterdir()] == [
        "logs"
    ]
    assert '"exit_code": 2' in (own.folder / f"runs/logs/{job}.jsonl").read_text()


PROBE = """
import json, os, socket, sys
def refused(action):
    try:
        action()
        return ''
    except OSError as error:
        return error.strerror or str(error)
status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())
print(json.dumps({
    'uid': os.getuid(), 'gid': os.getgid(),
    'capabilities': int(status['CapEff'].strip(), 16) | int(status['CapBnd'].strip(), 16),
    'no_new_privileges': status['NoNewPrivs'].strip(),
    'root': refused(lambda: open('/app/x', 'w')), 'etc': refused(lambda: open('/etc/x', 'w')),
    'data': refused(lambda: open('/app/data/probe', 'w')),
    'tmp': refused(lambda: open('/tmp/x', 'w')),
    'interfaces': sorted(name for _, name in socket.if_nameindex()),
    'connection': refused(lambda: socket.create_connection(('192.0.2.1', 443), timeout=2)),
}))
"""


@pytest.mark.parametrize("job", JOBS)
def test_from_inside_there_is_no_root_no_privilege_and_no_network(own: Compose, job: str) -> None:
    done = own.run("--entrypoint", "python", job, "-c", PROBE)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert (seen["uid"], seen["gid"]) == (CALLER, CALLER)
    assert seen["capabilities"] == 0
    assert seen["no_new_privileges"] == "1"
    assert "Read-only" in seen["root"]
    assert "Read-only" in seen["etc"]
    assert seen["tmp"] == ""
    assert ("Read-only" in seen["data"]) == (job in ("evaluate", "predict_batch", "promote"))
    assert seen["interfaces"] == ["lo"]
    assert seen["connection"]


THREADS = """
from lib.workers.cores import usable_cores
from lib.network.graph import Graph
from pathlib import Path
cores = usable_cores()
graph = Graph(Path('runs/model'), 'fp32', cores)
print(cores, graph.threads)
"""


def test_a_container_with_one_cpu_computes_on_one_thread(chain: Compose) -> None:
    done = chain.run("--entrypoint", "python", "evaluate", "-c", THREADS, CPUS="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "1"]


def test_only_ingest_may_be_given_a_network(compose: Compose) -> None:
    done = compose("--profile", "jobs", "config", "--format", "json", INGEST_NETWORK="bridge")
    services = json.loads(done.stdout)["services"]
    assert {name: service["network_mode"] for name, service in services.items()} == {
        **dict.fromkeys(JOBS, "none"),
        "ingest": "bridge",
    }
    assert all(
        service["read_only"] and service["cap_drop"] == ["ALL"] for service in services.values()
    )


def test_a_bare_up_starts_nothing(compose: Compose) -> None:
    assert compose("config", "--services").stdout.split() == []


def test_without_kaggle_ingest_fails_within_a_minute_and_says_what_to_do(own: Compose) -> None:
    began = time.monotonic()
    done = own.run("ingest")
    assert done.returncode == 1
    assert time.monotonic() - began < 60
    assert "make demo" in done.stderr
    assert "DATASET=folder:" in done.stderr


def test_credentials_are_neither_printed_nor_kept(own: Compose, tmp_path: Path) -> None:
    secret = tmp_path / "kaggle.json"
    secret.write_text('{"username": "somebody", "key": "s3cr3t-k3y"}')
    secret.chmod(0o644)
    done = own.run("ingest", KAGGLE_JSON=str(secret), KAGGLE_API_TOKEN="t0k3n-t0k3n")
    history = subprocess.run(
        ["docker", "history", "--no-trunc", IMAGE], capture_output=True, text=True, check=True
    )
    written = "".join(
        path.read_text(errors="replace")
        for path in (own.folder / "data").rglob("*")
        if path.is_file()
    )
    for text in (done.stdout, done.stderr, history.stdout, written):
        assert "s3cr3t" not in text
        assert "t0k3n" not in text


def test_a_training_that_is_stopped_exits_143_and_goes_on(own: Compose, chain: Compose) -> None:
    subprocess.run(["cp", "-a", f"{chain.folder}/data/.", str(own.folder / "data")], check=True)
    name = "cxr-jobs-stop-test"
    started = own("run", "-d", "--name", name, "train", "--phase", "a", "--epochs", "40")
    assert started.returncode == 0, started.stderr
    try:
        wait_for(own.folder / "runs/phase_a/last.pt")
        subprocess.run(["docker", "stop", "-t", "30", name], check=True, capture_output=True)
        state = subprocess.run(
            ["docker", "inspect", "-f", "{{.State.ExitCode}}", name],
            check=True,
            capture_output=True,
            text=True,
        )
        assert state.stdout.strip() == "143"
    finally:
        subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)
    assert not (own.folder / "runs/phase_a/summary.json").exists()
    again = own("run", "-d", "--name", name, "train", "--phase", "a", "--epochs", "40")
    assert again.returncode == 0, again.stderr
    try:
        deadline = time.monotonic() + 60
        log = ""
        while "continuing in epoch" not in log and time.monotonic() < deadline:
            log = subprocess.run(
                ["docker", "logs", name], capture_output=True, text=True, check=True
            ).stdout
            time.sleep(0.2)
        assert "continuing in epoch" in log
    finally:
        subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)


def test_the_image_holds_the_program_alone_and_is_small(compose: Compose) -> None:
    listing = "cd /app && find . -type f -not -path '*/__pycache__/*' | sort"
    done = compose.run("--entrypoint", "sh", "-v", "/dev/null:/dev/null", "evaluate", "-c", listing)
    names = {path.split("/")[1] for path in done.stdout.split()}
    assert names <= {"lib", "jobs", "runs", "data"}
    inspected = subprocess.run(
        ["docker", "image", "inspect", IMAGE], capture_output=True, text=True, check=True
    )
    (image,) = json.loads(inspected.stdout)
    assert image["Size"] < 1.6e9
    assert image["Config"]["User"] == "1000:1000"
