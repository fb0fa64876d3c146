"""Disk space for the feature cache: what is deleted, how many views fit, and filling them."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from lib.network.choices import TAPS, Tap
from lib.run import console
from lib.run.errors import JobError
from lib.storage import atomic
from lib.training.feature_cache import FrozenFeatures
from lib.training.plan import Plan
from lib.workers.cores import usable_memory

AUTO_VIEWS = 4  # most views chosen unasked: more did not change the scores (docs/PERFORMANCE.md)
RESERVE = 500_000_000  # bytes of the disk that stay free


def fill_cache(features: FrozenFeatures, plan: Plan, views: int | None, cache_gb: float) -> int:
    """Compute what the cache lacks for `plan` and return the number of views in it.

    `views` None chooses as many as disk and memory allow; 0 is returned where not even one fits.
    Phase A's pass gives Phase B's activations as well: as many views of them as fit are kept, too.

    Raises:
        JobError: more views were asked for than fit.
    """
    memory = usable_memory()
    room = make_room(features.folder.parent, features.folder, cache_gb)
    room -= features.bytes_of("val", *TAPS)
    per_view = features.bytes_of("train", plan.tap)
    fitting = views_that_fit(min(plan.epochs, AUTO_VIEWS), per_view, room, memory)
    chosen = views or fitting
    if chosen and chosen * per_view > room:
        raise JobError(
            f"{chosen} views per film need {chosen * per_view / 1e6:.0f} MB in "
            f"{features.folder.parent}, {max(room, 0) / 1e6:.0f} MB may be used. Free some space, "
            "or give fewer --views, a larger --cache_gb or --cache off. --restart gives up an "
            "interrupted run that had chosen this number."
        )
    if not chosen:
        console.say(
            f"no view of the films fits into the cache ({per_view / 1e9:.1f} GB needed, "
            f"{max(room, 0) / 1e9:.1f} GB allowed): the frozen layers run in every epoch"
        )
        return 0
    reason = (
        ""
        if views
        else f", chosen for {plan.epochs} epochs, {room / 1e9:.1f} GB of disk, "
        f"{memory / 1e9:.1f} GB of memory"
    )
    console.say(f"{chosen} views per film{reason}")
    _fill(features, plan.tap, chosen, room - chosen * per_view, memory)
    return chosen


def _fill(features: FrozenFeatures, tap: Tap, views: int, room: int, memory: int) -> None:
    """Validation films for both phases, `views` of the training films for `tap`, and for Phase B
    as many as fit into `room` bytes.
    """
    for_phase_b = 0
    if tap == "pooled":
        for_phase_b = views_that_fit(views, features.bytes_of("train", "cut"), room, memory)
    features.fill("val", [(0, name) for name in TAPS], "validation films through the frozen layers")
    wanted: list[tuple[int, Tap]] = [(view, tap) for view in range(1, views + 1)]
    wanted += [(view, "cut") for view in range(1, for_phase_b + 1)]
    features.fill("train", wanted, f"{views} views of the training films through the frozen layers")


def views_that_fit(at_most: int, bytes_per_view: int, room: int, memory: int) -> int:
    """The number of views that fit into `room` bytes of disk and, beyond the first, into half of
    `memory` bytes.

    A cache larger than the memory would be read from the disk again in every epoch.
    """
    on_disk = room // bytes_per_view
    in_memory = max(1, memory // 2 // bytes_per_view)
    return max(0, min(at_most, on_disk, in_memory))


def make_room(root: Path, own: Path, cache_gb: float) -> int:
    """Bytes that the folder `own` may take of the cache `root`: `cache_gb`, or half of the disk's
    free space for 0.

    Folders of other data, weights or settings are deleted, the longest unused first, as far as
    their space is needed. With 0, existing activations in `own` are kept even if the disk has
    become full since.
    """
    atomic.make_folder(own)
    with suppress(OSError):  # a read-only folder is enough where nothing is missing
        os.utime(own)
    others = sorted(
        (path for path in root.iterdir() if path.is_dir() and path != own),
        key=lambda path: path.stat().st_mtime,
    )
    sizes = {path: _size(path) for path in (*others, own)}
    free = shutil.disk_usage(root).free
    limit = int(cache_gb * 1e9) if cache_gb else (free + sum(sizes.values())) // 2
    limit = min(limit, free + sum(sizes.values()) - RESERVE)
    while others and sum(sizes.values()) > limit // 2:
        oldest = others.pop(0)
        shutil.rmtree(oldest, ignore_errors=True)
        del sizes[oldest]
    existing = 0 if cache_gb else sum(path.stat().st_size for path in own.glob("*.f16"))
    return max(existing, limit - sum(sizes[path] for path in others))


def _size(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
