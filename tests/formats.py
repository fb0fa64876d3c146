"""The same film in every container and coding that is read."""

import io
import zlib  # noqa: F401  # before gdcm: see lib/images/dicom.py
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

_SAVES: dict[str, tuple[str, dict[str, Any]]] = {  # mode and options of Pillow
    "grey.png": ("L", {}),
    "colour.png": ("RGB", {}),
    "alpha.png": ("RGBA", {}),
    "grey-alpha.png": ("LA", {}),
    "palette.png": ("P", {}),
    "sixteen.png": ("I;16", {}),
    "grey.jpg": ("L", {"quality": 95}),
    "colour.jpg": ("RGB", {"quality": 95}),
    "progressive.jpg": ("L", {"quality": 95, "progressive": True}),
    "cmyk.jpg": ("CMYK", {"quality": 95}),
    "grey.tif": ("L", {}),
    "deflate.tif": ("L", {"compression": "tiff_adobe_deflate"}),
    "lzw.tif": ("L", {"compression": "tiff_lzw"}),
    "jpeg.tif": ("RGB", {"compression": "jpeg", "quality": 95}),
    "sixteen.tif": ("I;16", {}),
    "float.tif": ("F", {}),
    "cmyk.tif": ("CMYK", {}),
    "grey.bmp": ("L", {}),
    "colour.bmp": ("RGB", {}),
    "lossy.webp": ("RGB", {"quality": 100}),
    "lossless.webp": ("RGB", {"lossless": True}),
    "grey.jp2": ("L", {}),
    "colour.jp2": ("RGB", {}),
    "grey.pgm": ("L", {}),
    "grey.gif": ("L", {}),
}


def smooth_film(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """A smooth random picture in mode L that uses all grey levels."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    grey = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)).astype(float)
    levels = np.rint((grey - grey.min()) / np.ptp(grey) * 255)
    return Image.fromarray(levels.astype(np.uint8))


def write_every_format(folder: Path, film: Image.Image | None = None) -> list[Path]:
    """Write `film` (mode L; a smooth one by default) as one file per format into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    if film is None:
        coarse = np.random.default_rng(0).integers(0, 255, (8, 8), dtype=np.uint8)
        film = Image.fromarray(coarse).resize((120, 100), Image.Resampling.BICUBIC)
    grey = np.asarray(film)
    for name, (mode, options) in _SAVES.items():
        if mode == "I;16":
            image = Image.fromarray(grey.astype(np.uint16) * 257)
        elif mode == "F":
            image = Image.fromarray(grey.astype(np.float32) / 255)
        else:
            image = film.convert(mode)
        image.save(folder / name, **options)
    write_every_transfer_syntax(folder, film)
    return sorted(folder.iterdir())


def dicom(path: Path, film: Image.Image, bits: int = 12, **header: Any) -> Path:
    """`film` (mode L) as an uncompressed CR chest film of `bits` stored bits, which `header`
    changes or, by None, removes.

    `pixels` in `header` are stored as they are instead of the film's grey levels times 2 ** (bits -
    8).
    """
    grey = np.asarray(film).astype(np.int64)
    pixels = np.asarray(header.pop("pixels", grey * 2 ** (bits - 8) if bits >= 8 else grey))
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = (
        ComputedRadiographyImageStorage,
        generate_uid(entropy_srcs=[path.name]),
    )
    data.PatientName, data.PatientID, data.StudyInstanceUID = "Secret^Name", "ID-4711", "1.2.3.4"
    data.Modality, data.BodyPartExamined, data.ViewPosition = "CR", "CHEST", "PA"
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = (
        8 if bits <= 8 else 16,
        bits,
        bits - 1,
        0,
    )
    for name, value in header.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    data.PixelData = pixels.astype({8: np.uint8, 16: np.uint16}[data.BitsAllocated]).tobytes()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def write_every_transfer_syntax(folder: Path, film: Image.Image) -> list[Path]:
    """The film as DICOM files in every coding that is read."""
    plain = dicom(folder / "explicit.dcm", film)
    for name, syntax, is_implicit, is_little in (
        ("implicit.dcm", ImplicitVRLittleEndian, True, True),
        ("big-endian.dcm", ExplicitVRBigEndian, False, False),
        ("deflated.dcm", DeflatedExplicitVRLittleEndian, False, True),
    ):
        data, stored = Dataset(), dcmread(plain)
        data.update(stored)
        data.file_meta = stored.file_meta
        if not is_little:
            data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
        data.file_meta.TransferSyntaxUID = syntax
        data.save_as(
            folder / name,
            implicit_vr=is_implicit,
            little_endian=is_little,
            enforce_file_format=True,
        )
    for name, syntax in (("rle.dcm", RLELossless), ("jpeg-ls.dcm", JPEGLSLossless)):
        data = dcmread(plain)
        data.compress(syntax)
        data.save_as(folder / name)
    for name, syntax in (
        ("jpeg-lossless.dcm", gdcm.TransferSyntax.JPEGLosslessProcess14_1),
        ("jpeg-lossless-14.dcm", gdcm.TransferSyntax.JPEGLosslessProcess14),
        ("jpeg-extended-12.dcm", gdcm.TransferSyntax.JPEGExtendedProcess2_4),
        ("jpeg-2000-lossless.dcm", gdcm.TransferSyntax.JPEG2000Lossless),
    ):
        _recode(plain, folder / name, syntax)
    eight = dcmread(dicom(folder / "eight-bit.dcm", film, bits=8))
    codings: tuple[tuple[str, UID, dict[str, Any]], ...] = (
        ("jpeg-baseline.dcm", JPEGBaseline8Bit, {"format": "JPEG", "quality": 95}),
        ("jpeg-2000.dcm", JPEG2000, {"format": "JPEG2000", "no_jp2": True}),
    )
    for name, syntax, options in codings:
        buffer = io.BytesIO()
        film.save(buffer, **options)
        eight.PixelData = encapsulate([buffer.getvalue()])
        eight["PixelData"].VR = "OB"
        eight.file_meta.TransferSyntaxUID = syntax
        eight.save_as(folder / name)
    (folder / "no-extension").write_bytes(plain.read_bytes())
    (folder / "no-preamble").write_bytes((folder / "implicit.dcm").read_bytes()[132:])
    return sorted(folder.iterdir())


def _recode(source: Path, target: Path, syntax: int) -> None:
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
