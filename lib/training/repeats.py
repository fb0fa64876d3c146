"""Repeated splits: the head trained on new splits of the same films, from cached features."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from lib.dataset.split import SPLITS, draw_splits
from lib.evaluation.films import EvaluationSet, LabelledFilm
from lib.evaluation.predictions import write_table
from lib.evaluation.repeats import rows_of, score_repeats
from lib.evaluation.request import Request
from lib.evaluation.results import Repeats
from lib.evaluation.tables import withdraw_earlier
from lib.run import console
from lib.run.errors import JobError
from lib.training.films import SplitFilms
from lib.training.folds import Folds, wanted_by
from lib.training.machines import Machines
from lib.training.recipe import NotRepeatableError, Recipe, recipe_of


def repeat(request: Request, films: EvaluationSet, weights_sha256: str) -> Repeats:
    """Write repeats.csv and return the spread of its scores.

    Every seed draws another split of all films, with the proportions of the existing one and whole
    groups, another first head and another order of films. Each view of a film passes the frozen
    layers once, for all seeds and for later runs.

    Raises:
        JobError: the training cannot be repeated, or a class is too small for a split.
    """
    every = sorted(
        [*films.training, *films.validation, *films.films], key=lambda film: film.record.path
    )
    recipe = replace(_recipe(request, weights_sha256), last_block=None)
    split = SplitFilms.read(request.data_dir)
    machines = Machines(cpus=request.cores, workers=request.readers)
    undivided = _undivided(split, every)
    folds = Folds(recipe, undivided, machines)
    folds.fill(wanted_by(recipe, undivided), request.runs_dir, request.cache_gb)
    parts, sizes = [], []
    for seed in range(request.seed, request.seed + request.repeats):
        rows = _drawn(every, films, seed)
        console.say(f"split and head of seed {seed}, {len(rows['train'])} training films")
        trained = folds.train({"train": rows["train"], "val": rows["val"]}, recipe.with_seed(seed))
        tested = [every[row] for row in rows["test"]]
        films_drawn = [undivided.films["val"][row] for row in rows["test"]]
        probabilities = trained.of_films(films_drawn)
        names, labels = [film.name for film in tested], [film.label for film in tested]
        parts.append(rows_of(seed, names, labels, probabilities, split.classes))
        sizes.append(len(rows["train"]))
    table = pd.concat(parts, ignore_index=True)
    withdraw_earlier(request.folder)
    write_table(request.folder / "repeats.csv", table)
    return score_repeats(table, round(sum(sizes) / len(sizes)))


def _recipe(request: Request, weights_sha256: str) -> Recipe:
    try:
        return recipe_of(request.runs_dir, weights_sha256)
    except NotRepeatableError as error:
        raise JobError(
            f"--repeats {request.repeats} repeats the training of the model, but {error}. Give the "
            "RUNS_DIR that it was trained in."
        ) from error


def _undivided(split: SplitFilms, films: Sequence[LabelledFilm]) -> SplitFilms:
    """All films as training films and as validation films, whichever side the split has them on."""
    every = [split.training_film(film) for film in films]
    return replace(split, films={"train": every, "val": every})


def _drawn(
    every: Sequence[LabelledFilm], films: EvaluationSet, seed: int
) -> Mapping[str, list[int]]:
    """Numbers of the films on each side of a new split."""
    labels, groups = [film.label for film in every], [film.group or film.name for film in every]
    fractions = [len(side) / len(every) for side in (films.validation, films.films)]
    digests = [film.record.sha256 for film in every]
    sides = draw_splits(labels, groups, digests, fractions[0], fractions[1], seed)
    return {name: [row for row, side in enumerate(sides) if side == name] for name in SPLITS}
