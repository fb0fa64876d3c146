"""The lungs on a film: their mask, the box around them, and how the film is turned.

The segmenter is a small network in lib/network/lung_model. tools/train_lungs.py trains it, and
lungs.json records how. Its input is the film squeezed to a square; boxes are fractions of the
sides of the film.
"""

import hashlib
import json
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lib.network.openvino import core, ov
from lib.run.errors import JobError

FOLDER = Path(__file__).parent / "lung_model"
FILES = ("lungs.xml", "lungs.bin", "lungs.json")
SIDE = 128  # pixels of the network's square input and of its masks
ORIENTATIONS = ("upright", "turned 90", "turned 180", "turned 270", "no lungs")
THRESHOLD = 0.5  # probability from which a pixel is lung

# The plausibility rule: what falls below any of these is no pair of lungs.
LEAST_AREA = 0.03  # of the film, both lungs together
LARGEST_AREA = 0.85
LEAST_SHARE = 0.02  # of the larger lung: smaller components are no second lung
LEAST_SIDE = 0.12  # of the film's side, width and height of the box
LEAST_CERTAINTY = 0.75  # mean probability inside the mask
MOST_LUNGLESS = 0.5  # probability of "no lungs"

Box = tuple[float, float, float, float]  # left, top, right, bottom as fractions of the sides


@dataclass(frozen=True)
class Lungs:
    """What the segmenter sees on one film.

    `mask` `(128, 128) bool` has the lungs with what lies behind the heart, `fields` without it;
    both cover the whole film, squeezed to a square. `box` encloses `mask`; None when no plausible
    lungs were found, and both masks are empty then. `orientation` is one of ORIENTATIONS, the
    turns counter-clockwise in degrees; `certainty` the mean probability inside the mask.
    """

    mask: np.ndarray
    fields: np.ndarray
    box: Box | None
    orientation: str
    certainty: float

    def crop_box(self, margin: float = 0.06) -> Box:
        """The box with a margin on each edge, a fraction of the film's side; the whole film where
        no lungs were found.
        """
        if self.box is None:
            return (0.0, 0.0, 1.0, 1.0)
        left, top, right, bottom = self.box
        return (
            max(0.0, left - margin),
            max(0.0, top - margin),
            min(1.0, right + margin),
            min(1.0, bottom + margin),
        )

    def mask_in_crop(self, side: int) -> np.ndarray:
        """`mask` on the film that is cropped to `crop_box`, `(side, side) bool`."""
        left, top, right, bottom = (edge * SIDE for edge in self.crop_box())
        levels = Image.fromarray(self.mask.astype(np.float32))
        resized = levels.resize((side, side), Image.Resampling.BILINEAR, (left, top, right, bottom))
        inside: np.ndarray = np.asarray(resized) > 0.5
        return inside


class LungFinder:
    """The compiled segmenter. Several threads may use it: each has a request of its own.

    It computes in fp32, a film on one core, so that a film has the same box on every machine.

    Raises:
        JobError: the shipped files are missing or changed.
    """

    def __init__(self, threads: int = 1, folder: Path = FOLDER) -> None:
        """`threads` is the number of films that are computed at the same time."""
        _checked_record(folder)
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
            "ENABLE_CPU_PINNING": False,
        }
        self._compiled = core().compile_model(str(folder / "lungs.xml"), "CPU", settings)
        self._own = threading.local()

    def find(self, grey: np.ndarray) -> Lungs:
        """Find the lungs on a film `(h, w) uint8`."""
        return self.find_all([grey])[0]

    def find_all(self, films: Sequence[np.ndarray]) -> list[Lungs]:
        """Find the lungs on films `(h, w) uint8` of any sizes, computed as one batch."""
        if not films:
            return []
        batch = np.stack([_squeezed(grey) for grey in films])[:, None]
        request = self._request_of_this_thread()
        request.set_input_tensor(ov.Tensor(batch))
        request.infer(share_outputs=True)  # in this thread, without copies
        masks, turns = (request.get_tensor(name).data for name in ("masks", "orientation"))
        return [_judged(*both) for both in zip(masks, turns, strict=True)]

    def _request_of_this_thread(self) -> Any:
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        return self._own.request


def segmenter_digest(folder: Path = FOLDER) -> str:
    """SHA-256 that identifies the weights and the graph of a segmenter.

    Raises:
        JobError: the files are missing or changed.
    """
    files = _checked_record(folder)["files"]
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def copy_segmenter(folder: Path, digest: str) -> None:
    """Copy the program's segmenter into a model folder.

    Raises:
        JobError: the model was trained with another segmenter than that of this program.
    """
    require_segmenter(digest)
    for name in FILES:
        shutil.copyfile(FOLDER / name, folder / name)


def require_segmenter(digest: str) -> None:
    """Refuse to crop training films with another segmenter than the one that `digest` names.

    Raises:
        JobError: the program's segmenter is another one.
    """
    if segmenter_digest() != digest:
        raise JobError(
            "the films were cropped with another lung segmenter than that of this program: use the "
            "version of the program that trained the checkpoint, on every node, or train again."
        )


def _checked_record(folder: Path) -> dict[str, Any]:
    """Read lungs.json and hold the files beside it against their digests."""
    remedy = "Install the program again."
    try:
        record: dict[str, Any] = json.loads((folder / "lungs.json").read_text())
        for name, expected in record["files"].items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected:
                raise JobError(f"{folder / name} differs from its digest. {remedy}")
    except (OSError, ValueError, KeyError) as error:
        raise JobError(
            f"the lung segmenter in {folder} cannot be read: {error}. {remedy}"
        ) from error
    return record


def _squeezed(grey: np.ndarray) -> np.ndarray:
    """The film as the network takes it, `(128, 128) uint8`."""
    if grey.ndim != 2 or grey.dtype != np.uint8:
        raise ValueError(f"a film must be (h, w) uint8, not {grey.shape} {grey.dtype}")
    if grey.shape == (SIDE, SIDE):
        return grey
    resized = Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BILINEAR, None, 1.5)
    return np.asarray(resized)


def _judged(masks: np.ndarray, turns: np.ndarray) -> Lungs:
    lungless = turns[-1] > MOST_LUNGLESS
    found = None if lungless else plausible_lungs(masks[0])
    if found is None:
        empty = np.zeros((SIDE, SIDE), bool)
        return Lungs(empty, empty, None, ORIENTATIONS[int(turns.argmax())], 0.0)
    orientation = ORIENTATIONS[int(turns[:-1].argmax())]
    fields = found.mask & (masks[1] > THRESHOLD)
    return Lungs(found.mask, fields, found.box, orientation, found.certainty)


@dataclass(frozen=True)
class PlausibleLungs:
    """A mask `(128, 128) bool` that can be that of lungs, with its box and `Lungs.certainty`."""

    mask: np.ndarray
    box: Box
    certainty: float


def plausible_lungs(probability: np.ndarray) -> PlausibleLungs | None:
    """The one or two largest components of a mask `(128, 128)`, filled; None where they are no
    plausible lungs.

    A single component is accepted: on films with an opaque lung the other is all that is seen,
    and lungs that touch are one component.
    """
    found = probability > THRESHOLD
    window = _window_of(found)  # all that follows costs time per pixel
    if window is None:
        return None
    labels, count = _components(found[window])
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    areas[0] = 0
    largest = np.argsort(areas)[::-1][:2]
    is_lung = np.zeros(count + 1, bool)
    is_lung[largest] = areas[largest] > LEAST_SHARE * areas[largest[0]]
    background, count = _components(~is_lung[labels])
    is_outside = np.zeros(count + 1, bool)  # what does not reach the window's edge is a hole
    for edge in (background[0], background[-1], background[:, 0], background[:, -1]):
        is_outside[edge] = True
    is_outside[0] = False
    lungs = np.zeros(found.shape, bool)
    lungs[window] = ~is_outside[background]
    left, top, right, bottom = box = box_of(lungs)
    area = np.count_nonzero(lungs)
    certainty = float(probability.sum(where=lungs)) / area
    plausible = (
        LEAST_AREA <= area / lungs.size <= LARGEST_AREA
        and min(right - left, bottom - top) >= LEAST_SIDE
        and certainty >= LEAST_CERTAINTY
    )
    return PlausibleLungs(lungs, box, certainty) if plausible else None


def _components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The number of each pixel's component from 1 on, 0 outside of `mask`; how many there are.

    Pixels that touch at a corner alone are apart.
    """
    from scipy import ndimage  # 40 MB that a model without a crop does not need

    labels, count = ndimage.label(mask)
    return labels, count


def _window_of(mask: np.ndarray) -> tuple[slice, slice] | None:
    """Rows and columns of the smallest window with all pixels of a mask; None of an empty one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def box_of(mask: np.ndarray) -> Box:
    """The box around the pixels of a mask, as fractions of its sides.

    Raises:
        ValueError: the mask is empty.
    """
    window = _window_of(mask)
    if window is None:
        raise ValueError("an empty mask has no box")
    rows, columns = window
    height, width = mask.shape
    return (columns.start / width, rows.start / height, columns.stop / width, rows.stop / height)
