"""A folder copied to the nodes of a Ray cluster, identified by the digest of its content."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Shipped:
    """A flat folder, copied to each node once and identified by the digest of its content."""

    digest: str
    files: Any  # reference in Ray's object store to {name: bytes}

    def unpack(self) -> Path:
        """The folder on this node, whole, shared by all processes of the node."""
        import ray

        folder = Path(tempfile.gettempdir()) / f"cxr-{self.digest[:24]}"
        if folder.is_dir() and digest_of(files_of(folder)) != self.digest:
            shutil.rmtree(folder)
        if not folder.is_dir():
            partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-"))
            for name, content in ray.get(self.files).items():
                (partial / name).write_bytes(content)
            try:
                os.rename(partial, folder)
            except OSError:  # another process of this node has just made it
                shutil.rmtree(partial)
        return folder


def files_of(folder: Path) -> dict[str, bytes]:
    """The content of the files of a flat folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def digest_of(files: Mapping[str, bytes]) -> str:
    """SHA-256 over names and contents."""
    digests = "".join(
        f"{name} {hashlib.sha256(content).hexdigest()}\n" for name, content in sorted(files.items())
    )
    return hashlib.sha256(digests.encode()).hexdigest()
