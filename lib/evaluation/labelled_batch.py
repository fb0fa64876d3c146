"""A table of predictions with a reader's labels: which films are scored, and what this is worth."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import pandas as pd

from lib.dataset.collections import source_and_patient
from lib.dataset.label_table import CANNOT_TELL, NOT_A_CHEST_FILM, LabelRow, LabelTable, Meanings
from lib.dataset.provenance import UNKNOWN
from lib.evaluation.predictions import PROBABILITY, classes_of, read_predictions
from lib.evaluation.results import Estimate, Evaluation, LabelledBatch
from lib.prediction.rows import SAMPLED
from lib.run.errors import JobError, UsageError
from lib.storage.cells import from_cell

NEEDED = ("path", "prediction", "needs_review", "model")  # columns
Result = TypeVar("Result")


@dataclass(frozen=True)
class EarlierChoice:
    """Which films an earlier evaluation of a table scored, and how they were chosen from it."""

    paths: Collection[str]
    chosen: str
    readable: int  # films of that table with a prediction

    @staticmethod
    def read(folder: Path) -> "EarlierChoice | None":
        """Of the evaluation in `folder`; None if it is not whole, or of no table with labels."""
        try:
            labelled = json.loads((folder / "metrics.json").read_text())["labelled"]
            paths = set(read_predictions(folder / "predictions.csv")["path"])
            return EarlierChoice(paths, labelled["chosen"], labelled["readable"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def of(self, readable: pd.DataFrame) -> tuple[Any, pd.DataFrame]:
        """As `_chosen`, for the same films in the table of another model.

        How they were chosen holds for a table of the same number of films alone.
        """
        is_same_table = len(readable) == self.readable
        kept = readable[readable["path"].isin(self.paths)]
        return (self.chosen if is_same_table else "some"), kept


@dataclass
class _Answers:
    """What the labels say of the films of a table, by the table's `path`."""

    labels: dict[str, str] = field(default_factory=dict)
    patients: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)  # SHA-256, where the labels have it
    not_in_table: int = 0  # labels of other films


@dataclass(frozen=True)
class LabelledPredictionTable:
    """The films to score, in the form of predictions.csv, and how they were chosen."""

    predictions: pd.DataFrame
    model: str  # as the table names it
    batch: LabelledBatch
    digests: Sequence[str]  # SHA-256 of the films to score, where the labels have them

    @property
    def classes(self) -> list[str]:
        """Of the model."""
        return classes_of(self.predictions)

    def batch_beside(self, learnt: Collection[str]) -> LabelledBatch:
        """What is known about the films, for a model that was trained or selected on `learnt`.

        These are digests. Scores of films that a model has learnt are no estimate of others.
        """
        number = sum(digest in learnt for digest in self.digests)
        if not number:
            return self.batch
        words = (
            f"{number} of the {len(self.predictions)} scored films are among the training or "
            "validation films of this model, which flatters it: the scores say nothing about other "
            "films."
        )
        return replace(self.batch, learnt=number, generalises=False, words=words)


def read_table(path: Path) -> pd.DataFrame:
    """A table of predict_batch as text, with numbers for probabilities.

    Raises:
        UsageError: neither CSV nor Parquet.
        JobError: it cannot be read, or is no table of predict_batch.
    """
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise UsageError(f"--predictions {path}: give a table in .csv or .parquet.")
    try:
        table = _read_parquet(path) if path.suffix.lower() == ".parquet" else read_predictions(path)
    except FileNotFoundError:
        raise JobError(f"--predictions {path}: there is no such table.") from None
    except (OSError, ValueError, ImportError) as error:
        raise JobError(f"--predictions {path} cannot be read: {error}.") from error
    missing = [name for name in NEEDED if name not in table]
    if missing or not classes_of(table):
        raise JobError(
            f"--predictions {path} is no table of predict_batch: it has no column "
            f"{', '.join(missing) or 'prob_<CLASS>'}."
        )
    return table


def join_labels(
    table: pd.DataFrame,
    name: str,
    labels: LabelTable,
    model: str | None,
    earlier: EarlierChoice | None = None,
) -> LabelledPredictionTable:
    """The films of a table that a reader has labelled; `name` is the table's.

    `model` selects the rows of one model, where the table has rows of several. To be compared with
    an `earlier` evaluation, the films are those that it scored.

    Raises:
        JobError: rows of several models or none of the wanted one, a film with two labels, or no
            film to score.
    """
    table = _rows_of_one_model(table, name, model)
    classes = classes_of(table)
    answers = _answers(table, labels, classes)
    label_of = answers.labels
    readable = table[table["prediction"].ne("")]
    chosen, kept = earlier.of(readable) if earlier else _chosen(readable, label_of)
    films = kept[kept["path"].map(lambda path: label_of.get(path) in classes)]
    answered = readable[readable["path"].isin(label_of.keys())]
    given = answered["path"].map(label_of)
    if films.empty:
        raise JobError(
            f"--labels {labels.path}: no film of {name} has a label that this model knows "
            f"({', '.join(classes)}). {len(answered)} of its films have an answer, "
            f"{answers.not_in_table} labels are of other films. Films are found by their path."
        )
    batch = LabelledBatch(
        table=name,
        chosen=chosen,
        generalises=chosen in ("all", "random sample"),
        words=_words(chosen, len(films), len(readable), len(answered)),
        readable=len(readable),
        answered=len(answered),
        not_a_chest_film=int(given.eq(NOT_A_CHEST_FILM).sum()),
        cannot_tell=int(given.eq(CANNOT_TELL).sum()),
        unknown_class=int((~given.isin([*classes, NOT_A_CHEST_FILM, CANNOT_TELL])).sum()),
        not_in_table=answers.not_in_table,
    )
    predictions = _as_predictions(films, label_of, answers.patients)
    digests = [answers.digests[path] for path in films["path"] if path in answers.digests]
    return LabelledPredictionTable(predictions, str(table["model"].iloc[0]), batch, digests)


def with_labelled_batch(evaluation: Evaluation, batch: LabelledBatch) -> Evaluation:
    """The evaluation with what is known about its films.

    Where the films were not chosen at random it describes them alone: without intervals, operating
    points, calibration and the share that needs no review, all of which speak of other films.
    """
    if batch.generalises:
        return replace(evaluation, labelled=batch)
    return replace(
        _without_intervals(evaluation),
        operating_point=None,
        screening=None,
        calibration=None,
        conformal=None,
        labelled=batch,
    )


def _read_parquet(path: Path) -> pd.DataFrame:
    table = pd.read_parquet(path)
    for column in table.columns:
        if column != "confidence" and not column.startswith(PROBABILITY):
            table[column] = table[column].astype(object).where(table[column].notna(), "").map(str)
    return table


def _rows_of_one_model(table: pd.DataFrame, name: str, model: str | None) -> pd.DataFrame:
    names = sorted(table["model"].unique())
    if model is None and len(names) > 1:
        raise JobError(
            f"{name} has rows of {len(names)} models: {', '.join(names)}. Name the folder of one "
            "with --model: its rows are scored."
        )
    rows = table if model is None else table[table["model"].eq(model)]
    if rows.empty:
        of_model = f"of the model {model}; it has {', '.join(names)}" if model and names else ""
        raise JobError(f"{name} has no row {of_model}".rstrip() + ".")
    return rows


def _answers(table: pd.DataFrame, labels: LabelTable, classes: Sequence[str]) -> _Answers:
    cell_of = {from_cell(cell): cell for cell in table["path"]}
    meanings = Meanings.of(classes)
    answers = _Answers()
    row_of: dict[str, LabelRow] = {}
    for row in labels.rows:
        name = next((name for name in row.spellings() if name in cell_of), None)
        if name is None:
            answers.not_in_table += 1
            continue
        cell, label = cell_of[name], meanings.label(row)
        before = answers.labels.get(cell, label)
        if before != label:
            raise labels.two_labels(row, label, row_of[cell], before)
        answers.labels[cell], row_of[cell] = label, row
        answers.patients[cell] = row.patient or source_and_patient(PurePosixPath(name).name)[1]
        if row.sha256:
            answers.digests[cell] = row.sha256
    return answers


def _chosen(readable: pd.DataFrame, label_of: Mapping[str, str]) -> tuple[Any, pd.DataFrame]:
    """How the answered films were chosen, and those among them that are scored."""
    is_answered = readable["path"].isin(label_of.keys())
    if is_answered.all():
        return "all", readable
    if SAMPLED in readable:
        is_sampled = readable[SAMPLED].eq("True")
        if is_sampled.any() and is_answered[is_sampled].all():
            return "random sample", readable[is_sampled]
    answered = readable[is_answered]
    return ("review only" if answered["needs_review"].eq("True").all() else "some"), answered


def _words(chosen: str, scored: int, readable: int, answered: int) -> str:
    """What the scores are of, as a sentence."""
    remedy = (
        "They say nothing about the other films of the table. Draw a random sample (predict_batch "
        "--sample N) and label all of it for an estimate of the whole table."
    )
    return {
        "all": f"The scores are of all {readable} readable films; {scored} have a class.",
        "random sample": f"The scores are of the random sample: {scored} films of {readable}. "
        "Labels of other films are not scored, because they were not drawn at random.",
        "review only": f"The {answered} labelled films are films that ask for a review, which are "
        f"the hard ones. {remedy}",
        "some": f"{answered} of {readable} films have a label, and nothing says that they were "
        f"drawn at random; of a random sample every film must be answered. {remedy}",
    }[chosen]


def _as_predictions(
    films: pd.DataFrame, label_of: Mapping[str, str], patient_of: Mapping[str, str]
) -> pd.DataFrame:
    """The rows in the form of an evaluation's predictions.csv, in the order of the table."""
    found = films.drop(columns=[name for name in ("model", SAMPLED) if name in films])
    found = found.reset_index(drop=True)
    paths = found["path"]
    found.insert(1, "label", paths.map(label_of))
    found["group"] = paths.map(patient_of)
    found["source"] = [
        source_and_patient(PurePosixPath(from_cell(path)).name)[0] or UNKNOWN for path in paths
    ]
    return found


def _without_intervals(result: Result) -> Result:
    """A tree of results whose estimates have no interval."""
    if isinstance(result, Estimate):
        return replace(result, interval=None)
    if is_dataclass(result) and not isinstance(result, type):
        inner = {one.name: _without_intervals(getattr(result, one.name)) for one in fields(result)}
        return replace(result, **inner)
    if isinstance(result, dict):
        return {key: _without_intervals(value) for key, value in result.items()}  # type: ignore[return-value]
    if isinstance(result, tuple):
        return tuple(_without_intervals(value) for value in result)  # type: ignore[return-value]
    return result
