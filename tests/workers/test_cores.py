"""Cores: quota and affinity, rounded down."""

import os
from pathlib import Path

import pytest

from lib.workers.cores import cgroup_quota, usable_cores


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
