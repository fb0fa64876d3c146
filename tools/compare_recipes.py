"""Compare recipes of training on collections that no training saw.

Each fold keeps collections apart. Tuberculosis is tested on films of the other half of its
collection, photographed or not, against normal films of a collection that is kept apart too;
pneumonia is tested from children to adults and the other way round. Every view of a film passes
the frozen layers once, for all folds, seeds and recipes.

Examples:
    python -m tools.compare_recipes --shared ../shared --work /tmp/recipes --seeds 5
    python -m tools.compare_recipes --shared ../shared --work /tmp/recipes --folds tinted --lr 1e-4
"""

import argparse
import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.metrics import roc_auc_score

from lib.network.backbones import BACKBONES
from lib.network.choices import FILM_SIDE
from lib.network.weights import weights_file
from lib.storage.atomic import sha256_of
from lib.training.films import Part, SplitFilms, TrainingFilm
from lib.training.folds import Folds, Probabilities, wanted_by
from lib.training.machines import Machines
from lib.training.plan import Overrides, plan_of
from lib.training.recipe import Recipe
from lib.training.starting_weights import StartingWeights

CLASSES = ("NORMAL", "PNEUMONIA", "TUBERCULOSIS")
VALIDATION = 0.15  # of the patients
SETTINGS = {
    "batch_size": 32, "weight_decay": 1e-4, "step_size": 3, "gamma": 0.3, "class_weight_power": 0.5,
}  # fmt: skip


class Collection:
    """The films of `shared/xrays` and `shared/sources/nih`, without the planted contradictions."""

    def __init__(self, shared: Path) -> None:
        with (shared / "xrays" / "index.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["label"] == row["folder_label"]]
        known = [
            (shared / "xrays" / r["path"], r["label"], r["source"], r["patient"]) for r in rows
        ]
        nih = sorted((shared / "sources" / "nih").glob("*/*"))
        known += [(path, path.parent.name, "nih", path.name[:8]) for path in nih]
        self.films = [TrainingFilm(f, CLASSES.index(label), sha256_of(f)) for f, label, *_ in known]
        self.target = np.array([film.target for film in self.films])
        self.source = np.array([source for _, _, source, _ in known])
        self.patient = np.array([patient or str(file) for file, _, _, patient in known])

    def folds(self) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        """Which films are learnt and which are tested, `(N,) bool` each, by the fold's name."""
        source, normal = self.source, self.target == CLASSES.index("NORMAL")
        children = np.char.startswith(source, "kermany")
        nih, rsna = np.char.startswith(source, "nih"), source == "rsna_normal_256"
        tinted = np.array([_is_tinted(film.path) for film in self.films])
        tuberculosis = self.target == CLASSES.index("TUBERCULOSIS")
        folds = {"children to adults": (~nih, nih), "adults to children": (~children, children)}
        for name, learnt in (("tinted to grey", tinted), ("grey to tinted", ~tinted)):
            ill, others = tuberculosis & learnt, tuberculosis & ~learnt
            folds[f"{name}, NIH apart"] = (ill | children | rsna, others | (nih & normal))
            folds[f"{name}, RSNA apart"] = (ill | children | nih, others | rsna)
        return folds


def _is_tinted(path: Path) -> bool:
    with Image.open(path) as image:
        if image.mode == "L":
            return False
        colours = np.asarray(image.convert("RGB").resize((64, 64))).astype(int)
    return float(np.ptp(colours, axis=2).mean()) > 5


def scores(target: np.ndarray, probability: Probabilities) -> dict[str, float]:
    """AUROC of the disease against normal films, AUROC of 1 - P(NORMAL), and the specificity of
    the latter at 90 % sensitivity. `target` `(N,)` has NORMAL and one disease.
    """
    disease = int(target.max())
    ill, abnormal = target == disease, 1 - probability[:, 0]
    against_normal = probability[:, disease] / (probability[:, disease] + probability[:, 0] + 1e-12)
    threshold = np.sort(abnormal[ill])[int(0.1 * ill.sum())]
    return {
        CLASSES[disease]: float(roc_auc_score(ill, against_normal)),
        "abnormal": float(roc_auc_score(ill, abnormal)),
        "specificity": float((abnormal[~ill] < threshold).mean()),
    }


def rows_of(collection: Collection, learnt: np.ndarray, seed: int) -> dict[Part, list[int]]:
    """Training and validation films of a fold, by patient."""
    patients = np.random.default_rng(seed).permutation(np.unique(collection.patient[learnt]))
    kept = np.isin(collection.patient, patients[: int(VALIDATION * len(patients))])
    return {
        "train": np.flatnonzero(learnt & ~kept).tolist(),
        "val": np.flatnonzero(learnt & kept).tolist(),
    }


def main(options: argparse.Namespace) -> None:
    collection = Collection(options.shared)
    films = collection.films
    split = SplitFilms(options.work, "", CLASSES, {"train": films, "val": films})
    weights = StartingWeights(imagenet=weights_file(BACKBONES[options.backbone], split.cache_dir))
    overrides = Overrides(epochs=options.epochs, lr=options.lr)
    settings = SETTINGS | {"backbone": options.backbone, "crop": options.crop, "seed": 0}
    settings |= {"even_exposure": options.even_exposure, "film_side": options.film_side}
    last_block = plan_of("b", overrides, **settings)
    recipe = Recipe(plan_of("a", Overrides(), **settings), last_block, weights.digest)
    folds = Folds(recipe, split, Machines(cpus=options.cpus))
    folds.fill(wanted_by(recipe, split), options.work, 0)
    for name, (learnt, tested) in collection.folds().items():
        if options.folds not in name:
            continue
        found = []
        for seed in range(options.seeds):
            trained = folds.train(rows_of(collection, learnt, seed), recipe.with_seed(seed))
            numbers = np.flatnonzero(tested)
            answers = trained.of_films([films[number] for number in numbers])
            found.append(scores(collection.target[numbers], answers))
        for score in found[0]:
            values = [one[score] for one in found]
            print(
                f"{name}: {score} {np.mean(values):.3f}, by seed {np.round(values, 3)}", flush=True
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for cached features")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", default="", help="part of the names of the folds to run")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--crop", default="lungs")
    parser.add_argument("--lr", type=float, help="of Phase B")
    parser.add_argument("--epochs", type=int, help="of Phase B")
    parser.add_argument("--even_exposure", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--film_side", type=int, default=FILM_SIDE)
    parser.add_argument("--cpus", type=int, default=0)
    main(parser.parse_args())
