"""Disk space for the feature cache: what is deleted, how many views fit, and filling them."""

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

from lib.network.choices import TAPS, Tap
from lib.run import console
from lib.run.errors import JobError
from lib.storage import atomic
from lib.training.activation_store import delete_shard
from lib.training.feature_cache import FrozenFeatures, Wanted
from lib.training.plan import Plan
from lib.workers.cores import usable_memory

AUTO_VIEWS = 4  # most views chosen unasked: more did not change the scores (docs/PERFORMANCE.md)
ABANDONED_SECONDS = 3600.0  # after which nobody is making these graphs any more
RESERVE = 500_000_000  # bytes of the disk that stay free


def fill_cache(features: FrozenFeatures, plan: Plan, views: int | None, cache_gb: float) -> int:
    """Compute what the cache lacks for `plan` and return the number of views in it.

    `views` None chooses as many as disk and memory allow; 0 is returned where not even one fits.
    `views` 0, of an interrupted run for which none fitted, leaves the cache as it is.
    Phase A's pass gives Phase B's activations as well: as many views of them as fit are kept, too.

    Raises:
        JobError: more views were asked for than fit.
    """
    if views == 0:
        console.say("this run began without a cached view: the frozen layers run in every epoch")
        return 0
    memory, most = usable_memory(), views or min(plan.epochs, AUTO_VIEWS)
    validation = Wanted(features.films["val"], [(0, tap) for tap in TAPS])
    training = [_training(features, plan.tap, view) for view in range(1, most + 1)]
    for_phase_b = [_training(features, "cut", view) for view in range(1, most + 1)]
    room = make_room(features, [validation, *training, *for_phase_b], cache_gb)
    room -= features.lacking_bytes(validation)
    lacking = [features.lacking_bytes(view) for view in training]
    per_view = features.bytes_of("train", plan.tap)
    chosen = views or views_that_fit(lacking, per_view, room, memory)
    needed = sum(lacking[:chosen])
    if needed > max(room, 0):
        raise JobError(
            f"{chosen} views per film need {needed / 1e6:.0f} MB more in "
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
    also = 0
    if plan.tap == "pooled":
        lacking = [features.lacking_bytes(view) for view in for_phase_b[:chosen]]
        also = views_that_fit(lacking, features.bytes_of("train", "cut"), room - needed, memory)
    _fill(features, validation, [*training[:chosen], *for_phase_b[:also]], chosen)
    return chosen


def _training(features: FrozenFeatures, tap: Tap, view: int) -> Wanted:
    return Wanted(features.films["train"], [(view, tap)])


def _fill(
    features: FrozenFeatures, validation: Wanted, training: Sequence[Wanted], views: int
) -> None:
    features.fill(validation, "validation films through the frozen layers")
    every = Wanted(features.films["train"], [view for one in training for view in one.views])
    features.fill(every, f"{views} views of the training films through the frozen layers")


def views_that_fit(lacking: Sequence[int], bytes_per_view: int, room: int, memory: int) -> int:
    """The number of views that fit. Of each view `lacking` bytes must fit into `room` bytes of
    disk, and all views beyond the first into half of `memory` bytes.

    A cache larger than the memory would be read from the disk again in every epoch.
    """
    on_disk = sum(total <= max(room, 0) for total in accumulate(lacking))
    in_memory = max(1, memory // 2 // bytes_per_view)
    return min(on_disk, in_memory)


def make_room(features: FrozenFeatures, wanted: Sequence[Wanted], cache_gb: float) -> int:
    """Bytes that may be added to the cache of `features`: within `cache_gb`, or within half of the
    disk's free space for 0.

    What is not of the films, weights and settings of `wanted` is deleted, the longest unused first,
    as far as its space is needed.
    """
    own = features.folder
    atomic.make_folder(own)
    with suppress(OSError):  # a read-only folder is enough where nothing is missing
        os.utime(own)
    needed = features.lacking_bytes(*wanted)
    shards = [shard.path for shard in features.unused(*wanted)]
    return free_room(own.parent, [*_others(own), *_abandoned(own), *shards], needed, cache_gb)


def _others(own: Path) -> list[Path]:
    """The folders of other weights or settings."""
    return [path for path in own.parent.iterdir() if path.is_dir() and path != own]


def _abandoned(own: Path) -> list[Path]:
    """What killed runs left of graphs that they were making."""
    partial = own.glob(f".*{atomic.PARTIAL}")
    return [path for path in partial if time.time() - path.stat().st_mtime > ABANDONED_SECONDS]


def free_room(root: Path, deletable: Sequence[Path], needed: int, cache_gb: float) -> int:
    """Delete of `deletable`, folders and shards below `root`, what must go for `needed` bytes.

    What another run is writing stays. Returns the bytes that may be added then, which may be fewer.
    """
    used, free = _size(root), shutil.disk_usage(root).free
    limit = int(cache_gb * 1e9) if cache_gb else (free + used) // 2
    limit = min(limit, free + used - RESERVE)
    for path in sorted(deletable, key=lambda path: path.stat().st_mtime):
        if used + needed <= limit:
            break
        used -= _freed(path)
    return limit - used


def _freed(path: Path) -> int:
    """Delete a folder or a shard. Returns its bytes; 0 where the lock of the folder cannot be had,
    because another run writes to it or because nobody can.
    """
    size = _size(path)
    try:
        with atomic.lock(path if path.is_dir() else path.parent, "the feature cache"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                delete_shard(path)
    except JobError:
        return 0
    return size


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_blocks * 512 for file in files if file.is_file())
