"""Cores: quota and affinity, rounded down."""

import os
from pathlib import Path

import pytest

from lib.workers.cores import cgroup_quota, usable_cores, usable_memory


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


@pytest.mark.parametrize(
    ("content", "cores"),
    [("max 100000", 8), ("150000 100000", 1), ("50000 100000", 1), ("400000 100000", 4)],
)
def test_quota_of_cgroup_v2_is_rounded_down(
    eight_cores: None, tmp_path: Path, content: str, cores: int
) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert usable_cores(root=tmp_path) == cores


def test_quota_of_cgroup_v1(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("250000")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000")
    assert cgroup_quota(tmp_path) == 2.5


def test_the_setting_only_lowers(eight_cores: None, tmp_path: Path) -> None:
    assert usable_cores(3, tmp_path) == 3
    assert usable_cores(99, tmp_path) == 8


def test_the_smallest_quota_on_the_way_to_the_root_holds(eight_cores: None, tmp_path: Path) -> None:
    """A slice of three cores around a container of six, without a limit in between."""
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    inner = root / "jobs.slice/night.slice/container"
    inner.mkdir(parents=True)
    membership.write_text("0::/jobs.slice/night.slice/container\n")
    for folder, cpu, memory in (
        (root / "jobs.slice", "300000 100000", "2000000000"),
        (inner.parent, "max 100000", "max"),
        (inner, "600000 100000", "8000000000"),
    ):
        (folder / "cpu.max").write_text(cpu)
        (folder / "memory.max").write_text(memory)
    assert usable_cores(0, root, membership) == 3
    assert usable_memory(root, Path("/proc/meminfo"), membership) == 2_000_000_000


def test_nested_groups_of_version_1(eight_cores: None, tmp_path: Path) -> None:
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    membership.write_text("4:cpu,cpuacct:/pod/job\n7:memory:/pod/job\n1:name=systemd:/\n")
    for controller, name, value in (
        ("cpu", "cpu.cfs_quota_us", "200000"),
        ("cpu", "cpu.cfs_period_us", "100000"),
        ("memory", "memory.limit_in_bytes", "1000000000"),
    ):
        (root / controller / "pod/job").mkdir(parents=True, exist_ok=True)
        (root / controller / "pod" / name).write_text(value)
    assert usable_cores(0, root, membership) == 2
    assert usable_memory(root, Path("/proc/meminfo"), membership) == 1_000_000_000


def test_a_limit_of_processes_caps_many_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(256)))
    (tmp_path / "pids.max").write_text("512")
    assert usable_cores(0, tmp_path, tmp_path / "none") == 102
    (tmp_path / "pids.max").write_text("max")
    assert usable_cores(0, tmp_path, tmp_path / "none") == 256
