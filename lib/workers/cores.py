"""The number of cores and the memory that this process may use, also inside a container."""

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def cgroup_quota(root: Path = CGROUP) -> float | None:
    """Cores of the container's CPU quota (cgroup v2 `cpu.max`, v1 `cpu.cfs_quota_us`), or None."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        quota_us = int((root / "cpu/cpu.cfs_quota_us").read_text())
        return (
            None if quota_us <= 0 else quota_us / int((root / "cpu/cpu.cfs_period_us").read_text())
        )
    except (OSError, ValueError):
        return None


def usable_cores(wanted: int = 0, root: Path = CGROUP) -> int:
    """Whole cores to compute with: affinity mask and quota, rounded down, at least 1.

    `wanted` > 0 is an upper limit.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota = cgroup_quota(root)
    if quota is not None:
        cores = min(cores, int(quota))
    if wanted > 0:
        cores = min(cores, wanted)
    return max(1, cores)


def usable_memory(root: Path = CGROUP, meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes of memory: the machine's, or the container's limit (cgroup v1 and v2) if lower."""
    limits = []
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limits.append(int((root / name).read_text()))
        except (OSError, ValueError):  # no such version, or "max"
            continue
    try:
        total = next(
            line for line in meminfo.read_text().splitlines() if line.startswith("MemTotal:")
        )
        limits.append(int(total.split()[1]) * 1024)
    except (OSError, StopIteration):
        pass
    return min(limits, default=4 << 30)
