"""Leave one source out: the training of a model repeated for each fold."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pandas as pd

from lib.evaluation.leave_source_out import Fold, FoldAnswers, LeftOutTable, rows_of
from lib.evaluation.model import Scored
from lib.evaluation.request import Request
from lib.evaluation.tables import compute_of
from lib.run import console
from lib.training.feature_cache import Wanted
from lib.training.films import Part, SplitFilms
from lib.training.folds import LARGEST_LAST_BLOCK, Folds, last_tap, wanted_by
from lib.training.machines import Machines
from lib.training.recipe import NotRepeatableError, recipe_of


def table_of_folds(folds: Sequence[Fold], request: Request, scored: Scored) -> LeftOutTable:
    """Rows of leave_source_out.csv; without rows where the training cannot be repeated."""
    compute = compute_of(request, scored) if request.baselines else None
    machines = Machines(cpus=request.cores, workers=request.readers)
    try:
        recipe = recipe_of(request.runs_dir, scored.manifest.weights_sha256)
        training = Folds(recipe, SplitFilms.read(request.data_dir), machines)
        answers = _answers_of(folds, training, request)
        classes = scored.manifest.classes
        parts = [rows_of(fold, said, classes, compute) for fold, said in answers]
    except NotRepeatableError as error:
        return LeftOutTable(str(error))
    return LeftOutTable(rows=pd.concat(parts, ignore_index=True))


def _answers_of(
    folds: Sequence[Fold], training: Folds, request: Request
) -> Iterator[tuple[Fold, FoldAnswers]]:
    """Each fold with what its network says of the films to score.

    The films of a fold are rows of the cache that the training job filled. The last block is
    trained only where the model's own was, and on `LARGEST_LAST_BLOCK` films at most.

    Raises:
        NotRepeatableError: as `Folds`.
    """
    recipe, split = training.recipe, training.split
    if len(split.films["train"]) > LARGEST_LAST_BLOCK:
        recipe = replace(recipe, last_block=None)
    scored = [split.training_film(film) for fold in folds for film in fold.scored]
    wanted = wanted_by(recipe, split)
    wanted.append(Wanted(scored, [(0, last_tap(recipe))]))
    training.fill(wanted, request.runs_dir, request.cache_gb)
    number_of = {
        part: {film.path: number for number, film in enumerate(films)}
        for part, films in split.films.items()
    }
    for fold in folds:
        rows: dict[Part, list[int]] = {
            "train": [number_of["train"][film.file] for film in fold.training],
            "val": [number_of["val"][film.file] for film in fold.validation],
        }
        console.say(f"training without {fold.source}, on {len(fold.training)} films")
        trained = training.train(rows, recipe)
        probabilities = trained.of_films([split.training_film(film) for film in fold.scored])
        yield fold, FoldAnswers(probabilities, "b" if recipe.last_block else "a")
