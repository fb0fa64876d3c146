"""One file → one grey array: opening, measuring and shrinking films in whatever container they come."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import kornia_rs
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION

from lib.images import dicom
from lib.run.errors import UnreadableFilmError

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "JPEG2000", "PPM", "GIF")
ANY_SIZE = 2**40  # pixels: for films that the ingest job let in under its own limit
MAX_PIXELS = 200_000_000  # a 14k x 14k film; the default of --max_megapixels
LARGEST_FILE = (
    4 * 2**30
)  # bytes; films of MAX_PIXELS take less, a sparse file of terabytes costs its sender nothing
TOO_LARGE_FILE = "file is larger than 4 GB, which no film is"
LOW_CONTRAST = 6.0  # standard deviation of grey levels below which a film shows nothing
DHASH_SIDE = (
    16  # 256 bits: at 64 bits, films of different patients have been seen to collide at distance 0
)
_PLAIN_PNG = {"L": "mono", "RGB": "rgb", "RGBA": "rgba"}  # Pillow's mode → kornia-rs's
_WIDE = ("I", "I;16", "I;16B", "I;16L", "F")  # Pillow's modes of more than 8 bits
_WHITE_IS_ZERO = 0  # TIFF; Pillow minds it up to 8 bits
_FRACTIONS_END = 2.0
_ORIENTATION_MARKS = (
    b"eXIf",
    b"profile type exif",
    b"XML:com.adobe.xmp",
)  # chunks that may say which side is up

warnings.filterwarnings("ignore", module="PIL")  # Pillow warns of odd but readable metadata
Image.MAX_IMAGE_PIXELS = None  # our own limit is checked below, with a message that names it


@dataclass(frozen=True)
class Measurements:
    """What a file shows of itself when it is opened and fully decoded."""

    width: int
    height: int
    mode: str
    dhash: str
    tint: float  # mean difference between the strongest and the weakest colour channel, 0 to 255
    brightness: float  # mean grey level, 0 to 255
    contrast: float  # standard deviation of the grey levels


NOT_MEASURED = Measurements(0, 0, "", "", 0.0, 0.0, 0.0)


def read_grey(path: Path, side: int, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a film to `(side, side) uint8`, 0 black to 255 white.

    Colour is dropped: a tint tells which hospital photographed its films, not what the lungs look like. The aspect
    ratio is given up as well, since half of the public films come already squeezed to a square.

    Raises:
        UnreadableFilmError: not an image, truncated, too large, several frames; a DICOM file that is no chest film.
    """
    with _explained(path):
        if _is_dicom(path):
            image = Image.fromarray(dicom.read(path, max_pixels)[0])
            return np.asarray(
                image.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
            )
        with _opened(path, max_pixels) as image:
            return np.asarray(
                _decode(image, side).resize(
                    (side, side), Image.Resampling.BILINEAR, reducing_gap=2.0
                )
            )


def measure(path: Path, max_pixels: int = MAX_PIXELS) -> Measurements:
    """Open and decode a film; its size and mode as stored, a perceptual hash, tint, brightness and contrast.

    Raises:
        UnreadableFilmError: as `read_grey`.
    """
    with _explained(path):
        if _is_dicom(path):
            levels, bits = dicom.read(path, max_pixels)
            grey, mode = Image.fromarray(levels), "L" if bits <= 8 else "I;16"
            (width, height), tint = grey.size, 0.0
        else:
            with _opened(path, max_pixels) as image:
                (width, height), mode = image.size, image.mode
                grey = _decode(image, 8 * DHASH_SIDE)
            tint = _tint(path, mode, max_pixels)
        levels = np.asarray(
            grey.resize((8 * DHASH_SIDE,) * 2, Image.Resampling.BOX, reducing_gap=2.0)
        )
        shown = round(float(levels.mean()), 2), round(float(levels.std()), 2)
        return Measurements(width, height, mode, dhash(grey), tint, *shown)


def _tint(path: Path, mode: str, max_pixels: int) -> float:
    if mode in ("L", "1", "LA") or mode.startswith(("I", "F")):
        return 0.0
    with _opened(path, max_pixels) as image:
        if image.format == "JPEG":
            image.draft("RGB", (32, 32))
        small = image.convert("RGB").resize((32, 32), Image.Resampling.BOX)
    channels = np.asarray(small, dtype=np.float32)
    return round(float((channels.max(axis=2) - channels.min(axis=2)).mean()), 2)


def dhash(image: Image.Image) -> str:
    """Difference hash of a grey image as 64 hexadecimal digits (256 bits): is each cell brighter than its left one?

    Same film re-encoded, resized or re-exposed: a Hamming distance of a few bits. Different films: 18 and more.
    Source: N. Krawetz, "Kind of Like That", hackerfactor.com, 2013.
    """
    cells = np.asarray(
        image.resize((DHASH_SIDE + 1, DHASH_SIDE), Image.Resampling.LANCZOS), dtype=np.int16
    )
    return np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes().hex()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Whatever a hostile file makes the decoders raise becomes one kind of error."""
    try:
        if not path.is_file():
            raise UnreadableFilmError(describe_non_file(path))
        if path.stat().st_size == 0:
            raise UnreadableFilmError("file is empty")
        if path.stat().st_size > LARGEST_FILE:
            raise UnreadableFilmError(TOO_LARGE_FILE)
        yield
    except UnreadableFilmError:
        raise
    except UnidentifiedImageError:
        raise UnreadableFilmError(
            f"not an image in a known format (DICOM, {', '.join(FORMATS)})"
        ) from None
    except MemoryError:
        raise UnreadableFilmError("decoding it takes more memory than a film needs") from None
    except (
        Exception
    ) as error:  # struct.error, SyntaxError, TypeError …: decoders meet damage in many ways
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnreadableFilmError(
            f"damaged or unreadable: {reason or type(error).__name__}"
        ) from error


def _is_dicom(path: Path) -> bool:
    with open(path, "rb") as file:
        return dicom.is_dicom(file.read(dicom.HEAD))


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[ImageFile]:
    """Open a film and check its header."""
    with Image.open(path, formats=FORMATS) as image:
        if image.format == "TIFF":
            _require_whole_tiff(image)
            image.filename = ""  # else Pillow maps the file, with sides exchanged where an orientation mark turns the film
        width, height = image.size
        if width * height > max_pixels:
            raise UnreadableFilmError(
                f"{width} x {height} pixels are more than the limit of {max_pixels:,}"
            )
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format not in ("JPEG", "MPO"):
            raise UnreadableFilmError(f"holds {frames} frames; one film per file is needed")
        yield image


def _require_whole_tiff(image: ImageFile) -> None:
    """Refuse a height that the strips do not fill: Pillow leaves the rest black and calls it a film."""
    right, bottom = (
        max((tile.extents[place] for tile in image.tile if tile.extents), default=0)
        for place in (2, 3)
    )
    if right * bottom < image.width * image.height:
        raise UnreadableFilmError("damaged: its strips end before the picture does")


def describe_non_file(path: Path) -> str:
    """Why something that is no regular file cannot be read."""
    if path.is_dir():
        return "link to a folder is not followed" if path.is_symlink() else "folder cannot be read"
    return "not a regular file" if path.exists() else "file not found (or a broken link)"


def is_link(path: Path) -> bool:
    """Whether `path` is a symbolic link; not, where that cannot be known: a folder that may be listed and not entered."""
    try:
        return path.is_symlink()
    except OSError:
        return False


def leads_out(path: Path, folder: Path) -> bool:
    """Whether `path` is a link to something outside `folder`, which is resolved."""
    return is_link(path) and not Path(os.path.realpath(path)).is_relative_to(folder)


def _decode(image: ImageFile, wanted_side: int) -> Image.Image:
    """Decode to mode L; a JPEG only as large as needed (DCT scaling), which still reads and checks its every byte."""
    if image.format == "JPEG" and image.mode in ("L", "RGB"):
        image.draft("L", (wanted_side, wanted_side))
    plain = _plain_png(image)
    if plain is not None:
        return plain
    is_negative = (
        image.mode in _WIDE
        and getattr(image, "tag_v2", {}).get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO
    )
    image.load()
    grey = _to_grey(ImageOps.exif_transpose(image))
    return ImageOps.invert(grey) if is_negative else grey


def _plain_png(image: ImageFile) -> Image.Image | None:
    """A PNG of 8-bit channels without anything else to mind, decoded by kornia-rs at twice Pillow's speed.

    None where it is not one, or is damaged: Pillow then reads what can be read, or tells what is wrong.
    """
    if image.format != "PNG" or image.mode not in _PLAIN_PNG or image.tile[0].args != image.mode:
        return None
    if "transparency" in image.info or image.info.get("interlace"):
        return None
    data = Path(os.fsdecode(image.filename)).read_bytes()
    if any(mark in data for mark in _ORIENTATION_MARKS):
        return None
    try:
        pixels = kornia_rs.io.decode_image_png_u8(data, image.size[::-1], _PLAIN_PNG[image.mode])
    except Exception:  # whatever it was, Pillow finds it as well and words it for the person
        return None
    return _to_grey(Image.fromarray(pixels[..., 0] if image.mode == "L" else pixels))


def _to_grey(image: Image.Image) -> Image.Image:
    if image.mode in _WIDE:
        return Image.fromarray(_to_eight_bits(np.asarray(image, dtype=np.float64)))
    if image.mode == "P" or "A" in image.mode:
        layers = image.convert("RGBA")
        black = Image.new("RGBA", layers.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, layers).convert("L")
    if image.mode == "CMYK":
        image = image.convert("RGB")
    return image.convert("L")


def _to_eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Scale 8 to 16 stored bits to 8: full scale is the smallest usual bit depth that holds the brightest pixel.

    Numbers below zero were shifted or normalised by somebody: their own range is the scale then.
    """
    darkest, brightest = float(pixels.min(initial=0.0)), float(pixels.max(initial=0.0))
    if not np.isfinite([darkest, brightest]).all():
        raise ValueError("pixels are not finite numbers")
    full_scale = next(
        (2**bits - 1 for bits in (8, 10, 12, 14, 16) if brightest <= 2**bits - 1), brightest
    )
    if brightest <= _FRACTIONS_END and np.any(
        pixels % 1
    ):  # floats in 0..1; some resampling shoots a little beyond
        full_scale = max(brightest, 1.0)
    if darkest < 0:
        pixels, full_scale = pixels - darkest, brightest - darkest
    return np.clip(np.rint(pixels * (255.0 / full_scale)), 0, 255).astype(np.uint8)


def is_passed_over(name: str) -> bool:
    """Whether a file `folder/name` is no input: hidden, in a hidden folder, or an operating system's own."""
    *_, last = parts = name.split("/")
    return any(part.startswith(".") for part in parts) or last.lower() in (
        "thumbs.db",
        "desktop.ini",
        "dicomdir",
    )


def find_files(root: Path) -> tuple[list[Path], int]:
    """Every file below `root` in a stable order, and how many hidden or operating-system files were passed over.

    A file is found once: folders behind symbolic links are not entered. A folder that cannot be listed is found in
    place of its files, so that reading it tells the reason.
    """
    found: list[Path] = []
    passed_over = 0
    for path in _walk(root):
        if is_passed_over(path.name):
            passed_over += 1
        else:
            found.append(path)
    return sorted(found, key=lambda path: path.relative_to(root).as_posix()), passed_over


def _walk(root: Path) -> Iterator[Path]:
    closed: list[Path] = []
    for parent, folders, names in os.walk(
        root, onerror=lambda error: closed.append(Path(error.filename))
    ):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names)
        yield from (Path(parent, name) for name in folders if is_link(Path(parent, name)))
    yield from closed
