"""What the lung segmenter learns from: films with masks, adults without, generated films, and
pictures without lungs.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from lib.dataset import chest, synthetic

STORED = 160  # pixels; a quarter more than the network takes, so that a zoom does not blur
HELD_OUT_CHILDREN = 0.15  # share of the patients
HELD_OUT_ADULTS = 0.15  # share of the films
LUNGLESS_KINDS = (
    *("blank", "noise", "plot", "page", "slice", "slice", "limb", "limb", "hand", "hand"),
    *("photograph", "bare mask", "beside lungs", "beside lungs"),
)
_PATIENT = re.compile(r"(person\d+|NORMAL2-IM-\d+|IM-\d+)")
_KERMANY = re.compile(r"^(person\d+_|IM-|NORMAL2-IM-)")


@dataclass(frozen=True)
class Films:
    """Films and their masks, one row each.

    `grey` `(N, 160, 160) uint8`. `target` `(N, 2, 160, 160) uint8`, 0 or 255: lungs, and lung
    fields without the heart. `known` `(N, 2) bool`: which of the two is known of the film.
    `lungless` `(N,) bool`: a picture that is no chest film.
    """

    grey: np.ndarray
    target: np.ndarray
    known: np.ndarray
    lungless: np.ndarray

    @staticmethod
    def joined(parts: "Iterable[Films]") -> "Films":
        rows = [(part.grey, part.target, part.known, part.lungless) for part in parts]
        return Films(*(np.concatenate(column) for column in zip(*rows, strict=True)))

    def rows(self, index: np.ndarray) -> "Films":
        """The films of these row numbers."""
        return Films(self.grey[index], self.target[index], self.known[index], self.lungless[index])

    def at_side(self, side: int = 128) -> np.ndarray:
        """The targets at the side that the network gives, `(N, 2, side, side) uint8`."""
        size, method = (side, side), Image.Resampling.BOX
        small = [
            [np.asarray(Image.fromarray(mask).resize(size, method)) for mask in masks]
            for masks in self.target
        ]
        return np.array(small, np.uint8)

    def __len__(self) -> int:
        return len(self.grey)


def patient_of(name: str) -> str:
    """The patient that a file name of the Kermany collection tells."""
    match = _PATIENT.match(name)
    if match is None:
        raise ValueError(
            f"{name} does not tell its patient; expected personN, IM-N or NORMAL2-IM-N"
        )
    return match.group()


def held_out(key: str, share: float) -> bool:
    """Whether a patient or a file is kept from training: by its digest, the same on every run."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) < share * 2**32


def read_grey(path: Path, side: int = STORED) -> np.ndarray:
    """A film squeezed to a square, `(side, side) uint8`."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L").resize((side, side), Image.Resampling.BOX))


def read_children(folder: Path, most: int | None = None) -> tuple[Films, Films, list[Path]]:
    """Films with masks, for training and held out by patient, and the paths of the latter.

    `most`: read the first films alone.
    """
    parts: tuple[list[Films], list[Films]] = ([], [])
    kept = []
    for path in sorted(folder.glob("*.jpg"))[:most]:
        grey = read_grey(path)
        lungs = read_grey(path.with_suffix(".png")) > 127
        normal = path.name.startswith(("IM-", "NORMAL2-"))
        fields = fields_without_heart(grey, lungs) if normal else np.zeros_like(lungs)
        apart = held_out(patient_of(path.name), HELD_OUT_CHILDREN)
        parts[apart].append(_one(grey, lungs, fields, known=(True, normal)))
        kept += [path] if apart else []
    return Films.joined(parts[0]), Films.joined(parts[1]), kept


def _one(
    grey: np.ndarray,
    lungs: np.ndarray,
    fields: np.ndarray,
    known: tuple[bool, bool] = (True, True),
    lungless: bool = False,
) -> Films:
    target = np.stack([lungs, fields]).astype(np.uint8) * 255
    return Films(grey[None], target[None], np.array([known]), np.array([lungless]))


def fields_without_heart(grey: np.ndarray, lungs: np.ndarray) -> np.ndarray:
    """The lungs' mask without heart and great vessels, on a film without disease.

    The two grey levels inside the mask are told apart by Otsu's threshold on the film without
    ribs (smoothed); what is bright and reaches the inner edge of a lung is heart.
    """
    weight = ndimage.gaussian_filter(lungs.astype(np.float32), (5, 2)) + 1e-6
    smooth = ndimage.gaussian_filter(np.where(lungs, grey, 0).astype(np.float32), (5, 2)) / weight
    bright = lungs & (smooth > _otsu(smooth[lungs]))
    inner = _between(lungs) & ndimage.binary_dilation(lungs, iterations=2)
    labels, _ = ndimage.label(bright | inner)
    heart = np.isin(labels, np.setdiff1d(np.unique(labels[inner]), [0])) & lungs
    column = np.arange(lungs.shape[1])[None]
    inwards = ndimage.distance_transform_edt(~inner) < 0.3 * np.ptp(column[:, lungs.any(0)])
    heart &= inwards  # bright shoulder blades stay
    rows = np.flatnonzero(lungs.any(1))
    heart[: rows[0] + (rows[-1] - rows[0]) // 5] = False  # the apices stay
    return ndimage.binary_opening(
        lungs & ~ndimage.binary_opening(heart, iterations=2), iterations=2
    )


def _between(lungs: np.ndarray) -> np.ndarray:
    """What lies between the outer edges of the mask in each row and is no lung."""
    left = np.maximum.accumulate(lungs, 1)
    right = np.maximum.accumulate(lungs[:, ::-1], 1)[:, ::-1]
    between: np.ndarray = left & right & ~lungs
    return between


def _otsu(values: np.ndarray) -> float:
    """The threshold with the largest variance between the two classes (Otsu 1979)."""
    counts, edges = np.histogram(values, 64)
    below = np.cumsum(counts)
    total = np.cumsum(counts * edges[:-1])
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (total / below - (total[-1] - total) / above) ** 2
    return float(edges[int(np.nanargmax(between)) + 1])


def read_adults(folders: Iterable[Path]) -> tuple[list[Path], np.ndarray]:
    """Films of adults, without masks: those that are no copy of a Kermany film."""
    found: dict[str, list[Path]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
                found.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), []).append(path)
    copies = found.values()
    paths = sorted(c[0] for c in copies if not any(_KERMANY.match(path.name) for path in c))
    return paths, np.stack([read_grey(path) for path in paths])


def generated_films(count: int, seed: int) -> Films:
    """Phantoms with their lungs; what lies behind the heart is not known of them."""
    parts = []
    for number in range(count):
        seeds = (seed, number), (seed, number, 1)
        label = synthetic.CLASSES[number % 3]
        grey = synthetic.draw(label, *seeds)
        rng, anatomy = (np.random.default_rng(key) for key in seeds)
        soft, _ = chest.thorax(*chest.pose(rng), anatomy)
        small = Image.fromarray(grey).resize((STORED, STORED), Image.Resampling.BOX)
        fields = Image.fromarray(soft).resize((STORED, STORED), Image.Resampling.BOX)
        lungs = np.asarray(fields) > 0.4
        parts.append(_one(np.asarray(small), lungs, lungs, known=(False, True)))
    return Films.joined(parts)


def lungless_pictures(films: Films, count: int, seed: int) -> Films:
    """Pictures without lungs: drawn ones, photographs, bare masks, parts of films."""
    rng = np.random.default_rng(seed)
    photographs = _photographs()
    kinds: list[Callable[[], np.ndarray]] = [
        lambda: _blank(rng),
        lambda: _noise(rng),
        lambda: _plot(rng),
        lambda: _page(rng),
        lambda: _slice(rng),
        lambda: _slice(rng),
        lambda: _limb(rng),
        lambda: _limb(rng),
        lambda: _hand(rng),
        lambda: _hand(rng),
        lambda: _photograph(photographs, rng),
        lambda: _bare_mask(films, rng),
        lambda: _beside_lungs(films, rng),
        lambda: _beside_lungs(films, rng),
    ]
    none = np.zeros((STORED, STORED), bool)
    grey = [np.clip(kinds[i % len(kinds)](), 0, 255).astype(np.uint8) for i in range(count)]
    return Films.joined(_one(picture, none, none, lungless=True) for picture in grey)


def _smooth_noise(rng: np.random.Generator, cells: float) -> np.ndarray:
    """Noise with about `cells` blobs across the picture, in 0 to 1."""
    noise = ndimage.gaussian_filter(rng.standard_normal((STORED, STORED)), STORED / cells / 3)
    noise -= noise.min()
    scaled: np.ndarray = noise / max(float(noise.max()), 1e-9)
    return scaled


def _blank(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256) + rng.uniform(-60, 60) * _smooth_noise(rng, rng.uniform(0.5, 3))


def _noise(rng: np.random.Generator) -> np.ndarray:
    mixed = _smooth_noise(rng, rng.uniform(2, 40)) + rng.random() * _smooth_noise(rng, 8)
    return 128 * mixed + rng.normal(0, rng.uniform(0, 40), mixed.shape)


def _canvas(level: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("L", (STORED, STORED), level)
    return image, ImageDraw.Draw(image)


def _plot(rng: np.random.Generator) -> np.ndarray:
    image, draw = _canvas(255)
    left, top, right, bottom = (
        int(v) for v in (*rng.integers(8, 40, 2), *rng.integers(120, 155, 2))
    )
    draw.rectangle((left, top, right, bottom), outline=0)
    for _ in range(int(rng.integers(1, 9))):
        shade = int(rng.integers(0, 220))
        x, y = sorted(rng.integers(left, right, 2)), sorted(rng.integers(top, bottom, 2))
        if rng.random() < 0.5:
            draw.rectangle((x[0], y[0], x[1] + 1, y[1] + 1), fill=shade)
        else:
            line = np.cumsum(rng.normal(0, 4, 20)) + (top + bottom) / 2
            draw.line([(left + i * (right - left) / 19, v) for i, v in enumerate(line)], fill=shade)
    for _ in range(int(rng.integers(2, 10))):
        draw.text(tuple(rng.integers(0, 140, 2)), str(rng.integers(0, 999)), fill=0)
    return np.asarray(image, np.float32)


def _page(rng: np.random.Generator) -> np.ndarray:
    dark = rng.random() < 0.3
    image, draw = _canvas(0 if dark else 255)
    for row in range(int(rng.integers(0, 30)), 150, int(rng.integers(8, 16))):
        words = " ".join("".join(rng.choice(list("etaoinsrhd"), 5)) for _ in range(6))
        draw.text((int(rng.integers(0, 20)), row), words, fill=255 if dark else 0)
    return np.asarray(image, np.float32)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[-1 : 1 : STORED * 1j, -1 : 1 : STORED * 1j]
    return x, y


def _ellipse(centre: tuple[float, float], radii: tuple[float, float], edge: float) -> np.ndarray:
    x, y = _grid()
    distance = np.hypot((x - centre[0]) / radii[0], (y - centre[1]) / radii[1])
    inside: np.ndarray = 1 / (1 + np.exp(np.clip((distance - 1) / edge, -30, 30)))
    return inside


def _slice(rng: np.random.Generator) -> np.ndarray:
    """A slice as CT shows it: body, often two lungs with vessels, spine, breast bone."""
    wide, tall = rng.uniform(0.75, 1.2), rng.uniform(0.55, 1.0)
    body = _ellipse((0, 0), (wide, tall), 0.02)
    picture = rng.uniform(120, 230) * body
    if rng.random() < 0.8:
        lungs = np.zeros_like(body)
        for side in (-1, 1):
            centre = (side * wide * rng.uniform(0.42, 0.5), rng.uniform(-0.1, 0.1))
            radii = (wide * rng.uniform(0.28, 0.38), tall * rng.uniform(0.55, 0.78))
            lungs = np.maximum(lungs, _ellipse(centre, radii, 0.03))
        vessels = _smooth_noise(rng, rng.uniform(12, 40)) > rng.uniform(0.65, 0.8)
        picture = picture * (1 - lungs) + lungs * (rng.uniform(5, 80) + 150 * vessels)
        heart = (rng.uniform(0.05, 0.2), rng.uniform(-0.25, 0.0))
        picture += (rng.uniform(150, 220) - picture) * _ellipse(
            heart, (0.3 * wide, 0.4 * tall), 0.05
        )
    else:
        picture += 60 * (_smooth_noise(rng, rng.uniform(5, 15)) - 0.5) * body
    picture += 90 * _ellipse((0, tall * 0.65), (0.14, 0.14), 0.08)
    ring = _ellipse((0, 0), (wide, tall), 0.02) - _ellipse((0, 0), (wide * 0.96, tall * 0.95), 0.02)
    picture = picture - rng.uniform(0, 90) * ring
    return (
        picture
        + rng.normal(0, 8, picture.shape)
        + (rng.uniform(0, 200) if rng.random() < 0.1 else 0)
    )


def _bone(
    picture: np.ndarray, start: np.ndarray, end: np.ndarray, width: float, gain: float
) -> None:
    """Add flesh and a bone between two points, in coordinates of -1 to 1."""
    x, y = _grid()
    along = end - start
    share = ((x - start[0]) * along[0] + (y - start[1]) * along[1]) / max(
        float(along @ along), 1e-6
    )
    share = np.clip(share, 0, 1)
    distance = np.hypot(x - start[0] - share * along[0], y - start[1] - share * along[1])
    np.maximum(picture, 0.45 * gain * (distance < width * 1.9), out=picture)
    shaft = 1 + 0.5 * (np.abs(share - 0.5) * 2) ** 4  # the ends are wider
    bone = np.clip(1.2 - distance / (width * shaft), 0, 1) ** 0.5
    np.maximum(picture, gain * (0.45 + 0.55 * bone) * (bone > 0), out=picture)


def _limb(rng: np.random.Generator) -> np.ndarray:
    """Two or more long bones, a joint, sometimes a skull or a pelvis of ellipses."""
    picture = np.zeros((STORED, STORED))
    for _ in range(int(rng.integers(1, 5))):
        start, end = rng.uniform(-1.2, 1.2, 2), rng.uniform(-1.2, 1.2, 2)
        _bone(picture, start, end, rng.uniform(0.06, 0.25), rng.uniform(130, 255))
    for _ in range(int(rng.integers(0, 3))):
        centre, radii = rng.uniform(-0.6, 0.6, 2), rng.uniform(0.2, 0.7, 2)
        shell = _ellipse(tuple(centre), tuple(radii), 0.03) - 0.5 * _ellipse(
            tuple(centre), tuple(radii * 0.9), 0.06
        )
        np.maximum(picture, rng.uniform(100, 250) * shell, out=picture)
    picture *= 0.8 + 0.4 * _smooth_noise(rng, rng.uniform(4, 20))
    return ndimage.gaussian_filter(picture, rng.uniform(0.5, 2)) + rng.normal(0, 5, picture.shape)


def _hand(rng: np.random.Generator) -> np.ndarray:
    """A hand: five rays of four bones, a wrist."""
    picture = np.zeros((STORED, STORED))
    wrist, size = np.array([rng.uniform(-0.2, 0.2), rng.uniform(0.4, 0.8)]), rng.uniform(0.6, 1.0)
    for finger, angle in enumerate(np.linspace(-0.65, 0.65, 5) * rng.uniform(0.6, 1.3)):
        heading = np.array([np.sin(angle), -np.cos(angle)])
        start, gain = wrist + 0.08 * heading, rng.uniform(150, 240)
        for length in (0.55, 0.36, 0.24, 0.18):
            end = start + heading * length * size * (0.75 if finger in (0, 4) else 1.0)
            _bone(picture, start, end, 0.045 * size, gain)
            start = end + 0.02 * heading
    for side in (-1, 1):
        offset = np.array([side * 0.12 * size, 0.0])
        _bone(picture, wrist + offset, wrist + offset + np.array([0, 0.9]), 0.09 * size, 210)
    picture *= 0.8 + 0.4 * _smooth_noise(rng, rng.uniform(4, 20))
    return ndimage.gaussian_filter(picture, rng.uniform(0.5, 1.5)) + rng.normal(0, 5, picture.shape)


def _photographs() -> list[np.ndarray]:
    from sklearn.datasets import load_sample_images

    return [image.mean(2).astype(np.uint8) for image in load_sample_images().images]


def _photograph(photographs: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    photograph = photographs[int(rng.integers(len(photographs)))]
    side = int(rng.integers(100, min(photograph.shape)))
    top, left = (int(rng.integers(0, size - side + 1)) for size in photograph.shape)
    crop = Image.fromarray(photograph[top : top + side, left : left + side])
    return np.asarray(crop.resize((STORED, STORED), Image.Resampling.BILINEAR), np.float32)


def _bare_mask(films: Films, rng: np.random.Generator) -> np.ndarray:
    """A mask as a picture of its own, as collections carry them beside their films."""
    lungs = films.target[int(rng.integers(len(films))), 0].astype(np.float32)
    lungs = ndimage.gaussian_filter(lungs, rng.uniform(0, 1.5))
    return 255 - lungs if rng.random() < 0.4 else lungs * rng.uniform(0.4, 1.0)


def _beside_lungs(films: Films, rng: np.random.Generator) -> np.ndarray:
    """A square of a film that shows no lung, enlarged; a blank where none is found."""
    for _ in range(40):
        index, side = int(rng.integers(len(films))), int(rng.integers(28, 80))
        top, left = (int(value) for value in rng.integers(0, STORED - side, 2))
        window = np.s_[top : top + side, left : left + side]
        if films.target[index, 0][window].mean() < 1 and films.grey[index][window].std() > 8:
            crop = Image.fromarray(films.grey[index][window])
            return np.asarray(crop.resize((STORED, STORED), Image.Resampling.BICUBIC), np.float32)
    return _blank(rng)
