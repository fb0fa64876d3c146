"""A model folder for a site: the graphs of another model with a calibration of its own."""

import shutil
from dataclasses import replace
from pathlib import Path

from lib.network.artifact import MANIFEST_FILE, ModelManifest
from lib.prediction.calibration import REFERENCE_FILE, Calibration, Reference
from lib.run.errors import JobError
from lib.storage.atomic import PARTIAL, link_or_copy, make_folder, sha256_of, swap_folder


def require_free(folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier model for a site.

    Raises:
        JobError: names what it holds.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / MANIFEST_FILE).is_file() or not ModelManifest.read(folder).site:
        raise JobError(
            f"--recalibrate {folder} exists and is not a model for a site. Give a new folder, such "
            "as runs/sites/NAME."
        )


def write_site_model(
    source: Path,
    folder: Path,
    manifest: ModelManifest,
    calibration: Calibration,
    reference: Reference,
    site: str,
) -> ModelManifest:
    """Write `folder` whole: the files of the model in `source`, with another calibration."""
    partial = folder.with_name(f".{folder.name}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    make_folder(partial)
    for name in manifest.files:
        if name != REFERENCE_FILE:
            link_or_copy(source / name, partial / name)
    reference.write(partial)
    files = {**manifest.files, REFERENCE_FILE: sha256_of(partial / REFERENCE_FILE)}
    written = replace(manifest, calibration=calibration.to_json(), files=files, site=site)
    written.write(partial)
    swap_folder(partial, folder)
    return written
