"""Where an answer comes from: class activation maps laid over films, and how much of them lies
outside the lungs.

Source: B. Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016.
"""

import numpy as np
from PIL import Image

# Share of the film's height and width: central field with both lungs on a frontal film; markers,
# shoulders, arms, abdomen and the borders lie outside. Rough on purpose: no segmentation is
# pretended.
LUNG_FIELD = {"top": 0.12, "bottom": 0.85, "left": 0.10, "right": 0.90}
AREA_OUTSIDE = 1 - (LUNG_FIELD["bottom"] - LUNG_FIELD["top"]) * (
    LUNG_FIELD["right"] - LUNG_FIELD["left"]
)
_GRID = 64


def evidence(maps: np.ndarray, number: int) -> np.ndarray:
    """`(h, w)` evidence for class `number` against the mean of all classes, negative parts set to
    0.

    Maps are known up to what all classes share: softmax ignores it, and so does this difference.
    """
    answer: np.ndarray = np.maximum(maps[number] - maps.mean(axis=0), 0)
    return answer


def share_outside_lungs(maps: np.ndarray, number: int) -> float:
    """Share of the evidence for class `number` outside the central lung field, 0 to 1; 0 without
    any evidence.
    """
    grid = _resized(evidence(maps, number), _GRID)
    total = float(grid.sum())
    places = (np.arange(_GRID) + 0.5) / _GRID
    rows = (places > LUNG_FIELD["top"]) & (places < LUNG_FIELD["bottom"])
    columns = (places > LUNG_FIELD["left"]) & (places < LUNG_FIELD["right"])
    inside = float(grid[np.ix_(rows, columns)].sum())
    return 1 - inside / total if total > 0 else 0.0


def overlay(grey: np.ndarray, maps: np.ndarray, number: int) -> Image.Image:
    """The film `(side, side) uint8` in colour: evidence for class `number` in orange, stronger
    where there is more.
    """
    grid = _resized(evidence(maps, number), grey.shape[0])
    strength = (grid / max(float(grid.max()), 1e-9))[..., None]
    film = np.repeat(grey[..., None].astype(np.float32), 3, axis=2)
    colour = np.array([255, 120, 0], np.float32)
    return Image.fromarray(
        (film * (1 - 0.55 * strength) + colour * 0.55 * strength).clip(0, 255).astype(np.uint8)
    )


def _resized(grid: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(
        Image.fromarray(grid.astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR)
    )
