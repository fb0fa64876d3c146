"""Which stored values of a film are black and white, where no header says so.

The values decide, not the declared depth: 12 bits are often stored in files that say 16, and labels
burned in at the largest number must not darken the film.
"""

import numpy as np

_DEPTHS = range(8, 17)  # bits that films are stored with
_MOST_VALUES = 1_000_000  # of which quantiles are taken
_FILLS_DECLARED = 0.6  # share of a depth's range from which the whole range is the grey scale
_FILLS_PICTURE = 0.25  # the same for pictures, which somebody has scaled to be looked at
_SHOWS_SOMETHING = 0.05  # share of a depth's range below which a film is blank: not stretched
_LABEL_SHARE = 0.05  # of the pixels, at most: labels and lead markers burned into a film
_LABEL_GAP = 0.75  # between film and label, as a share of the film's own range


def display_range(
    values: np.ndarray, bits: int | None = None, is_signed: bool = False
) -> tuple[float, float]:
    """Black and white of the integers `values`, any shape, without padding.

    The range of the declared `bits` if the film fills it, else of the smallest depth that holds
    the film if the film fills that, else the film's own (0.5 % to 99.5 %). Labels are left out.
    Pictures declare no `bits`.
    """
    fills = _FILLS_DECLARED if bits else _FILLS_PICTURE
    low, high, top = _film_ends(sample(values))
    is_signed &= low < 0
    if bits:
        first, last = _depth_range(bits, is_signed)
        if bits <= 8 or high - low >= fills * (last - first):
            return first, last
    for depth in _DEPTHS:
        first, last = _depth_range(depth, is_signed)
        if first <= low and top <= last:
            share = (high - low) / (last - first)
            if depth == 8 or share >= fills or share < _SHOWS_SOMETHING:
                return first, last
            break
    return low, high


def sample(values: np.ndarray) -> np.ndarray:
    """At most a million of `values`, evenly spread; shape `(n,)`."""
    flat: np.ndarray = values.reshape(-1)
    return flat[:: max(-(-flat.size // _MOST_VALUES), 1)]


def _depth_range(bits: int, is_signed: bool) -> tuple[float, float]:
    return (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if is_signed else (0.0, 2.0**bits - 1)


def _film_ends(values: np.ndarray) -> tuple[float, float, float]:
    """Quantiles 0.5, 99.5 and 99.9 % of a film's values `(n,)`, without burned-in labels."""
    ordered = np.sort(values)
    film = ordered[_label_size(-ordered[::-1]) : ordered.size - _label_size(ordered)]
    low, high, top = np.quantile(film, [0.005, 0.995, 0.999])
    return float(low), float(high), float(top)


def _label_size(ordered: np.ndarray) -> int:
    """How many values at the upper end belong to a label: at most 5 %, far from all others.

    `ordered` are ascending values `(n,)`. Text drawn with smooth edges has a few values between.
    """
    most = int(_LABEL_SHARE * ordered.size)
    if most < 1:
        return 0
    body = float(ordered[-most - 1]) - float(ordered[most])
    step = max(most // 10, 1)
    for size in range(most, 0, -step):
        inner, outer = (
            ordered[-size - 1],
            ordered[min(ordered.size - size - 1 + step, ordered.size - 1)],
        )
        if float(outer) - float(inner) > _LABEL_GAP * max(body, 1.0):
            return size
    return 0
