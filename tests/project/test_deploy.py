"""What hospital IT runs: predict.sh, doctor.sh, audit.sh, the systemd units, and predict.sh from a
real cron daemon.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import film
from tests.run.test_logs import lines_of

PROJECT = Path(__file__).resolve().parents[2]
Done = subprocess.CompletedProcess[str]
root = pytest.mark.skipif(os.getuid() != 0, reason="only root can do this here")


@pytest.fixture
def checkout(tmp_path: Path, chain: Path) -> Path:
    """The scripts, the program and a trained model, as they would lie in /srv/cxr-jobs."""
    folder = tmp_path / "cxr jobs"
    for name in ("deploy", "lib", "jobs"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (
        "compose.yaml",
        "Dockerfile",
        ".env.example",
        "requirements.lock",
        "requirements-torch.txt",
    ):
        shutil.copy(PROJECT / name, folder / name)
    shutil.copytree(chain / "runs/model", folder / "runs/model")
    (folder / "data").mkdir()
    return folder


def script(checkout: Path, name: str, *words: object, cwd: Path | str = "/", **more: str) -> Done:
    """A script of deploy/ in the environment of cron: next to none."""
    base = {
        "PATH": os.environ["PATH"],
        "HOME": "/",
        "RUNNER": "local",
        "PYTHON": sys.executable,
        **more,
    }
    command = [str(checkout / "deploy" / name), *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=base, capture_output=True, text=True, check=False)


def test_a_success_is_one_line_on_standard_output(checkout: Path, tmp_path: Path) -> None:
    film(tmp_path / "in box/a.png")
    done = script(checkout, "predict.sh", "in box", "out/%Y.csv", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert "1 rows (" in line
    assert (tmp_path / "out" / f"{time.strftime('%Y')}.csv").exists()
    assert lines_of(checkout / "runs", "predict_batch")[-1]["summary"] == line


def test_report_makes_a_page_beside_the_table(checkout: Path, tmp_path: Path) -> None:
    film(tmp_path / "inbox/a.png")
    assert (
        script(
            checkout, "predict.sh", tmp_path / "inbox", tmp_path / "x.csv", REPORT="1"
        ).returncode
        == 0
    )
    assert (tmp_path / "x.html").exists()


def test_incremental_adds_only_what_is_new(checkout: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("a.png", "b.png")):
        film(tmp_path / "inbox" / name, seed=number)
        done = script(
            checkout, "predict.sh", tmp_path / "inbox", tmp_path / "out" / "x.csv", INCREMENTAL="1"
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert f"{number + 1} rows (" in done.stdout
    assert "1 films were seen before" in done.stdout
    assert (tmp_path / "out" / ".seen.sqlite").exists()


def test_the_exit_code_of_the_job_arrives(checkout: Path, tmp_path: Path) -> None:
    film(tmp_path / "inbox/a.png")
    (tmp_path / "inbox/b.png").write_text("no film")
    done = script(checkout, "predict.sh", tmp_path / "inbox", tmp_path / "x.csv")
    assert (done.returncode, done.stderr) == (3, "")
    assert "1 unreadable" in done.stdout
    assert (
        script(
            checkout, "predict.sh", tmp_path / "inbox", tmp_path / "x.csv", "--sede", 3
        ).returncode
        == 2
    )
    (checkout / "runs/model/fp32.bin").write_text("tampered")
    done = script(checkout, "predict.sh", tmp_path / "inbox", tmp_path / "x.csv")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize("value", ["1", "True", "yes", "0", "no", "False", ""])
def test_a_switch_that_says_no_is_off(tmp_path: Path, value: str) -> None:
    # echo stands for Python: it prints the command.
    switches = {"PYTHON": "echo", "REPORT": value, "INCREMENTAL": value}
    done = script(PROJECT, "predict.sh", tmp_path, tmp_path / "x.csv", **switches)
    is_on = value in ("1", "True", "yes")
    assert (f"--report {tmp_path}/x.html" in done.stdout) == is_on
    assert (f"--incremental {tmp_path}/.seen.sqlite" in done.stdout) == is_on


@pytest.mark.parametrize(
    ("words", "more", "message"),
    [
        ((), {}, "usage:"),
        (("/nowhere", "x.csv"), {}, "does not exist"),
        (("/", "/tmp/x.csv"), {"RUNNER": "podman"}, "docker or local"),
        (("/proc", "/tmp/a:b.csv"), {"RUNNER": "docker"}, "cannot be mounted"),
    ],
)
def test_wrong_usage_ends_with_2(
    checkout: Path, words: tuple[str, ...], more: dict[str, str], message: str
) -> None:
    done = script(checkout, "predict.sh", *words, **more)
    assert done.returncode == 2
    assert message in done.stderr


def test_without_engine_and_venv_it_says_what_to_do(checkout: Path, tmp_path: Path) -> None:
    nothing = {"RUNNER": "", "PYTHON": "", "DOCKER_HOST": "unix:///nowhere"}
    done = script(checkout, "predict.sh", tmp_path, tmp_path / "x.csv", **nothing)
    assert done.returncode == 1
    assert "make setup" in done.stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, 137)]
)
def test_a_signal_reaches_the_job_and_its_code_comes_back(
    checkout: Path, tmp_path: Path, number: int, code: int
) -> None:
    job = "import os, time; open('started', 'w').write(str(os.getpid())); time.sleep(60)"
    python = tmp_path / "python"
    handler = (
        "import signal, sys; [signal.signal(n, lambda n, _: sys.exit(128 + n)) for n in (2, 15)]"
    )
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{handler}; {job}"\n')
    python.chmod(0o755)
    base = {"PATH": os.environ["PATH"], "RUNNER": "local", "PYTHON": str(python)}
    command = [str(checkout / "deploy/predict.sh"), str(tmp_path), str(tmp_path / "x.csv")]
    process = subprocess.Popen(command, env=base, stderr=subprocess.PIPE, text=True)
    started = checkout / "started"
    _wait(lambda: started.exists() and started.read_text() != "")
    os.kill(int(started.read_text()) if number == signal.SIGKILL else process.pid, number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == code
    assert ("raise MEMORY in .env" in error) == (code == 137)


def _wait(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.01)


# doctor.sh


@pytest.fixture
def doctor(checkout: Path) -> Callable[..., Done]:
    """doctor.sh on a checkout where nothing is amiss, run locally."""
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/bin/python").symlink_to(sys.executable)
    (checkout / ".venv/installed").touch()
    settings = (checkout / ".env.example").read_text().replace("UID=1000", f"UID={os.getuid()}")
    (checkout / ".env").write_text(settings.replace("GID=1000", f"GID={os.getgid()}"))
    (checkout / ".env").chmod(0o600)

    def run(**more: str) -> Done:
        return script(checkout, "doctor.sh", **more)

    return run


def _lines(done: Done, kind: str) -> str:
    return "\n".join(line for line in done.stdout.splitlines() if line.startswith(kind))


def test_doctor_passes_where_nothing_is_amiss(doctor: Callable[..., Done]) -> None:
    done = doctor()
    assert (done.returncode, done.stderr) == (0, "")
    assert _lines(done, "fail") == ""
    ok = _lines(done, "ok")  # with a graph in int8 where the CPU has VNNI
    assert "8 files are what model.json says" in ok or "10 files are what model.json says" in ok
    assert {line.split()[0] for line in done.stdout.splitlines()[:-1]} <= {"ok", "warn", "fail"}


def test_doctor_fails_without_an_engine(doctor: Callable[..., Done]) -> None:
    done = doctor(RUNNER="docker", DOCKER_HOST="unix:///nowhere")
    assert done.returncode == 1
    assert "no container engine answers" in _lines(done, "fail")


def test_doctor_fails_on_a_model_that_was_tampered_with(
    doctor: Callable[..., Done], checkout: Path
) -> None:
    with open(checkout / "runs/model/fp32.bin", "ab") as file:
        file.write(b"x")
    done = doctor()
    assert done.returncode == 1
    assert "fp32.bin is missing or not what model.json says" in _lines(done, "fail")
    (checkout / "runs/model/model.json").write_text("{")
    assert "model.json is damaged" in _lines(doctor(), "fail")


def test_doctor_fails_on_weights_that_changed(doctor: Callable[..., Done], checkout: Path) -> None:
    weights = checkout / "data/cache/weights"
    weights.mkdir(parents=True)
    (weights / "resnet18.pth").write_text("weights")
    (weights / "resnet18.json").write_text('{\n  "sha256": "' + "0" * 64 + '"\n}')
    assert "weights: " in _lines(doctor(BACKBONE="resnet18"), "fail")


@root
def test_doctor_fails_on_a_folder_that_the_containers_cannot_write(
    doctor: Callable[..., Done], checkout: Path
) -> None:
    shutil.chown(checkout / "data", 12345, 12345)
    text = (checkout / ".env").read_text()
    (checkout / ".env").write_text(text.replace("UID=0", "UID=12345").replace("GID=0", "GID=12345"))
    failed = _lines(doctor(), "fail")
    assert "RUNS_DIR ./runs belongs to 0:0, containers run as 12345:12345" in failed
    assert "DATA_DIR" not in failed


@root
def test_doctor_fails_on_a_full_disk(
    doctor: Callable[..., Done], checkout: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], check=False, capture_output=True
    ).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        done = doctor(RUNS_DIR=str(small))
        assert done.returncode == 1
        assert "jobs refuse to start" in _lines(done, "fail")
    finally:
        subprocess.run(["umount", small], check=True)


def test_doctor_never_shows_a_credential(doctor: Callable[..., Done], checkout: Path) -> None:
    with open(checkout / ".env", "a") as file:
        file.write(
            "KAGGLE_KEY=s3cr3tk3y\nKAGGEL_KEY=m1stypedk3y\n"
            "KAGGLE_JSON=/nowhere/p4th.json\nexport P4SS w0rd\n"
        )
    done = doctor(KAGGLE_API_TOKEN="t0k3n")
    assert "Kaggle credentials: present" in _lines(done, "ok")
    assert "unknown name KAGGEL_KEY" in _lines(done, "warn")
    assert "is not NAME=value" in _lines(done, "warn")
    for part in ("s3c", "m1s", "t0k", "p4th", "w0rd"):
        assert part not in done.stdout + done.stderr


def test_doctor_knows_what_reaches_the_cluster(doctor: Callable[..., Done], checkout: Path) -> None:
    with open(checkout / ".env", "a") as file:
        file.write("AWS_SECRET_ACCESS_KEY=s3c\nAWS_DEFAULT_REGION=x\nRAY_AUTH_TOKEN=t0k\n")
    (checkout / ".env").chmod(0o644)
    done = doctor()
    assert ".env: every name is known" in _lines(done, "ok")
    assert ".env holds credentials and others can read it" in _lines(done, "warn")
    assert "s3c" not in done.stdout
    assert "t0k" not in done.stdout


def test_doctor_sees_windows_line_ends(doctor: Callable[..., Done], checkout: Path) -> None:
    (checkout / ".env").write_text((checkout / ".env").read_text().replace("\n", "\r\n"))
    assert "Windows line ends" in _lines(doctor(), "fail")


def test_doctor_tells_of_what_killed_runs_left(doctor: Callable[..., Done], checkout: Path) -> None:
    partial = checkout / "runs/.0123.partial"
    partial.touch()
    os.utime(partial, (0, 0))
    (checkout / "runs/logs").mkdir()
    (checkout / "runs/logs/train.jsonl").write_text(
        '{"event": "start", "job": "train", "run": "0a1b2c3d"}\n'
    )
    holder = subprocess.Popen(["flock", checkout / "data/.lock", "sleep", "60"])
    try:
        _wait((checkout / "data/.lock").exists)
        time.sleep(0.2)
        warned = _lines(doctor(), "warn")
    finally:
        holder.kill()
        subprocess.run(["pkill", "-P", str(holder.pid)], check=False)
    assert "1 unfinished files" in warned
    assert "train.jsonl: the last run (0a1b2c3d) has no end" in warned
    assert "data/.lock is held" in warned


def test_audit_offline_tells_the_age_of_the_lock_within_seconds(checkout: Path) -> None:
    os.utime(checkout / "requirements.lock", (time.time() - 100 * 86400,) * 2)
    began = time.monotonic()
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": "/dev/null"}
    done = script(checkout, "audit.sh", **nowhere)
    assert done.returncode == 1
    assert "100 days ago" in done.stdout
    assert time.monotonic() - began < 60


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze here")
    units = []
    for unit in sorted((PROJECT / "deploy/systemd").iterdir()):
        text = unit.read_text()
        (tmp_path / unit.name).write_text(text.replace("/srv/cxr-jobs", str(PROJECT)))
        units.append(tmp_path / unit.name)
    assert [unit.suffix for unit in units] == [".service", ".timer"]
    done = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# A real cron daemon, in a mount namespace of its own: the machine's crontabs and its own cron are
# out of sight.

DAEMON = """
mount -t tmpfs none /run && mount -t tmpfs -o mode=1730 none /var/spool/cron/crontabs &&
mount -t tmpfs none /etc/cron.d &&
: > /run/empty && mount --bind /run/empty /etc/crontab && cp "$1" /var/spool/cron/crontabs/root &&
chmod 600 /var/spool/cron/crontabs/root && exec cron -f
"""


@pytest.fixture
def cron(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Start cron with this crontab of root; everything it started ends with the test."""
    if not shutil.which("cron") or os.getuid() != 0:
        pytest.skip("needs Debian's cron and root")
    if subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "none", "/run"],
        check=False,
    ).returncode:
        pytest.skip("no namespaces can be made here")
    daemons = []

    def start(crontab: str) -> None:
        table = tmp_path / "crontab"
        table.write_text(crontab)
        words = [
            "unshare",
            "--mount",
            "--fork",
            "--pid",
            "--kill-child",
            "sh",
            "-c",
            DAEMON,
            "sh",
            str(table),
        ]
        daemons.append(
            subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )

    yield start
    for daemon in daemons:
        daemon.kill()
        daemon.wait()


def _is_held(lock: Path) -> bool:
    return (
        lock.exists() and subprocess.run(["flock", "-n", lock, "true"], check=False).returncode == 1
    )


@pytest.mark.cron
def test_under_cron_a_second_run_yields_and_a_dead_one_blocks_nobody(
    checkout: Path, tmp_path: Path, cron: Callable[[str], None]
) -> None:
    output, codes = tmp_path / "out/today.csv", tmp_path / "codes"
    # Three lines for the same table at the same minute: the second comes while the first is at
    # work, the third when the first is dead. A file says when, so the test waits for one minute.
    line = f"'{checkout}/deploy/predict.sh' {tmp_path}/inbox {tmp_path}/out/today.csv"
    log = ">>{0}/{1}.out 2>>{0}/{1}.err; echo {1} $? >>{0}/codes"
    after = "until [ -e {0}/{1}.go ]; do sleep 0.1; done"
    minute = time.localtime(time.time() + 2)  # cron needs a second to start
    at = f"{(minute.tm_min + 1) % 60} * * * *"
    cron(
        f"RUNNER=local\nPYTHON={sys.executable}\nPATH={os.environ['PATH']}\n"
        f"{at} {after.format(tmp_path, 'first')}; {line} {log.format(tmp_path, 'first')}\n"
        f"{at} {after.format(tmp_path, 'second')}; {line} {log.format(tmp_path, 'second')}\n"
        f"{at} {after.format(tmp_path, 'third')}; {line} {log.format(tmp_path, 'third')}\n"
    )
    one = film(tmp_path / "inbox/0.png", side=512)
    for number in range(1, 300):
        shutil.copy(one, one.with_name(f"{number}.png"))
    (tmp_path / "first.go").touch()
    _wait(lambda: _is_held(tmp_path / "out/.today.csv.lock"), 75)
    # The first run stands still with its lock held until the second has come and gone, and is then
    # killed outright.
    first = _at_work(checkout)
    os.kill(first, signal.SIGSTOP)
    (tmp_path / "second.go").touch()
    _wait(lambda: codes.exists() and codes.read_text() == "second 75\n")
    assert "another run is working on" in (tmp_path / "second.err").read_text()
    assert not output.exists()
    os.kill(first, signal.SIGKILL)
    _wait(lambda: codes.read_text() == "second 75\nfirst 137\n")
    killed = (tmp_path / "first.err").read_text()
    assert killed == "error: killed (137): out of memory? raise MEMORY in .env\n"
    film(tmp_path / "inbox/later.png")
    # Nobody is held up by the dead run, and the film that came meanwhile is in the table.
    (tmp_path / "third.go").touch()
    _wait(lambda: codes.read_text().endswith("third 0\n"), 75)
    assert len(output.read_text().splitlines()) == 1 + 301
    (told,) = (tmp_path / "third.out").read_text().splitlines()
    assert "301 rows" in told
    others = (tmp_path / "third.err").read_text().splitlines()
    assert all("unlike the training films" in line for line in others)  # noise is no film


def _at_work(checkout: Path) -> int:
    """The one process, as this namespace numbers it, that runs predict_batch in the checkout.

    A process that it is just starting bears its command line too, between fork and exec.
    """
    parents = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            if (
                b"jobs.predict_batch" in words
                and words[0].endswith(b"python")
                and (process / "cwd").resolve() == checkout
            ):
                status = (process / "status").read_text()
                parents[int(process.name)] = int(status.split("PPid:")[1].split()[0])
        except OSError:
            continue
    (first,) = (number for number, parent in parents.items() if parent not in parents)
    return first
