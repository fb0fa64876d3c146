"""What a model could score without looking at a lung: baselines from file metadata, and from a
thumbnail.

A high score on a public collection says little while the size of a file, or a blurred outline,
gives the class away as well. Both baselines learn from the same training films and answer the same
test films as the model. Source of the idea: A. DeGrave, J. Janizek, S.-I. Lee, "AI for radiographic
COVID-19 detection selects shortcuts over signal", Nature Machine Intelligence 3 (2021).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lib.dataset.manifest import FilmRecord
from lib.dataset.provenance import _kind

TREES = 300
UNDECIDED = (
    0.1  # macro-F1 by which the model may be better where a margin that reaches 0 decides nothing
)
BASELINES = {
    "metadata": "file metadata alone: size, aspect ratio, tint, file type, colour mode, bytes per pixel",
    "thumbnail": "a 32 x 32 thumbnail alone",
}
BLIND = {  # what a baseline that is not beaten says of the films
    "metadata": "sees none. The classes differ by how the files were made.",
    "thumbnail": "makes out no detail of a lung. What tells the classes apart here may be how the films were made, or age.",
}


def metadata(records: Sequence[FilmRecord]) -> np.ndarray:
    """`(N, features)` of what a file shows before it is looked at."""
    kinds = sorted({_kind(record) for record in records})
    modes = sorted({record.mode for record in records})
    return np.array(
        [
            [
                record.width,
                record.height,
                record.width / max(record.height, 1),
                record.bytes / max(record.width * record.height, 1),
                record.tint,
                kinds.index(_kind(record)),
                modes.index(record.mode),
            ]
            for record in records
        ],
        dtype=np.float64,
    )


def predict(
    train: np.ndarray, labels: Sequence[str], test: np.ndarray, seed: int, cores: int
) -> tuple[list[str], np.ndarray]:
    """Classes, sorted, and their probabilities `(M, classes)` for `test` `(M, features)`, by a
    forest grown on `train`.
    """
    from sklearn.ensemble import ExtraTreesClassifier

    forest = ExtraTreesClassifier(
        TREES, min_samples_leaf=2, class_weight="balanced", random_state=seed, n_jobs=cores
    )
    names, numbers = np.unique(
        np.asarray(labels, dtype=str), return_inverse=True
    )  # names that are digits are no numbers
    forest.fit(train, numbers)
    return names.tolist(), forest.predict_proba(test)


def verdict(
    model: float,
    interval: tuple[float, float] | None,
    baselines: dict[str, float],
    margins: dict[str, tuple[float, float] | None],
    chance: float,
) -> dict[str, Any]:
    """What the model's macro-F1 is worth beside the baselines', in words.

    `margins` are the intervals of model minus baseline on the same films. Levels: "chance" when the
    model's own `interval` reaches `chance` and no baseline does clearly better; where a baseline is
    not clearly beaten, "undecided" when the margin is too wide to tell, else "shortcut";
    "confounded" when a baseline gets more than half of the way from chance to the model; else
    "clear".
    """
    best = max(baselines, key=lambda name: baselines[name])
    unbeaten = [margin for margin in margins.values() if margin is None or margin[0] <= 0]
    share = min((baselines[best] - chance) / (model - chance), 1.0) if model > chance else 1.0
    what = {"metadata": "File metadata alone", "thumbnail": "A 32 x 32 thumbnail"}[best]
    scores = f"{what} reaches a macro-F1 of {baselines[best]:.3f} on the same films, the model {model:.3f}"
    outdone = any(margin is not None and margin[1] < 0 for margin in margins.values())
    if (interval is None or interval[0] <= chance) and not outdone:
        level, words = (
            "chance",
            f"Nothing here shows that the model does better than guessing: its macro-F1 of {model:.3f} cannot be told from "
            f"chance ({chance:.3f}). "
            "Look at the labels, and at how many films there are.",
        )
    elif unbeaten and all(margin is not None and margin[1] > UNDECIDED for margin in unbeaten):
        level, words = (
            "undecided",
            f"These test films are too few to tell whether the model reads lungs. {scores}, and the true difference may be "
            "large or none: get more films before anything is said of this model.",
        )
    elif unbeaten:
        level, words = (
            "shortcut",
            (
                f"Nothing here shows that the model reads lungs. {scores}: it does not clearly beat a baseline that "
                f"{BLIND[best]} Get films of all classes from the same place."
            ),
        )
    elif share > 0.5:
        level, words = (
            "confounded",
            (
                f"The model beats its baselines, but most of this score can be had without looking at a lung. {scores}. "
                "Expect less at another hospital, and read the scores within one source."
            ),
        )
    else:
        level, words = (
            "clear",
            f"The model clearly beats what can be had without looking at a lung. {scores}.",
        )
    return {"level": level, "words": words, "best_baseline": best, "share_without_lungs": share}
