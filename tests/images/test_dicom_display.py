"""Grey levels of DICOM films whose headers promise what their pixels do not keep."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from lib.images import decode, dicom
from lib.images.dicom_display import WINDOW_NOT_USED
from lib.images.measure import measure
from lib.run.errors import UnreadableFilmError
from tests import formats

FILM = formats.smooth_film((96, 80))
GREY = np.asarray(FILM).astype(np.int64)
COLOUR: dict[str, Any] = {
    "SamplesPerPixel": 3,
    "PhotometricInterpretation": "RGB",
    "PlanarConfiguration": 0,
    "bits": 8,
}


def _shown(path: Path) -> dicom.Radiograph:
    return dicom.read(path, decode.MAX_PIXELS)


def _require_film(path: Path, most: float = 2) -> None:
    assert np.abs(_shown(path).levels.astype(int) - GREY).mean() < most


def _table(entries: np.ndarray, said: int, first: int = 0, **more: Any) -> Sequence:
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [len(entries) % 65536, first, said], entries.tobytes()
    for keyword, value in more.items():
        setattr(item, keyword, value)
    return Sequence([item])


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (np.arange(4096, dtype=np.uint16), 16),  # Agfa CR: 12 bits in a table that says 16
        (np.arange(4096, dtype=np.uint16), 12),
        (np.arange(4096, dtype=np.uint16), 8),
        ((np.arange(4096) * 16).astype(np.uint16), 12),
        ((np.arange(4096) // 16).astype(np.uint8), 8),
        ((np.arange(4096) // 16).astype(np.uint8), 16),
        ((np.arange(4096) // 16).astype(np.uint16), 16),
        ((np.arange(4096) // 4).astype(np.uint16), 10),
    ],
)
@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
def test_a_table_is_scaled_by_what_it_holds(
    tmp_path: Path, keyword: str, entries: np.ndarray, said: int
) -> None:
    table = _table(entries, said, ModalityLUTType="US")
    _require_film(formats.dicom(tmp_path / "a.dcm", FILM, **{keyword: table}))


def test_a_table_of_32_bit_entries_is_scaled_by_them(tmp_path: Path) -> None:
    table = _table((np.arange(4096) * 1000).astype(np.uint32), 32)
    _require_film(formats.dicom(tmp_path / "a.dcm", FILM, VOILUTSequence=table))


def test_a_table_without_entries_or_of_one_level_is_passed_over(tmp_path: Path) -> None:
    flat = _table(np.full(4096, 7, np.uint16), 16)
    missing = Dataset()
    missing.LUTDescriptor = [4096, 0, 16]
    for table in (flat, Sequence([missing]), Sequence([])):
        _require_film(formats.dicom(tmp_path / "a.dcm", FILM, VOILUTSequence=table))


def test_a_table_for_signed_values_begins_below_zero(tmp_path: Path) -> None:
    path = formats.dicom(
        tmp_path / "a.dcm",
        FILM,
        pixels=(GREY * 16 - 2048) & 0xFFFF,
        bits=16,
        PixelRepresentation=1,
        VOILUTSequence=_table(np.arange(4096, dtype=np.uint16), 16, first=-2048),
    )
    _require_film(path)


@pytest.mark.parametrize(
    ("slope", "intercept"),
    [("", ""), ("1,0", "0,0"), ("0", "0"), ("0", "-1024"), ("x", "y"), ("", "-1024"), ("1", "")],
)
def test_a_rescale_that_makes_no_sense_is_none(tmp_path: Path, slope: str, intercept: str) -> None:
    path = formats.dicom(tmp_path / "a.dcm", FILM, RescaleSlope="7777", RescaleIntercept="8888")
    stored = path.read_bytes()
    for old, new in ((b"7777", slope), (b"8888", intercept)):
        padded = new.encode().ljust(len(new) + len(new) % 2)
        stored = stored.replace(b"\x04\x00" + old, len(padded).to_bytes(2, "little") + padded)
    path.write_bytes(stored)
    _require_film(path)
    assert dicom.tags(path, ["PatientName", "RescaleSlope"]) == {
        "PatientName": "Secret^Name",
        "RescaleSlope": slope.strip(),
    }


def test_a_decimal_comma_in_a_window_and_a_rescale_is_understood(tmp_path: Path) -> None:
    path = formats.dicom(
        tmp_path / "a.dcm", FILM, RescaleSlope="0.5", RescaleIntercept="0.0", WindowCenter="1023.5"
    )
    stored = path.read_bytes().replace(b"0.5 ", b"0,5 ").replace(b"1023.5", b"1023,5")
    path.write_bytes(stored)
    data = pydicom.dcmread(path)
    data.WindowWidth = 2047
    data.save_as(path)
    assert b"0,5 " in path.read_bytes()
    shown = _shown(path)
    assert shown.notes == ()
    assert np.abs(shown.levels.astype(int) - GREY).mean() < 2


@pytest.mark.parametrize(
    ("centre", "width"),
    [
        (60000, 10),
        (3500, 600),  # most of the film is black
        (200, 100),  # most of the film is white
        (32768, 65536),  # the whole film in the darkest sixteenth
        (20, 40),
    ],
)
def test_a_window_that_hides_the_film_is_not_used_and_asks_for_a_look(
    tmp_path: Path, centre: int, width: int
) -> None:
    path = formats.dicom(tmp_path / "a.dcm", FILM, WindowCenter=centre, WindowWidth=width)
    assert _shown(path).notes == (WINDOW_NOT_USED,)
    _require_film(path)


def test_the_first_window_that_shows_the_film_is_used(tmp_path: Path) -> None:
    path = formats.dicom(
        tmp_path / "a.dcm", FILM, WindowCenter=[60000, 2048], WindowWidth=[10, 4096]
    )
    assert _shown(path).notes == ()
    _require_film(path)


def test_a_blank_film_stays_blank_under_its_window(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(2040, 2056, GREY.shape)
    header: dict[str, Any]
    for header in ({}, {"WindowCenter": 2048, "WindowWidth": 4096}):
        path = formats.dicom(tmp_path / "a.dcm", FILM, pixels=noise, **header)
        assert _shown(path).levels.std() < 6


@pytest.mark.parametrize("held", [10, 12, 14, 15])
def test_the_declared_depth_does_not_darken_a_film(tmp_path: Path, held: int) -> None:
    _require_film(formats.dicom(tmp_path / "a.dcm", FILM, bits=16, pixels=GREY * 2 ** (held - 8)))


def test_values_beyond_the_declared_depth_are_film_not_overlay(tmp_path: Path) -> None:
    path = formats.dicom(tmp_path / "a.dcm", FILM, bits=10, pixels=GREY * 16)
    assert _shown(path).bits == 12
    _require_film(path)
    label = GREY * 4
    label[3:9, 3:9] |= 1 << 10  # an overlay in an unused bit
    _require_film(formats.dicom(tmp_path / "b.dcm", FILM, bits=10, pixels=label))


def test_a_high_bit_that_the_values_contradict_is_not_followed(tmp_path: Path) -> None:
    _require_film(formats.dicom(tmp_path / "a.dcm", FILM, HighBit=15))


def test_a_burned_in_label_does_not_set_the_range(tmp_path: Path) -> None:
    pixels = GREY * 16
    pixels[3:12, 3:12] = 65535
    shown = _shown(formats.dicom(tmp_path / "a.dcm", FILM, bits=16, pixels=pixels)).levels
    assert np.abs(shown[12:].astype(int) - GREY[12:]).mean() < 3


@pytest.mark.parametrize(
    ("representation", "stored", "padding"),
    [
        (1, -2000 & 0xFFFF, -2000),
        (1, -2000 & 0xFFFF, 63536),  # a signed value written as an unsigned one
        (0, 63536, 63536),
        (0, 65535, -1),
        (0, 65535, 65535),
    ],
)
def test_padding_is_compared_as_it_is_stored(
    tmp_path: Path, representation: int, stored: int, padding: int
) -> None:
    pixels = GREY * 16
    pixels[:, :30] = stored
    path = formats.dicom(tmp_path / "a.dcm", FILM, bits=16, pixels=pixels)
    raw = pydicom.dcmread(path)
    raw.PixelRepresentation = representation
    raw.add_new("PixelPaddingValue", "SS" if padding < 0 else "US", padding)
    raw.save_as(path)
    shown = _shown(path).levels
    assert (shown[:, :30] == 0).all()
    assert np.abs(shown[:, 30:].astype(int) - GREY[:, 30:]).mean() < 3


def test_a_padding_range_that_covers_the_film_is_no_padding(tmp_path: Path) -> None:
    _require_film(
        formats.dicom(tmp_path / "a.dcm", FILM, PixelPaddingValue=0, PixelPaddingRangeLimit=4095)
    )


@pytest.mark.parametrize(
    ("is_implicit", "is_little"), [(True, True), (False, True), (False, False)]
)
def test_a_file_without_preamble_and_group_2_is_read(
    tmp_path: Path, is_implicit: bool, is_little: bool
) -> None:
    stored, bare = pydicom.dcmread(formats.dicom(tmp_path / "a.dcm", FILM)), Dataset()
    bare.update(stored)
    if not is_little:
        bare.PixelData = np.frombuffer(bare.PixelData, "<u2").astype(">u2").tobytes()
    bare.save_as(
        tmp_path / "b",
        implicit_vr=is_implicit,
        little_endian=is_little,
        enforce_file_format=False,
    )
    _require_film(tmp_path / "b")
    del bare["SOPClassUID"], bare["SOPInstanceUID"]  # begins with another element
    bare.save_as(
        tmp_path / "c",
        implicit_vr=is_implicit,
        little_endian=is_little,
        enforce_file_format=False,
    )
    _require_film(tmp_path / "c")


@pytest.mark.parametrize(
    "name", ["explicit.dcm", "implicit.dcm", "big-endian.dcm", "jpeg-2000.dcm"]
)
def test_group_2_without_a_transfer_syntax_is_read(tmp_path: Path, name: str) -> None:
    formats.write_every_transfer_syntax(tmp_path, FILM)
    data = pydicom.dcmread(tmp_path / name)
    is_implicit, is_little = data.original_encoding
    data.file_meta = FileMetaDataset()
    data.file_meta.ImplementationVersionName = "X"
    data.save_as(
        tmp_path / "x.dcm",
        implicit_vr=is_implicit,
        little_endian=is_little,
        enforce_file_format=False,
    )
    _require_film(tmp_path / "x.dcm", 3)


@pytest.mark.parametrize(
    ("syntax", "name"),
    [
        ("1.2.840.10008.1.2.4.201", "High-Throughput JPEG 2000"),
        ("1.2.840.10008.1.2.4.203", "High-Throughput JPEG 2000"),
        ("1.2.840.10008.1.2.4.110", "JPEG XL"),
        ("1.2.840.10008.1.2.4.112", "JPEG XL"),
        ("1.2.840.10008.1.2.4.100", "MPEG2"),
        ("1.2.840.10008.1.2.4.102", "MPEG-4"),
        ("1.2.840.10008.1.2.4.107", "HEVC"),
        ("1.2.826.0.1.3680043.9.9", "private coding (1.2.826.0.1.3680043.9.9)"),
    ],
)
def test_a_coding_without_a_decoder_is_named(tmp_path: Path, syntax: str, name: str) -> None:
    path = formats.dicom(tmp_path / "a.dcm", FILM)
    data = pydicom.dcmread(path)
    data.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(2000)])
    data["PixelData"].is_undefined_length = True
    stand_in = "1.2.840.10008.1.2.4.201" if len(syntax) == 23 else syntax
    data.file_meta.TransferSyntaxUID = stand_in  # pydicom writes no coding that it does not know
    data.save_as(path, implicit_vr=False, little_endian=True)
    path.write_bytes(path.read_bytes().replace(stand_in.encode(), syntax.encode()))
    with pytest.raises(UnreadableFilmError) as refusal:
        _shown(path)
    assert name in str(refusal.value)
    assert "damaged" not in str(refusal.value)


@pytest.mark.parametrize(
    "missing", ["BitsStored", "HighBit", "PixelRepresentation", "PhotometricInterpretation",
                "SamplesPerPixel", "BitsAllocated"]
)  # fmt: skip
def test_what_a_header_leaves_out_has_its_usual_value(tmp_path: Path, missing: str) -> None:
    path = formats.dicom(tmp_path / "a.dcm", FILM)
    data = pydicom.dcmread(path)
    delattr(data, missing)
    data.save_as(path)
    _require_film(path)


def _labelled() -> np.ndarray:
    image = FILM.convert("RGB")
    ImageDraw.Draw(image).rectangle((2, 2, 14, 9), fill=(255, 220, 0))
    return np.asarray(image)


def _sepia() -> np.ndarray:
    return (GREY[..., None] * np.array([1.0, 0.85, 0.65])).astype(np.uint8)


@pytest.mark.parametrize("picture", [_labelled(), _sepia()])
@pytest.mark.parametrize("model", ["RGB", "YBR_FULL"])
def test_a_coloured_label_and_a_sepia_tone_are_read_as_the_same_picture_in_png(
    tmp_path: Path, picture: np.ndarray, model: str
) -> None:
    image = Image.fromarray(picture)
    stored = picture if model == "RGB" else np.asarray(image.convert("YCbCr"))
    path = formats.dicom(
        tmp_path / "a.dcm", FILM, pixels=stored, **COLOUR | {"PhotometricInterpretation": model}
    )
    wanted = np.asarray(image.convert("L")).astype(int)
    assert np.abs(_shown(path).levels.astype(int) - wanted).mean() < 1.5
    image.save(tmp_path / "a.png")
    assert abs(measure(path).tint - measure(tmp_path / "a.png").tint) < 2


def test_a_film_in_the_colours_of_a_palette_is_read(tmp_path: Path) -> None:
    header: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR", "bits": 8}
    ramp = (np.arange(256) * 257).astype(np.uint16)
    for name in ("Red", "Green", "Blue"):
        header[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        header[f"{name}PaletteColorLookupTableData"] = ramp.tobytes()
    _require_film(formats.dicom(tmp_path / "a.dcm", FILM, **header), 1)


def test_a_picture_in_several_colours_and_a_colour_photograph_are_refused(tmp_path: Path) -> None:
    hues = np.linspace(0, 255, 96).astype(np.uint8)
    picture = np.stack([np.broadcast_to(hues, (80, 96)), np.full((80, 96), 200, np.uint8),
                        np.full((80, 96), 200, np.uint8)], axis=2)  # fmt: skip
    rainbow = np.asarray(Image.fromarray(picture, "HSV").convert("RGB"))
    with pytest.raises(UnreadableFilmError, match="a colour picture"):
        _shown(formats.dicom(tmp_path / "a.dcm", FILM, pixels=rainbow, **COLOUR))
    with pytest.raises(UnreadableFilmError, match="modality XC"):
        _shown(formats.dicom(tmp_path / "b.dcm", FILM, pixels=_sepia(), Modality="XC", **COLOUR))
