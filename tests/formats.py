"""The same film in every container and coding that is read."""

from pathlib import Path

import numpy as np
from PIL import Image

_SAVES = {
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
    "jpeg.tif": ("RGB", {"compression": "jpeg"}),
    "sixteen.tif": ("I;16", {}),
    "float.tif": ("F", {}),
    "cmyk.tif": ("CMYK", {}),
    "grey.bmp": ("L", {}),
    "colour.bmp": ("RGB", {}),
    "lossy.webp": ("RGB", {"quality": 95}),
    "lossless.webp": ("RGB", {"lossless": True}),
    "grey.jp2": ("L", {}),
    "colour.jp2": ("RGB", {}),
    "grey.pgm": ("L", {}),
    "grey.gif": ("L", {}),
}


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
    return sorted(folder.iterdir())
