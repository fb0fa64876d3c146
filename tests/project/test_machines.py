"""Machines as they are: other Pythons, tools of macOS, kinds of container engines, old CPUs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.test_deploy import PROJECT, Done, checkout, script

__all__ = ["checkout"]
# What scripts may use everywhere: POSIX, and what macOS brings.
# No timeout, realpath, setpriv, sha256sum, flock, column.
COMMON = [
    "bash",
    "sh",
    "env",
    "awk",
    "sed",
    "grep",
    "sort",
    "head",
    "tail",
    "tr",
    "cut",
    "paste",
    "wc",
    "find",
    "df",
    "date",
    "dirname",
    "basename",
    "cat",
    "cp",
    "cmp",
    "ls",
    "mkdir",
    "mktemp",
    "mv",
    "rm",
    "id",
    "uname",
    "getconf",
    "touch",
    "make",
    "shasum",
    "sleep",
    "chmod",
    "printf",
]


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder of programs without those of GNU and Linux alone."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in COMMON:
        found = shutil.which(name)
        if found:
            (folder / name).symlink_to(found)
    return folder


def _python(folder: Path, name: str, version: str, venv: bool = True) -> None:
    """A stand-in for an interpreter: it has its version, and venv or not."""
    folder.mkdir(parents=True, exist_ok=True)
    hide = "" if venv else "sys.modules['ensurepip'] = None; "
    major, minor = version.split(".")
    code = f"import sys; sys.version_info = ({major}, {minor}, 0); {hide}exec(sys.argv[2])"
    (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}" "$@"\n')
    (folder / name).chmod(0o755)


def find_python(checkout: Path, path: Path, *words: str) -> Done:
    return subprocess.run(
        [checkout / "deploy/python.sh", *words],
        cwd=checkout,
        env={"PATH": str(path), "HOME": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(Path("/usr/local/bin/python3.13").exists(), reason="a Python of its own there")
def test_the_newest_python_that_runs_is_taken(checkout: Path, bare: Path) -> None:
    _python(bare, "python3.11", "3.11")
    _python(bare, "python3.12", "3.12")
    (bare / "python3.13").write_text("#!/bin/sh\nexit 127\n")  # the shim of a version manager
    (bare / "python3.13").chmod(0o755)
    assert find_python(checkout, bare).stdout.strip() == str(bare / "python3.12")
    assert find_python(checkout, bare, "3.11").stdout.strip() == str(bare / "python3.11")
    _python(bare / ".pyenv" / "versions" / "3.13.1" / "bin", "python", "3.13")
    assert find_python(checkout, bare).stdout.strip().endswith("3.13.1/bin/python")


def test_without_a_python_the_message_says_which_and_where_from(checkout: Path, bare: Path) -> None:
    _python(bare, "python3", "3.9")
    done = find_python(checkout, bare)
    assert done.returncode == 1
    assert "3.11, 3.12 or 3.13 with venv is needed" in done.stderr
    assert "apt-get install" in done.stderr


def test_a_python_without_venv_is_named(checkout: Path, bare: Path) -> None:
    _python(bare, "python3", "3.12", venv=False)
    done = find_python(checkout, bare, "3.12")
    assert done.returncode == 1
    assert "python3.12-venv" in done.stderr


def test_an_unsupported_version_is_wrong_usage(checkout: Path, bare: Path) -> None:
    assert find_python(checkout, bare, "3.9").returncode == 2


def test_make_and_doctor_do_without_gnu_tools(checkout: Path, bare: Path) -> None:
    shutil.copy(PROJECT / "Makefile", checkout / "Makefile")
    env = {"PATH": str(bare), "HOME": str(bare)}
    for words in (["make", "help"], ["make", "-n", "clean"], [str(checkout / "deploy/doctor.sh")]):
        done = subprocess.run(
            words, cwd=checkout, env=env, capture_output=True, text=True, check=False
        )
        assert "not found" not in done.stderr, done.stderr
        assert "illegal option" not in done.stderr
    assert "what model.json says" in done.stdout


def _engine(folder: Path, security: str, components: str = "Engine") -> None:
    """A docker command that answers `info` and `version` as an engine of that kind does."""
    (folder / "docker").write_text(
        "#!/bin/sh\n"
        f'case "$*" in *SecurityOptions*) echo "{security}";; *Components*) echo "{components}";;\n'
        '"compose version --short") echo 2.26.1;; esac\n'
    )
    (folder / "docker").chmod(0o755)


@pytest.mark.parametrize(
    ("security", "components", "settings"),
    [
        ("name=seccomp,profile=builtin name=cgroupns", "Engine", []),
        ("name=seccomp name=rootless", "Engine", ["UID=0", "GID=0"]),
        ("name=userns", "Engine", ["USERNS=host"]),
        ("name=selinux", "Engine", ["SELINUX=z"]),
        ("name=rootless name=selinux", "Podman Engine", ["UID=0", "GID=0", "SELINUX=z"]),
    ],
)
def test_doctor_says_what_the_engine_wants(
    checkout: Path, bare: Path, security: str, components: str, settings: list[str]
) -> None:
    _engine(bare, security, components)
    shutil.copy(PROJECT / ".env.example", checkout / ".env")
    more = {"PATH": str(bare), "RUNNER": "docker"}
    before = script(checkout, "doctor.sh", **more).stdout
    for line in settings:
        assert f": set {line} in .env" in before
    if not settings:
        assert ": set " not in before.split("there is no image")[0]
    text = (checkout / ".env").read_text()
    for line in settings:
        name = line.split("=")[0]
        text = "\n".join(line if old.startswith(f"{name}=") else old for old in text.split("\n"))
    (checkout / ".env").write_text(text)
    after = script(checkout, "doctor.sh", **more).stdout
    for line in settings:
        assert f".env has {line}" in after
    assert ("Podman" in after) == (components == "Podman Engine")


@pytest.mark.parametrize(
    ("flags", "said"),
    [("fpu sse4_2", "no AVX2"), ("fpu avx2", "CPU: AVX2"), ("fpu avx2 amx_bf16", "bf16")],
)
def test_doctor_looks_at_the_cpu(checkout: Path, tmp_path: Path, flags: str, said: str) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    done = script(checkout, "doctor.sh", CPUINFO=str(tmp_path / "cpuinfo"))
    (line,) = [line for line in done.stdout.splitlines() if "CPU" in line]
    assert said in line


def test_a_temporary_folder_too_long_for_a_socket_is_one_sentence(
    checkout: Path, tmp_path: Path
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox/a.png").write_text("no film")
    done = script(checkout, "predict.sh", tmp_path / "inbox", tmp_path / "x.csv", TMPDIR=str(deep))
    assert done.returncode == 1
    assert done.stderr.startswith("error: TMPDIR ")
    assert "Set TMPDIR to a shorter path" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_home_that_cannot_be_written_changes_nothing(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    done = script(
        checkout, "predict.sh", tmp_path / "inbox", tmp_path / "x.csv", HOME="/proc/nowhere"
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")
def test_no_room_for_another_process_is_one_sentence(tmp_path: Path) -> None:
    """EAGAIN from the kernel, by a limit that holds for a user who is not root."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv to become a user with a limit")
    code = (
        "import resource, threading; from typing import Annotated\n"
        "from lib.run import execute; from lib.run.flags import Flag\n"
        "def job(*, seed: Annotated[int, Flag(chr(120))] = 0) -> int:\n"
        '    """A job.\n\n    Examples:\n        python -m jobs.job\n    """\n'
        "    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))\n"
        "    threading.Thread(target=print).start()\n"
        "    return 0\n"
        "raise SystemExit(execute.execute(job, []))"
    )
    tmp_path.chmod(0o777)
    done = subprocess.run(
        ["setpriv", "--reuid=54321", "--clear-groups", sys.executable, "-c", code],
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), "RUNS_DIR": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no further process or thread can be started" in done.stderr
