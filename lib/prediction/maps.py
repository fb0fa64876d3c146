"""Class activation maps: the evidence for a class by place, and its share outside the lungs.

Source: B. Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from lib.prediction.prediction import Prediction

if TYPE_CHECKING:  # the module of the lungs loads the inference engine
    from lib.network.lungs import Lungs

# Central field that holds both lungs of a frontal film, in shares of its height and width. Markers,
# shoulders, arms, abdomen and borders lie outside. It is a rectangle, not a segmentation.
LUNG_FIELD = {"top": 0.12, "bottom": 0.85, "left": 0.10, "right": 0.90}
AREA_OUTSIDE = 1 - (LUNG_FIELD["bottom"] - LUNG_FIELD["top"]) * (
    LUNG_FIELD["right"] - LUNG_FIELD["left"]
)
_GRID = 64
OUTLINE = (60, 190, 255)  # RGB, of the lungs
BOX = (255, 210, 60)  # RGB, of the crop


def evidence(maps: NDArray[np.float32], index: int) -> NDArray[np.float32]:
    """`(h, w)` evidence for class `index` against the mean of all classes; negative parts are 0.

    `maps` is `(classes, h, w)`. What all classes have in common does not change a softmax, and the
    difference removes it here as well.
    """
    above_mean: NDArray[np.float32] = np.maximum(maps[index] - maps.mean(axis=0), 0)
    return above_mean


def share_outside_lungs(
    maps: NDArray[np.float32], index: int, lungs: "Lungs | None" = None
) -> float:
    """Share of the evidence for class `index` outside the lungs, 0 to 1; 0 without evidence.

    The lungs are those of the film, where the model crops to them and found any; else `LUNG_FIELD`.
    """
    grid = _resized(evidence(maps, index), _GRID)
    total = float(grid.sum())
    if lungs is not None and lungs.box is not None:
        inside = grid[lungs.mask_in_crop(_GRID)]
    else:
        centres = (np.arange(_GRID) + 0.5) / _GRID
        rows = (centres > LUNG_FIELD["top"]) & (centres < LUNG_FIELD["bottom"])
        columns = (centres > LUNG_FIELD["left"]) & (centres < LUNG_FIELD["right"])
        inside = grid[np.ix_(rows, columns)]
    return 1 - float(inside.sum()) / total if total > 0 else 0.0


def overlay(grey: NDArray[np.uint8], maps: NDArray[np.float32], index: int) -> Image.Image:
    """The film `(side, side)` in colour; the more evidence for class `index`, the more orange."""
    grid = _resized(evidence(maps, index), grey.shape[0])
    strength = (grid / max(float(grid.max()), 1e-9))[..., None]
    film = np.repeat(grey[..., None].astype(np.float32), 3, axis=2)
    colour = np.array([255, 120, 0], np.float32)
    return Image.fromarray(
        (film * (1 - 0.55 * strength) + colour * 0.55 * strength).clip(0, 255).astype(np.uint8)
    )


def evidence_over_film(prediction: Prediction, index: int) -> NDArray[np.uint8]:
    """`overlay` of a film that the network saw, `(side, side, 3)`, with the outline of its lungs
    where the model crops to them.
    """
    over = np.asarray(overlay(prediction.film.grey, prediction.maps, index))
    if prediction.lungs is None:
        return over
    return with_outline(over, prediction.lungs.mask_in_crop(over.shape[0]))


def with_lungs(film: NDArray[np.uint8], lungs: "Lungs") -> NDArray[np.uint8]:
    """A whole film `(side, side)` in colour, with the outline of its lungs and the box of the crop.

    Where no lungs were found it has neither.
    """
    picture = np.repeat(film[..., None], 3, axis=2)
    if lungs.box is None:
        return picture
    side = film.shape[0]
    mask = Image.fromarray(lungs.mask).resize((side, side), Image.Resampling.NEAREST)
    image = Image.fromarray(with_outline(picture, np.asarray(mask)))
    edges = [min(round(edge * side), side - 1) for edge in lungs.crop_box()]
    ImageDraw.Draw(image).rectangle(edges, outline=BOX)
    return np.asarray(image)


def with_outline(picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A picture `(h, w, 3)` with the inner edge of `mask` `(h, w)` drawn in blue."""
    eroded = np.asarray(Image.fromarray(mask.astype(np.uint8)).filter(ImageFilter.MinFilter(3)))
    drawn = picture.copy()
    drawn[mask & (eroded == 0)] = OUTLINE
    return drawn


def _resized(grid: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    return np.asarray(
        Image.fromarray(grid.astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR)
    )
