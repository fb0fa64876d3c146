"""The order that survives a power loss: content, then name, then folder. Watched with strace."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import environment

CALLS = "trace=fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat"
NEEDED = {
    "file": "atomic.write_text(root / 'a.json', 'x')",
    "table": "atomic.write_csv(root / 'split.csv', ['path'], [{'path': 'a'}])",
    "copy": "(root / 'a').write_text('x'); atomic.copy_file(root / 'a', root / 'b')",
}


def _traced(code: str, root: Path) -> list[str]:
    """The calls of `code` that concern `root`, in order, with paths in the place of numbers."""
    if shutil.which("strace") is None:
        pytest.skip("no strace here")
    trace = root.parent / "trace"
    lines = [
        "from pathlib import Path",
        "from lib.storage import atomic",
        f"root = Path({str(root)!r})",
    ]
    program = "\n".join([*lines, code])
    command = [
        "strace",
        "-f",
        "-qq",
        "-y",
        "-o",
        str(trace),
        "-e",
        CALLS,
        sys.executable,
        "-c",
        program,
    ]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode and "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    return [
        line for line in trace.read_text().splitlines() if str(root) in line and "= -1" not in line
    ]


def _synced(line: str) -> str | None:
    found = re.search(r"\bf(?:data)?sync\(\d+<([^>]+)>\)", line)
    return found[1] if found else None


def _renamed(line: str) -> tuple[str, str] | None:
    found = re.search(r"\brename\w*\(.*?\"([^\"]+)\".*\"([^\"]+)\"", line)
    return (found[1], found[2]) if found else None


@pytest.mark.parametrize("what", NEEDED)
def test_a_file_is_on_the_disk_before_it_takes_its_name_and_the_name_after(
    tmp_path: Path, what: str
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    calls = _traced(NEEDED[what], root)
    (place,) = [number for number, line in enumerate(calls) if _renamed(line)]
    renamed = _renamed(calls[place])
    assert renamed is not None
    assert renamed[0] in [_synced(line) for line in calls[:place]]
    assert str(root) in [_synced(line) for line in calls[place:]]


def test_a_folder_is_on_the_disk_whole_before_it_is_swapped_in_and_before_the_old_one_goes(
    tmp_path: Path,
) -> None:
    root = tmp_path / "root"
    for name in ("model", "new/deep"):
        (root / name).mkdir(parents=True)
        (root / name / "fp32.bin").write_bytes(b"weights")
    calls = _traced("atomic.swap_folder(root / 'new', root / 'model')", root)
    swap = next(
        number for number, line in enumerate(calls) if (_renamed(line) or ("",))[0].endswith("/new")
    )
    before = [_synced(line) for line in calls[:swap]]
    for part in ("new/deep/fp32.bin", "new/deep", "new"):
        assert str(root / part) in before
    deletion = next(number for number, line in enumerate(calls) if "unlink" in line)
    assert str(root) in [_synced(line) for line in calls[swap:deletion]]


def test_a_second_copy_by_hard_links_is_synced_as_well(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "source").mkdir(parents=True)
    (root / "source/model.json").write_text("{}")
    calls = _traced("atomic.copy_folder(root / 'source', root / 'copy')", root)
    swap = next(
        number
        for number, line in enumerate(calls)
        if (_renamed(line) or ("", ""))[1].endswith("/copy")
    )
    before = [_synced(line) or "" for line in calls[:swap]]
    assert any(path.endswith("/model.json") for path in before)
    assert str(root) in [_synced(line) for line in calls[swap:]]
