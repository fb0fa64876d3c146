"""Shards on a file system that cannot allocate space, such as NFS before version 4.2."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import environment

PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from lib.training.activation_store import ActivationStore

store = ActivationStore([Path(sys.argv[1])], "001_cut", (4,))
for begin in (0, 3):
    keys = [bytes([number]) * 32 for number in range(begin, begin + 3)]
    shard = store.writer(3)
    shard.append(keys, np.full((3, 4), begin, np.float16))
    shard.sync()
print(store.locate([bytes([number]) * 32 for number in range(6)]).read(range(6))[:, 0].tolist())
"""


def test_a_file_system_that_cannot_allocate_takes_new_rows_and_keeps_the_old(
    tmp_path: Path,
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("no strace here")
    refuse = ["-f", "-qq", "-o", "/dev/null", "-e", "inject=fallocate:error=EOPNOTSUPP"]
    command = ["strace", *refuse, sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode and "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[0.0, 0.0, 0.0, 3.0, 3.0, 3.0]\n"
