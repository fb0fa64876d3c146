"""Pictures of more than 8 bits per channel keep their depth; labels do not set their range."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib.images.decode import read_grey
from lib.images.measure import measure
from lib.run.errors import UnreadableFilmError
from tests import formats

FILM = formats.smooth_film((96, 80), seed=4)
GREY = np.asarray(FILM).astype(np.uint16)
PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels → the number in its header


def write_png(path: Path, pixels: np.ndarray, predict: bool = False) -> Path:
    """Pixels `(rows, columns[, channels]) uint16` as a PNG of 16 bits, as Pillow cannot write it.

    `predict` filters every line by its left neighbour, as encoders do.
    """
    deep = np.atleast_3d(pixels)
    rows, columns, channels = deep.shape
    lines = deep.astype(">u2").reshape(rows, -1).view(np.uint8)
    if predict:
        left = np.zeros_like(lines)
        left[:, 2 * channels :] = lines[:, : -2 * channels]
        lines = lines - left
    data = np.concatenate([np.full((rows, 1), int(predict), np.uint8), lines], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", columns, rows, 16, PNG_COLOUR_TYPES[channels], 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for name, body in ((b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")):
        checksum = zlib.crc32(name + body)
        content += struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)
    path.write_bytes(content)
    return path


def write_tiff(
    path: Path, pixels: np.ndarray, order: str = "<", deflate: bool = False, planes: bool = False
) -> Path:
    """Pixels `(rows, columns[, channels]) uint16` as a TIFF of one strip, or one per channel."""
    deep = np.atleast_3d(pixels).astype(f"{order}u2")
    rows, columns, channels = deep.shape
    strips = [deep[..., n] for n in range(channels)] if planes else [deep]
    stored = [zlib.compress(strip.tobytes()) if deflate else strip.tobytes() for strip in strips]
    tags = {256: columns, 257: rows, 259: 8 if deflate else 1, 262: 2 if channels > 2 else 1}
    tags |= {277: channels, 278: rows, 284: 2 if planes else 1}
    if channels in (2, 4):
        tags[338] = 2  # the last channel is alpha
    entries = len(tags) + 3
    room = 8 + 2 + 12 * entries + 4
    ends = np.cumsum([0, *map(len, stored)])
    lists = {258: ("H", [16] * channels), 273: ("I", []), 279: ("I", [*map(len, stored)])}
    start = room + 2 * channels + 2 * 4 * len(stored)
    lists[273] = ("I", [int(start + end) for end in ends[:-1]])
    directory, extra = b"", b""
    for tag in sorted([*tags, *lists]):
        kind, values = lists.get(tag, ("H", [tags.get(tag, 0)]))
        body = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(body) > 4:
            body, extra = struct.pack(f"{order}I", room + len(extra)), extra + body
        head = struct.pack(f"{order}HHI", tag, 3 if kind == "H" else 4, len(values))
        directory += head + body.ljust(4, b"\0")
    extra = extra.ljust(start - room, b"\0")
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, 8)
    head += struct.pack(f"{order}H", entries)
    path.write_bytes(head + directory + bytes(4) + extra + b"".join(stored))
    return path


def _channels(grey: np.ndarray, channels: int, alpha: int = 65535) -> np.ndarray:
    opaque = np.full_like(grey, alpha)
    layers = {1: [grey], 2: [grey, opaque], 3: [grey] * 3, 4: [grey, grey, grey, opaque]}
    return np.stack(layers[channels], axis=2)


def _require_film(path: Path, label: bool = False, most: float = 1) -> None:
    reference = np.asarray(FILM.resize((64, 64), Image.Resampling.BILINEAR, reducing_gap=2.0))
    rows = slice(14 if label else 0, None)
    difference = read_grey(path, 64).astype(int)[rows] - reference.astype(int)[rows]
    assert np.abs(difference).mean() <= most
    assert (measure(path).width, measure(path).height) == FILM.size


WRITERS: list[Callable[[Path, np.ndarray], Path]] = [
    write_png,
    lambda path, pixels: write_png(path, pixels, predict=True),
    write_tiff,
    lambda path, pixels: write_tiff(path, pixels, ">"),
    lambda path, pixels: write_tiff(path, pixels, deflate=True),
    lambda path, pixels: write_tiff(path, pixels, ">", deflate=True),
]
NAMES = ["png", "png-predicted", "tiff", "tiff-big", "tiff-deflate", "tiff-big-deflate"]


@pytest.mark.parametrize("write", WRITERS, ids=NAMES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [10, 12, 14, 15, 16])
@pytest.mark.parametrize("label", [False, True])
def test_a_film_of_any_depth_in_16_bits_is_the_same_film(
    tmp_path: Path,
    write: Callable[[Path, np.ndarray], Path],
    channels: int,
    bits: int,
    label: bool,
) -> None:
    grey = GREY * (257 if bits == 16 else 2 ** (bits - 8))
    if label:
        grey[3:12, 3:14] = 65535
    _require_film(write(tmp_path / "a", _channels(grey, channels)), label)


def test_full_depth_is_kept_where_the_film_uses_a_part_of_it(tmp_path: Path) -> None:
    grey = GREY + 20_000  # 256 levels, which the high bytes alone would reduce to one
    for number, channels in enumerate((1, 2, 3, 4)):
        for write in (write_png, write_tiff):
            shown = read_grey(write(tmp_path / f"{number}", _channels(grey, channels)), 64)
            assert len(np.unique(shown)) <= 3  # less than a twentieth of the depth: blank
    grey = GREY * 24 + 26_000
    for channels in (1, 2, 3, 4):
        for write in (write_png, write_tiff):
            shown = read_grey(write(tmp_path / "a", _channels(grey, channels)), 64)
            assert len(np.unique(shown)) > 150
            assert shown.std() > 40


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_in_planes_of_their_own_are_read_or_refused(tmp_path: Path, channels: int) -> None:
    pixels = _channels(GREY * 16, channels)
    _require_film(write_tiff(tmp_path / "a.tif", pixels, planes=True))
    path = write_tiff(tmp_path / "b.tif", pixels, planes=True, deflate=True)
    if channels == 1:
        _require_film(path)
    else:
        with pytest.raises(UnreadableFilmError, match="planes"):
            read_grey(path, 64)


@pytest.mark.parametrize("write", [write_png, write_tiff])
@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("opaque", [65535, 4095])
def test_transparent_pixels_are_black(
    tmp_path: Path, write: Callable[[Path, np.ndarray], Path], channels: int, opaque: int
) -> None:
    pixels = _channels(GREY * 16, channels, opaque)
    pixels[:, :48, -1] = 0
    shown = read_grey(write(tmp_path / "a", pixels), 64)
    assert (shown[:, :30] == 0).all()
    assert shown[:, 34:].std() > 20


def test_an_orientation_mark_turns_a_deep_film_once(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    deep = Image.fromarray(GREY * 16)
    deep.save(tmp_path / "a.tif", exif=exif)
    deep.save(tmp_path / "a.png", exif=exif)
    deep.save(tmp_path / "b.png")
    upright = read_grey(tmp_path / "b.png", 64)
    assert np.array_equal(read_grey(tmp_path / "a.png", 64), upright[::-1, ::-1])
    assert np.array_equal(read_grey(tmp_path / "a.tif", 64), upright[::-1, ::-1])


@pytest.mark.parametrize("is_first", [True, False])
def test_a_tiff_with_a_thumbnail_is_its_large_page(tmp_path: Path, is_first: bool) -> None:
    pages = [FILM.resize((24, 20)), FILM, FILM.resize((12, 10))]
    pages = pages if is_first else [pages[1], pages[0]]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    _require_film(tmp_path / "a.tif")
    deep = [Image.fromarray(np.asarray(page).astype(np.uint16) * 16) for page in pages]
    deep[0].save(tmp_path / "b.tif", save_all=True, append_images=deep[1:])
    _require_film(tmp_path / "b.tif")


def test_a_marked_thumbnail_of_any_size_is_one_and_two_films_are_refused(tmp_path: Path) -> None:
    marked = FILM.resize((72, 60))
    marked.encoderinfo = {}
    tiff = [FILM, marked]
    tiff[0].save(tmp_path / "two.tif", save_all=True, append_images=tiff[1:])
    with pytest.raises(UnreadableFilmError, match="2 frames"):
        read_grey(tmp_path / "two.tif", 64)
    stored = bytearray((tmp_path / "two.tif").read_bytes())
    second = struct.unpack_from("<I", stored, 8 + 2 + 12 * struct.unpack_from("<H", stored, 8)[0])[
        0
    ]
    place = second + 2
    struct.pack_into("<HHII", stored, place, 254, 4, 1, 1)  # in place of its width …
    struct.pack_into("<HHII", stored, place + 12, 256, 4, 1, 72)  # … which takes that of its height
    with pytest.raises(UnreadableFilmError):
        (tmp_path / "b.tif").write_bytes(stored)
        read_grey(tmp_path / "b.tif", 64)
