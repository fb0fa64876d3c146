"""Files into grey arrays: every container, every pixel format, and what is refused."""

import contextlib
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from lib.images.decode import decode_film, read_grey
from lib.images.files import find_files
from lib.images.measure import measure
from lib.run.errors import UnreadableFilmError
from tests.conftest import ODD_FILES, film

PICTURE = np.asarray(Image.effect_mandelbrot((160, 120), (-2, -1.2, 1, 1.2), 60).convert("L"))


@pytest.fixture
def reference(tmp_path: Path) -> np.ndarray:
    Image.fromarray(PICTURE).save(tmp_path / "reference.png")
    return read_grey(tmp_path / "reference.png", 64)


def _save(mode: str, path: Path, **options: Any) -> Path:
    image = Image.fromarray(PICTURE)
    if mode == "I;16":
        image = Image.fromarray(PICTURE.astype(np.uint16) * 257)
    elif mode == "12 bits":
        image = Image.fromarray((PICTURE.astype(np.uint32) * 4095 // 255).astype(np.uint16))
    elif mode == "P":
        image = image.convert("P")
    elif mode != "L":
        image = image.convert(mode)
    image.save(path, **options)
    return path


def test_a_square_remembers_the_proportions_of_its_film(tmp_path: Path) -> None:
    path = _save("L", tmp_path / "a.png")
    decoded = decode_film(path, 64)
    assert (decoded.grey.shape, decoded.aspect) == ((64, 64), 160 / 120)
    turned = Image.Exif()
    turned[0x0112] = 6
    _save("L", tmp_path / "b.jpg", exif=turned)
    assert decode_film(tmp_path / "b.jpg", 64).aspect == 120 / 160


@pytest.mark.parametrize(
    ("mode", "name", "tolerance"),
    [
        ("L", "a.png", 0),
        ("L", "a.PNG", 0),
        ("L", "a.bmp", 0),
        ("L", "a.tif", 0),
        ("L", "a.pgm", 0),
        ("LA", "la.png", 1),
        ("RGB", "rgb.png", 1),
        ("RGBA", "rgba.png", 1),
        ("P", "palette.png", 1),
        ("P", "palette.gif", 1),
        ("I;16", "sixteen.png", 1),
        ("I;16", "sixteen.tif", 1),
        ("12 bits", "twelve.png", 1),
        ("CMYK", "cmyk.tif", 3),
        ("L", "grey.jpg", 8),
        ("RGB", "colour.jpg", 8),
        ("CMYK", "cmyk.jpg", 10),
        ("RGB", "a.webp", 12),
        ("L", "a.jp2", 8),
    ],
)
def test_the_same_film_looks_the_same_in_any_container(
    tmp_path: Path, reference: np.ndarray, mode: str, name: str, tolerance: int
) -> None:
    options = {"quality": 95} if name.endswith((".jpg", ".webp")) else {}
    grey = read_grey(_save(mode, tmp_path / name, **options), 64)
    assert grey.dtype == np.uint8
    assert grey.shape == (64, 64)
    assert np.abs(grey.astype(int) - reference).mean() <= tolerance


def test_a_wrong_extension_does_not_matter(tmp_path: Path, reference: np.ndarray) -> None:
    path = _save("L", tmp_path / "film.jpg", format="PNG")
    assert np.array_equal(read_grey(path, 64), reference)


def test_a_progressive_jpeg_is_read(tmp_path: Path, reference: np.ndarray) -> None:
    path = _save("L", tmp_path / "p.jpg", progressive=True, quality=95)
    assert np.abs(read_grey(path, 64).astype(int) - reference).mean() < 8


def test_a_film_is_turned_by_its_exif_orientation(tmp_path: Path, reference: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    path = _save("L", tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_grey(path, 64), reference[::-1, ::-1])


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("mark", range(2, 9))
def test_a_tiff_is_turned_by_its_orientation(
    tmp_path: Path, reference: np.ndarray, mark: int, compression: str
) -> None:
    turns = Image.Transpose
    turn = (
        turns.FLIP_LEFT_RIGHT,
        turns.ROTATE_180,
        turns.FLIP_TOP_BOTTOM,
        turns.TRANSPOSE,
        turns.ROTATE_90,
        turns.TRANSVERSE,
        turns.ROTATE_270,
    )
    exif = Image.Exif()
    exif[0x0112] = mark
    Image.fromarray(PICTURE).transpose(turn[mark - 2]).save(
        tmp_path / "a.tif", exif=exif, compression=compression
    )
    assert np.array_equal(read_grey(tmp_path / "a.tif", 64), reference)
    assert (measure(tmp_path / "a.tif").width, measure(tmp_path / "a.tif").height) == (160, 120)


@pytest.mark.parametrize(
    "pixels", [PICTURE.astype(np.uint16) * 257, PICTURE.astype(np.float32) / 255]
)
def test_white_is_zero_in_wide_tiffs_too(
    tmp_path: Path, reference: np.ndarray, pixels: np.ndarray
) -> None:
    Image.fromarray(pixels.max() - pixels).save(tmp_path / "a.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "a.tif") as image:
        assert isinstance(image, TiffImageFile)
        assert image.tag_v2[262] == 0
    assert np.abs(read_grey(tmp_path / "a.tif", 64).astype(int) - reference).mean() <= 1


@pytest.mark.parametrize(
    "pixels",
    [
        PICTURE.astype(np.float32) / 127.5 - 1,  # normalised
        PICTURE.astype(np.int32) * 16 - 2048,  # shifted
        PICTURE.astype(np.float32) / 254.5,  # 1.002 at its brightest, as after resampling
    ],
)
def test_numbers_below_zero_and_a_little_beyond_one_keep_their_contrast(
    tmp_path: Path, reference: np.ndarray, pixels: np.ndarray
) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    assert np.abs(read_grey(tmp_path / "a.tif", 64).astype(int) - reference).mean() <= 1


def test_a_large_jpeg_is_decoded_small_and_looks_like_it_decoded_whole(tmp_path: Path) -> None:
    large = Image.fromarray(PICTURE).resize((2560, 1920), Image.Resampling.BICUBIC)
    large.save(tmp_path / "large.jpg", quality=95)
    whole = np.asarray(
        Image.open(tmp_path / "large.jpg").convert("L").resize((64, 64), Image.Resampling.BILINEAR)
    )
    assert np.abs(read_grey(tmp_path / "large.jpg", 64).astype(int) - whole).mean() < 2


def test_measurements_are_those_of_the_file(tmp_path: Path) -> None:
    measured = measure(_save("RGBA", tmp_path / "a.png"))
    assert (measured.width, measured.height, measured.mode) == (160, 120, "RGBA")
    assert len(measured.dhash) == 64


def _bomb(path: Path) -> Path:
    """A PNG header that promises 40,000 x 40,000 pixels."""
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    data = struct.pack(">I", 1000) + b"IDAT" + b"\0" * 1000
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + data
    )
    return path


def test_unreadable_files_say_why(tmp_path: Path) -> None:
    def reason(path: Path) -> str:
        with pytest.raises(UnreadableFilmError) as error:
            read_grey(path, 64)
        with pytest.raises(UnreadableFilmError):
            measure(path)
        return str(error.value)

    whole = film(tmp_path / "whole.jpg", side=400).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a film")
    (tmp_path / "dicom").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 64)
    pages = [Image.fromarray(PICTURE), Image.fromarray(PICTURE)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    Image.fromarray(PICTURE).save(tmp_path / "strips.tif", compression="raw")
    strips = (tmp_path / "strips.tif").read_bytes()
    height = strips.index(struct.pack("<H", 257), 8) + 8  # the value of ImageLength
    (tmp_path / "tall.tif").write_bytes(
        strips[:height] + struct.pack("<H", 60_000) + strips[height + 2 :]
    )
    assert "strips end" in reason(tmp_path / "tall.tif")
    (tmp_path / "sparse.png").write_bytes(whole)
    os.truncate(tmp_path / "sparse.png", 2**42)
    os.mkfifo(tmp_path / "pipe")
    assert "larger than 4 GB" in reason(tmp_path / "sparse.png")
    assert "truncated" in reason(tmp_path / "cut.jpg")
    assert "empty" in reason(tmp_path / "empty.png")
    assert "not an image" in reason(tmp_path / "text.png")
    assert "DICOM" in reason(tmp_path / "dicom")
    assert "2 frames" in reason(tmp_path / "pages.tif")
    assert "more than the limit" in reason(_bomb(tmp_path / "bomb.png"))
    assert "regular file" in reason(tmp_path / "pipe")
    assert "not found" in reason(tmp_path / "gone.png")


def test_files_are_found_in_a_stable_order_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b/2.png", "a/1.png", "c.png", ".DS_Store", "Thumbs.db", ".cache/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    files, passed_over, _ = find_files(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in files] == [
        "a/1.png",
        "a/loop",
        "b/2.png",
        "c.png",
    ]
    assert passed_over == 3  # .cache/ counts as one


@pytest.mark.skipif(not ODD_FILES.is_dir(), reason="no folder of odd real files beside the project")
def test_odd_real_files_are_read_or_refused_never_worse() -> None:
    outcome: dict[str, object] = {}
    for path in find_files(ODD_FILES)[0]:
        try:
            outcome[path.name] = read_grey(path, 64).shape
        except UnreadableFilmError as error:
            outcome[path.name] = str(error)
    refused = {name: reason for name, reason in outcome.items() if isinstance(reason, str)}
    assert len(outcome) == len(list(ODD_FILES.iterdir()))
    assert all("DICOM" in reason for reason in refused.values())


@pytest.mark.parametrize(
    "name", ["a.png", "a.jpg", "a.tif", "a.bmp", "a.webp", "a.jp2", "a.gif", "pages.tif"]
)
def test_damage_of_any_kind_is_one_kind_of_error(tmp_path: Path, name: str) -> None:
    """Real files, cut and with bytes changed near their headers: read, or refused as unreadable,
    never anything else.
    """
    path = tmp_path / name
    image = Image.fromarray(PICTURE)
    exif = Image.Exif()
    exif[0x0112] = 6
    options: dict[str, Any] = (
        {"exif": exif} if name in ("a.png", "a.jpg", "a.webp", "a.tif") else {}
    )
    if name == "pages.tif":
        options = {"save_all": True, "append_images": [image, image]}
    image.save(path, **options)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for number in range(150):
        damaged = bytearray(whole)
        if number % 3 == 0:
            damaged = damaged[: int(rng.integers(1, len(whole)))]
        else:
            for position in rng.integers(0, min(len(damaged), 400), 4):
                damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        for read in (lambda: read_grey(path, 32), lambda: measure(path)):
            with contextlib.suppress(UnreadableFilmError):
                read()


def test_a_folder_that_cannot_be_listed_is_an_entry_not_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film(tmp_path / "open" / "a.png")
    film(tmp_path / "closed" / "b.png")
    real_scandir = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real_scandir(path)

    monkeypatch.setattr(os, "scandir", scandir)
    files, *_ = find_files(tmp_path)
    assert [path.name for path in files] == ["closed", "a.png"]
    with pytest.raises(UnreadableFilmError, match="folder cannot be read"):
        read_grey(files[0], 32)
