"""Made-up films as rows: what a collection of any size looks like to the jobs that read tables.

No film is drawn. The difference hashes are those of smooth random fields with two dark lungs: pairs
of them lie as close together as pairs of 1,326 real films do (smallest distance 21 bits, there 18;
0.1 % of the pairs below 36, there 34; median 76, there 84).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lib.dataset.manifest import FilmRecord, write_rows
from lib.evaluation.baselines import BASELINES, LUNGS_FOUND
from lib.images.measure import DHASH_SIDE

CLASSES = ("NORMAL", "PNEUMONIA", "TUBERCULOSIS")
COPIES = 0.03  # share of films that are the one before them in another coding, 0 to 10 bits away
EQUAL = 0.005  # share of films that have the bytes of the one before them
BLOCK = 20_000  # films that are made at once
_CELLS = 6  # random values along each side of a field

Bits = NDArray[np.uint8]


def dhashes(films: int, seed: int = 0) -> list[str]:
    """Difference hashes of made-up films, as `measure.dhash` writes them."""
    return [row.tobytes().hex() for bits in _blocks(films, seed) for row in np.packbits(bits, 1)]


def records(films: int, seed: int = 0) -> Iterator[FilmRecord]:
    """Rows of a manifest: 47 % normal films, three to a patient, from two collections."""
    rng = np.random.default_rng(seed + 1)
    labels = rng.choice(len(CLASSES), films, p=(0.47, 0.39, 0.14))
    sides = rng.integers(200, 3000, (films, 2))
    levels = rng.normal((128.0, 55.0), (20.0, 8.0), (films, 2)).round(2)
    is_equal = rng.random(films) < EQUAL
    is_equal[0] = False
    digest = ""
    for number, dhash in enumerate(dhashes(films, seed)):
        label, name = CLASSES[labels[number]], f"{number // 3:08}_{number % 3:03}.png"
        digest = digest if is_equal[number] else f"{number:064x}"
        collection = "first" if number // 3 % 5 else "second"
        yield FilmRecord(
            path=f"{label}/{name}",
            label=label,
            sha256=digest,
            dhash=dhash,
            width=int(sides[number, 0]),
            height=int(sides[number, 1]),
            mode="L",
            bytes=int(sides[number].prod() // 8),
            tint=0.0,
            brightness=float(levels[number, 0]),
            contrast=float(levels[number, 1]),
            source=collection,
            patient=f"{collection}:{number // 3:08}",
            status="ok",
            problem="",
            origin=f"train/{label.lower()}/{name}",
        )


def write_raw(data_dir: Path, films: int, seed: int = 0) -> None:
    """data/raw as an ingest leaves it, but with empty files."""
    raw = data_dir / "raw"
    for label in CLASSES:
        (raw / label).mkdir(parents=True)

    def with_files() -> Iterator[FilmRecord]:
        for record in records(films, seed):
            (raw / record.path).touch()
            yield record

    write_rows(raw / "manifest.csv", with_files(), FilmRecord)


def _blocks(films: int, seed: int) -> Iterator[Bits]:
    """Hashes `(n, 256)` of zeros and ones."""
    rng = np.random.default_rng(seed)
    for begin in range(0, films, BLOCK):
        count = min(BLOCK, films - begin)
        bits = _fields(count, rng)
        is_copy = rng.random(count) < COPIES
        is_copy[0] = False
        for number in np.flatnonzero(is_copy):
            bits[number] = bits[number - 1]
            flipped = rng.choice(bits.shape[1], rng.integers(0, 11), replace=False)
            bits[number, flipped] ^= 1
        yield bits


def _fields(count: int, rng: np.random.Generator) -> Bits:
    """Is each cell of a smooth random field with two lungs brighter than its left one?"""
    down, across = np.linspace(0, 1, DHASH_SIDE), np.linspace(0, 1, DHASH_SIDE + 1)
    lungs = sum(
        np.exp(-(((across - centre) / 0.13) ** 2) - ((down[:, None] - 0.45) / 0.28) ** 2)
        for centre in (0.3, 0.7)
    )
    values = rng.normal(0, 0.5, (count, _CELLS, _CELLS))
    field = _smoothing(down) @ values @ _smoothing(across).T - lungs
    field += rng.normal(0, 0.02, field.shape)
    return (np.diff(field, axis=2) > 0).reshape(count, -1).view(np.uint8)


def _smoothing(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights `(places, cells)` of a Gaussian of 0.6 cells."""
    cells = np.linspace(0, 1, _CELLS)
    weights = np.exp(-(((places[:, None] - cells) * (_CELLS - 1) / 0.6) ** 2) / 2)
    share: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return share


def predictions(rows: int, seed: int = 0) -> pd.DataFrame:
    """predictions.csv of a model that is right in about nine of ten films: 6 digits, ties are rare.

    Three films to a patient, two sources, one film in a thousand cannot be read.
    """
    rng = np.random.default_rng(seed)
    label = rng.choice(len(CLASSES), rows, p=(0.47, 0.39, 0.14))
    logits = rng.gumbel(size=(rows, len(CLASSES))) + 3.5 * np.eye(len(CLASSES))[label]
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares = (shares / shares.sum(axis=1, keepdims=True)).round(6)
    best, names, numbers = shares.argmax(axis=1), np.array(CLASSES), np.arange(rows)
    confidence = shares[numbers, best]
    table = pd.DataFrame(
        {
            "path": [f"{names[of]}/{number:07}.png" for number, of in enumerate(label)],
            "label": names[label],
            "prediction": names[best],
            "confidence": confidence,
            **{f"prob_{name}": shares[:, number] for number, name in enumerate(CLASSES)},
            "group": [f"patient {number // 3}" for number in numbers],
            "source": np.where(numbers // 3 % 5, "first", "second"),
            "needs_review": np.where(confidence < 0.7, "True", "False"),
            "reasons": np.where(confidence < 0.7, "several possible classes", ""),
            "outside_lungs": [f"{share:.3f}" for share in rng.random(rows)],
            "distance": [f"{distance:.4f}" for distance in rng.random(rows)],
            "error": "",
        }
    )
    unreadable = rng.random(rows) < 0.001
    table.loc[unreadable, ["prediction", "reasons", "outside_lungs", "distance"]] = ""
    table.loc[unreadable, ["confidence", *(f"prob_{name}" for name in CLASSES)]] = np.nan
    table.loc[unreadable, ["needs_review", "error"]] = ["True", "not an image"]
    return table


def baselines(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """baselines.csv beside `predictions`: right in about half of the films."""
    rng = np.random.default_rng(seed + 1)
    columns = {}
    for name in BASELINES:
        guess = rng.choice(np.array(CLASSES), len(table))
        columns[name] = np.where(rng.random(len(table)) < 0.4, table["label"], guess)
    found = np.where(rng.random(len(table)) < 0.98, "True", "False")
    return pd.DataFrame({"path": table["path"], **columns, LUNGS_FOUND: found}, dtype=str)
