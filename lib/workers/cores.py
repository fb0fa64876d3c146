"""How many cores and how much memory this process may really use, inside a container or outside.

A limit may be set on any control group on the way from the root to the one this process is in
(a slice of systemd, a pod around a container): the smallest one holds.
"""

import os
from collections.abc import Iterator
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
# Processes and threads that a core costs: a reading process, and a thread each of the job's two
# frameworks and of NumPy in the job and in the reading process.
_TASKS_PER_CORE = 5


def _groups(controller: str, root: Path, membership: Path) -> Iterator[Path]:
    """Folders of the control groups that this process is in: version 2 and `controller` of 1."""
    yield root
    yield root / controller
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controller if controllers else root
        group = base / path.lstrip("/")
        # Inside a container, the path may be the host's: its folders are not there.
        yield from (folder for folder in (group, *group.parents) if base in folder.parents)


def _limits(controller: str, name: str, root: Path, membership: Path) -> Iterator[int]:
    """The numbers in the files `name` of those groups; groups without a limit say "max" or -1."""
    for folder in _groups(controller, root, membership):
        try:
            limit = int((folder / name).read_text())
        except (OSError, ValueError):
            continue
        if limit > 0:
            yield limit


def cgroup_quota(root: Path = CGROUP, membership: Path = MEMBERSHIP) -> float | None:
    """Cores granted by CPU quotas (v2 `cpu.max`, v1 `cpu.cfs_quota_us`), None without one."""
    quotas = []
    for folder in _groups("cpu", root, membership):
        try:
            quota, period = (folder / "cpu.max").read_text().split()
            quotas.append(int(quota) / int(period))
        except (OSError, ValueError):
            pass
        try:
            granted = int((folder / "cpu.cfs_quota_us").read_text())
            if granted > 0:
                quotas.append(granted / int((folder / "cpu.cfs_period_us").read_text()))
        except (OSError, ValueError):
            pass
    return min(quotas, default=None)


def usable_cores(wanted: int = 0, root: Path = CGROUP, membership: Path = MEMBERSHIP) -> int:
    """Whole cores to compute with, at least 1; `wanted` > 0 lowers it further.

    The affinity mask and the quota, rounded down, and as many as the limit of processes
    (`pids_limit` of a container) leaves room for.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota = cgroup_quota(root, membership)
    if quota is not None:
        cores = min(cores, int(quota))
    tasks = min(_limits("pids", "pids.max", root, membership), default=None)
    if tasks is not None:
        cores = min(cores, tasks // _TASKS_PER_CORE)
    if wanted > 0:
        cores = min(cores, wanted)
    return max(1, cores)


def usable_memory(
    root: Path = CGROUP,
    meminfo: Path = Path("/proc/meminfo"),
    membership: Path = MEMBERSHIP,
) -> int:
    """Bytes of memory: the machine's, or less where a control group has a limit (v2 `memory.max`,
    v1 `memory.limit_in_bytes`).
    """
    limits = [
        limit
        for name in ("memory.max", "memory.limit_in_bytes")
        for limit in _limits("memory", name, root, membership)
    ]
    try:
        total = next(
            line for line in meminfo.read_text().splitlines() if line.startswith("MemTotal:")
        )
        limits.append(int(total.split()[1]) * 1024)
    except (OSError, StopIteration):
        if "SC_PHYS_PAGES" in os.sysconf_names:  # macOS has no /proc
            limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(limits, default=4 << 30)
