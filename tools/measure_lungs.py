"""Measure the shipped lung segmenter on films that it was not trained on, and draw what it finds.

Held-out children give Dice and the errors of the box; pictures without lungs the rate of "no
lungs"; adults, who have no masks, the rate of missed lungs and overlays to look at.

Examples:
    python -m tools.measure_lungs --shared ../shared --sheets /tmp/lungs
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lib.network.lungs import FOLDER, LungFinder, Lungs, box_of
from tools import lung_films
from tools.lung_films import Films

CLOSE = 0.05  # of the film's side: an edge of the box within it is right
NO_FILMS = ("16654_1_1_mask.png", "mobilenet_confusion_matrix.png", "jkms-35-e79-g001-l-d.jpg")
LOOKED_AT = 60
WORST = 30


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / max(int(one.sum() + other.sum()), 1))


def overlay(grey: np.ndarray, found: Lungs) -> np.ndarray:
    """The film with the lungs in red, the fields in green and the box, `(s, s, 3) uint8`."""
    side = len(grey)
    picture = np.repeat(grey[:, :, None], 3, 2).astype(np.int16)
    for channel, mask in ((0, found.mask), (1, found.fields)):
        picture[:, :, channel] += 45 * np.asarray(Image.fromarray(mask).resize((side, side)))
    if found.box is not None:
        left, top, right, bottom = (min(int(edge * side), side - 1) for edge in found.box)
        picture[top : bottom + 1, [left, right]] = (255, 255, 0)
        picture[[top, bottom], left : right + 1] = (255, 255, 0)
    return np.clip(picture, 0, 255).astype(np.uint8)


def write_sheet(path: Path, tiles: Sequence[np.ndarray], columns: int = 10) -> None:
    """Write overlays of one size as one picture."""
    blank = [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [*tiles, *blank]
    lines = [np.hstack(rows[i : i + columns]) for i in range(0, len(rows), columns)]
    Image.fromarray(np.vstack(lines)).save(path)


def measure_children(finder: LungFinder, kept: Films, paths: list[Path], sheets: Path) -> None:
    """Print Dice and box errors; write the films of lowest Dice."""
    found = finder.find_all(list(kept.grey))
    truth = kept.at_side() > 127
    scores = np.array([dice(one.mask, lungs) for one, (lungs, _) in zip(found, truth, strict=True)])
    normal = np.flatnonzero(kept.known[:, 1])
    fields = [dice(found[i].fields, truth[i, 1]) for i in normal]
    errors = np.array(
        [
            np.abs(np.subtract(one.box or (0, 0, 1, 1), box_of(lungs)))
            for one, (lungs, _) in zip(found, truth, strict=True)
        ]
    )
    print(f"children: {len(found)} films, {sum(one.box is None for one in found)} without lungs")
    print(f"  Dice of the lungs {scores.mean():.4f}, median {np.median(scores):.4f}")
    print(f"  Dice of the fields on normal films {np.mean(fields):.4f} (targets by threshold)")
    print(f"  box within {CLOSE:.0%}: all edges {(errors.max(1) <= CLOSE).mean():.1%} of films")
    print("  left, top, right, bottom", [f"{share:.1%}" for share in (errors <= CLOSE).mean(0)])
    order = np.argsort(scores)[:WORST]
    write_sheet(sheets / "children_worst.png", [overlay(kept.grey[i], found[i]) for i in order])
    print("  worst:", ", ".join(f"{paths[i].name} {scores[i]:.2f}" for i in order[:10]))


def measure_adults(finder: LungFinder, shared: Path, sheets: Path) -> None:
    """Print the rate of films without lungs; write every such film and a sample of the others."""
    paths, grey = lung_films.read_adults([shared / "xrays", shared / "sources"])
    found = [one for part in np.array_split(grey, 16) for one in finder.find_all(list(part))]
    missed = [i for i, one in enumerate(found) if one.box is None]
    turned = [i for i, one in enumerate(found) if one.orientation != "upright"]
    print(f"adults: {len(found)} films, {len(missed)} without lungs, {len(turned)} not upright")
    print("  without lungs:", ", ".join(paths[i].name for i in missed[:12]))
    sample = np.random.default_rng(5).choice(len(found), LOOKED_AT, replace=False)
    write_sheet(sheets / "adults.png", [overlay(grey[i], found[i]) for i in sample])
    worst = np.argsort([one.certainty for one in found])[:WORST]
    write_sheet(sheets / "adults_worst.png", [overlay(grey[i], found[i]) for i in worst])


def measure_others(finder: LungFinder, kept: Films, shared: Path, sheets: Path) -> None:
    """Print what is found on generated pictures of another seed and on the odd files."""
    kinds = lung_films.LUNGLESS_KINDS
    pictures = lung_films.lungless_pictures(kept, 20 * len(kinds), seed=90)
    found = finder.find_all(list(pictures.grey))
    print(f"generated without lungs: {np.mean([one.box is None for one in found]):.1%} refused")
    for index, kind in enumerate(kinds):
        of_kind = found[index :: len(kinds)]
        print(f"  {kind}: {sum(one.box is not None for one in of_kind)} of {len(of_kind)} taken")
    odd = [path for path in sorted((shared / "odd").iterdir()) if path.suffix != ".dcm"]
    grey = [lung_films.read_grey(path) for path in odd]
    found = finder.find_all(grey)
    for path, one in zip(odd, found, strict=True):
        expected = "no film" if path.name in NO_FILMS else "film"
        answer = "no lungs" if one.box is None else "lungs"
        print(f"  {path.name} ({expected}): {answer}, {one.orientation}")
    write_sheet(sheets / "odd.png", [overlay(*both) for both in zip(grey, found, strict=True)], 8)


def measure_turns(finder: LungFinder, kept: Films) -> None:
    """Print how often the orientation of a turned film is told."""
    for quarter, name in enumerate(("upright", "turned 90", "turned 180", "turned 270")):
        found = finder.find_all([np.rot90(grey, quarter) for grey in kept.grey])
        print(f"  {name}: {np.mean([one.orientation == name for one in found]):.1%} told")


def measure_speed(finder: LungFinder, side: int = 256) -> None:
    """Print the processor time per film, one by one and in batches of 16."""
    films = list(np.random.default_rng(0).integers(0, 255, (16, side, side), np.uint8))
    for size in (1, 16):
        times = []
        for _ in range(30):
            before = time.process_time()
            finder.find_all(films[:size])
            times.append((time.process_time() - before) / size)
        print(f"speed: {1e3 * np.median(times):.2f} ms of a core per film, {size} at once")


def main(shared: Path, sheets: Path, folder: Path) -> None:
    sheets.mkdir(parents=True, exist_ok=True)
    finder = LungFinder(folder=folder)
    _, kept, paths = lung_films.read_children(shared / "lungs")
    measure_children(finder, kept, paths, sheets)
    measure_turns(finder, kept)
    measure_others(finder, kept, shared, sheets)
    measure_adults(finder, shared, sheets)
    measure_speed(finder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--sheets", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--model", type=Path, default=FOLDER)
    options = parser.parse_args()
    main(options.shared, options.sheets, options.model)
