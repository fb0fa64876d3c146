"""Batches for the lung segmenter: films of `Films`, moved, exposed and damaged as films come."""

import io
import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from tools.lung_films import Films
from tools.lung_net import ORIENTATIONS, SIDE

TURNED = 0.15  # share of films turned by a quarter, a half or three quarters
INVERTED = 0.08
COMPRESSED = 0.3
ALWAYS_WHOLE = 0.35  # share of films that are augmented at full strength to the end
LUNGLESS = ORIENTATIONS.index("no lungs")


def batch_of(
    films: Films, rows: np.ndarray, rng: torch.Generator, strength: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Augmented films `(B, 1, 128, 128)` in 0 to 255, targets `(B, 2, 128, 128)` in 0 to 1 and
    orientations `(B,)`.

    `strength` scales every change but quarter turns and inversion; 0 leaves the others out. A share
    of the films keeps the full strength.
    """
    grey = torch.from_numpy(films.grey[rows]).float()[:, None]
    target = torch.from_numpy(films.target[rows]).float() / 255
    turns = _turns(len(rows), rng)
    strengths = torch.where(_chance(len(rows), ALWAYS_WHOLE, rng), 1.0, strength)
    grey, target = _moved(grey, target, turns, rng, strengths)
    grey = _exposed(_shaded(grey, rng, strengths), rng, strengths)
    grey = _compressed(_blurred(_marked(grey, rng, strengths), rng, strengths), rng, strengths)
    lungless = torch.from_numpy(films.lungless[rows])
    return grey, target, torch.where(lungless, LUNGLESS, turns)


def upright_views(grey: np.ndarray) -> tuple[Tensor, Callable[[Tensor], Tensor], Tensor]:
    """Films `(N, s, s) uint8` as the network takes them, plain; a function that brings masks of
    the second view back; and the second view: smaller, tilted, darker, of lower contrast.
    """
    films = torch.from_numpy(grey).float()[:, None]
    size = [len(films), 1, SIDE, SIDE]
    angle, scale = 0.1, 1.15
    cos, sin = math.cos(angle), math.sin(angle)
    there = torch.tensor([[scale * cos, -scale * sin, 0.03], [scale * sin, scale * cos, -0.02]])
    linear = torch.linalg.inv(there[:, :2])
    back = torch.cat([linear, -linear @ there[:, 2:]], 1)

    def grid(theta: Tensor) -> Tensor:
        whole = theta.expand(len(films), 2, 3)
        return functional.affine_grid(whole, size, align_corners=False)

    plain = functional.interpolate(films, (SIDE, SIDE), mode="bilinear", antialias=True)
    second = functional.grid_sample(plain, grid(there), padding_mode="border", align_corners=False)
    second = 200 * (second / 255) ** 1.5 + 10
    return plain, lambda m: functional.grid_sample(m, grid(back), align_corners=False), second


def _turns(count: int, rng: torch.Generator) -> Tensor:
    turned = torch.rand(count, generator=rng) < TURNED
    return torch.where(turned, torch.randint(1, 4, (count,), generator=rng), 0)


def _uniform(count: int, low: float, high: float, rng: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, 1, 1, 1, generator=rng)


def _chance(count: int, share: float | Tensor, rng: torch.Generator) -> Tensor:
    return torch.rand(count, 1, 1, 1, generator=rng) < share


def _moved(
    grey: Tensor, target: Tensor, turns: Tensor, rng: torch.Generator, strength: Tensor
) -> tuple[Tensor, Tensor]:
    """Scale each axis, rotate, shift. What comes in from outside is black, white, grey or the
    film's edge drawn out.
    """
    count = len(grey)

    def draw(low: float, high: float) -> Tensor:
        return _uniform(count, low, high, rng).flatten()

    strength = strength.flatten()
    angle = strength * draw(-0.22, 0.22) * (draw(0, 1) < 0.7) + turns * (math.pi / 2)
    scale = torch.exp(strength * draw(-0.25, 0.55))  # above 1: smaller lungs
    stretch = torch.exp(strength * draw(-0.16, 0.16))
    sx, sy = scale * stretch, scale / stretch
    cos, sin = torch.cos(angle), torch.sin(angle)
    room = strength * 0.12 + 0.6 * (scale - 1).clamp(min=0)
    row_x = torch.stack([sx * cos, -sx * sin, room * draw(-1, 1)], 1)
    row_y = torch.stack([sy * sin, sy * cos, room * draw(-1, 1)], 1)
    theta = torch.stack([row_x, row_y], 1)
    grid = functional.affine_grid(theta, [count, 1, SIDE, SIDE], align_corners=False)
    drawn_out = functional.grid_sample(grey, grid, padding_mode="border", align_corners=False)
    inside = (grid.abs() <= 1).all(3)[:, None] | _chance(count, 0.4, rng)
    level = _uniform(count, -80, 335, rng).clamp(0, 255)
    moved = functional.grid_sample(target, grid, padding_mode="zeros", align_corners=False)
    return torch.where(inside, drawn_out, level), moved


def _field(count: int, cells: int, rng: torch.Generator) -> Tensor:
    """Smooth fields of unit deviation with `cells` knots per side."""
    knots = torch.randn(count, 1, cells, cells, generator=rng)
    return functional.interpolate(knots, (SIDE, SIDE), mode="bilinear", align_corners=True)


def _shaded(grey: Tensor, rng: torch.Generator, strength: Tensor) -> Tensor:
    """Uneven exposure, and now and then a soft opacity as disease or a breast throws it."""
    count = len(grey)
    grey = grey * (1 + strength * _uniform(count, 0, 0.22, rng) * _field(count, 3, rng))
    opacity = _field(count, 6, rng).clamp(min=0) * _uniform(count, 0, 60, rng)
    return grey + strength * opacity * _chance(count, 0.4, rng)


def _exposed(grey: Tensor, rng: torch.Generator, strength: Tensor) -> Tensor:
    count = len(grey)
    gamma = torch.exp(strength * _uniform(count, -0.7, 0.7, rng))
    grey = 255 * (grey.clamp(0, 255) / 255) ** gamma
    contrast = torch.exp(strength * _uniform(count, -0.9, 0.5, rng))
    shift = strength * _uniform(count, -50, 50, rng)
    grey = ((grey - 128) * contrast + 128 + shift).clamp(0, 255)
    return torch.where(_chance(count, INVERTED, rng), 255 - grey, grey)


def _marked(grey: Tensor, rng: torch.Generator, strength: Tensor) -> Tensor:
    """Borders, markers and covered rectangles; those that reach into the lungs stay small."""
    places = torch.arange(SIDE)
    count = len(grey)
    for share, small, large in ((0.25, 3, 30), (0.25, 3, 30), (0.15, 10, 40)):
        corner = torch.randint(-10, SIDE, (count, 2), generator=rng)
        size = torch.randint(small, large, (count, 2), generator=rng)
        low, high = corner[..., None], (corner + size)[..., None]
        spans = (places >= low) & (places < high)
        patch = (spans[:, 0, :, None] & spans[:, 1, None, :])[:, None]
        level = _uniform(count, -100, 355, rng).clamp(0, 255)
        grey = torch.where(patch & _chance(count, strength * share, rng), level, grey)
    border = torch.randint(0, 14, (count, 4, 1), generator=rng)
    rows = (places < border[:, 0]) | (places >= SIDE - border[:, 1])
    columns = (places < border[:, 2]) | (places >= SIDE - border[:, 3])
    frame = (rows[:, :, None] | columns[:, None, :])[:, None]
    level = torch.where(_chance(count, 0.6, rng), 0.0, _uniform(count, 0, 255, rng))
    return torch.where(frame & _chance(count, strength * 0.2, rng), level, grey)


def _blurred(grey: Tensor, rng: torch.Generator, strength: Tensor) -> Tensor:
    count = len(grey)
    soft = functional.avg_pool2d(grey, 3, 1, 1, count_include_pad=False)
    amount = strength * _uniform(count, -0.5, 1, rng)  # below 0: sharper
    noise = torch.randn(grey.shape, generator=rng) * _uniform(count, 0, 12, rng)
    return torch.lerp(grey, soft, amount) + strength * noise * _chance(count, 0.5, rng)


def _compressed(grey: Tensor, rng: torch.Generator, strength: Tensor) -> Tensor:
    """Whole grey levels, and for a share the losses of JPEG."""
    levels = grey.clamp(0, 255).round().byte()
    chosen = torch.rand(len(grey), generator=rng) < strength.flatten() * COMPRESSED
    for row in torch.nonzero(chosen).flatten().tolist():
        file = io.BytesIO()
        quality = int(torch.randint(15, 80, (1,), generator=rng))
        Image.fromarray(levels[row, 0].numpy()).save(file, "JPEG", quality=quality)
        levels[row, 0] = torch.from_numpy(np.asarray(Image.open(file)).copy())
    return levels.float()
