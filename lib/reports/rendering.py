"""Templates to files: the Jinja environment, its filters, and pictures inside a page."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from numpy.typing import NDArray
from PIL import Image

from lib.reports import formatting
from lib.storage.atomic import write_text

THUMBNAIL = 176  # pixels, longer side

_ENVIRONMENT = Environment(
    loader=PackageLoader("lib.reports", "templates"),
    autoescape=select_autoescape(("html",)),  # not Markdown
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {
    "with_range": formatting.with_range,
    "with_spread": formatting.with_spread,
    "score": formatting.score,
    "percent": formatting.percent,
    "threshold": formatting.threshold,
}


def write_page(path: Path, template: str, content: dict[str, Any]) -> None:
    """Render a template of lib/reports/templates into a file."""
    write_text(path, _ENVIRONMENT.get_template(template).render(content))


def jpeg(pixels: NDArray[np.uint8], size: tuple[int, int] | None = None) -> str:
    """Pixels `(side, side[, 3])` as the data URL of a JPEG: small, or of `size` (width, height)."""
    image = Image.fromarray(pixels)
    if size:
        image = image.resize(size)
    else:
        image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
