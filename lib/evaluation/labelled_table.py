"""The evaluation of a table of predictions with a reader's labels, without model and films."""

from dataclasses import dataclass

import pandas as pd

from lib.dataset.label_table import LabelTable
from lib.evaluation.answered_by import AnsweringModel
from lib.evaluation.baselines import no_baselines
from lib.evaluation.evaluation import Options, evaluate
from lib.evaluation.labelled_batch import (
    EarlierChoice,
    join_labels,
    read_table,
    with_labelled_batch,
)
from lib.evaluation.predictions import read_earlier
from lib.evaluation.request import Request
from lib.evaluation.results import Evaluation
from lib.network.artifact import ModelManifest


@dataclass(frozen=True)
class LabelledEvaluation:
    """The scores, and what they were computed from."""

    evaluation: Evaluation  # with `labelled`
    predictions: pd.DataFrame  # the scored films in the form of predictions.csv
    manifest: ModelManifest | None  # None: the model's folder was not found


def evaluate_table(request: Request) -> LabelledEvaluation:
    """Score the films of a table that have a label; with --compare those that were scored then.

    Raises:
        UsageError: a table that is neither CSV nor Parquet.
        JobError: a damaged table, or no film with a label.
    """
    assert request.predictions
    assert request.labels
    labels, table = LabelTable.read(request.labels), read_table(request.predictions)
    wanted = AnsweringModel.of_folder(request.model).name if request.model else None
    choice = EarlierChoice.read(request.compare) if request.compare else None
    joined = join_labels(table, request.predictions.name, labels, wanted, choice)
    films, classes = joined.predictions, joined.classes
    model = AnsweringModel.find(joined.model, request.model, request.runs_dir)
    earlier = None
    if request.compare:
        earlier = read_earlier(request.compare, list(films["path"]), list(films["label"]), classes)
    options = Options.of(request, classes)
    evaluation = evaluate(
        films, no_baselines(), model.identity, model.calibration, options, earlier
    )
    batch = joined.batch_beside(model.learnt(request.data_dir))
    return LabelledEvaluation(with_labelled_batch(evaluation, batch), films, model.manifest)
