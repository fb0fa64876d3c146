"""The part of an evaluation that only films from elsewhere have: what changes away from home."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from lib.evaluation.evaluation import Options, stored_operating_point
from lib.evaluation.films import Elsewhere, EvaluationSet
from lib.evaluation.home import scores_at_home
from lib.evaluation.model import Scored
from lib.evaluation.predictions import LabelledPredictions
from lib.evaluation.recalibration import SiteFilms, set_up
from lib.evaluation.request import Request
from lib.evaluation.results import External, HomeScores
from lib.evaluation.tables import share_unlike
from lib.prediction.calibration import Calibration
from lib.prediction.classes import ABNORMAL
from lib.prediction.prediction import Prediction


def external_results(
    request: Request,
    predictions: pd.DataFrame,
    films: EvaluationSet,
    scored: Scored,
    options: Options,
    outputs: Sequence[Prediction],
) -> External:
    """What only films from elsewhere have. Writes the model for their site, if it is asked for.

    `predictions` is predictions.csv, `outputs` what the network computed for its rows.
    """
    assert films.elsewhere
    home = scores_at_home(request.runs_dir, scored.identity, options.positive)
    external = _away_from_home(predictions, films.elsewhere, home, scored.calibration, options)
    if not request.recalibrate:
        return external
    site = SiteFilms.of(films, outputs, scored.manifest.classes)
    table = request.folder / "recalibrated.csv"
    result = set_up(
        site, predictions, scored, options, request.prevalence, request.recalibrate, table
    )
    return replace(external, recalibration=result)


def _away_from_home(
    predictions: pd.DataFrame,
    elsewhere: Elsewhere,
    home: HomeScores | None,
    calibration: Calibration | None,
    options: Options,
) -> External:
    """Compute them from predictions.csv and from what is known about the folder."""
    labelled = LabelledPredictions.of(predictions)
    return External(
        name=elsewhere.name,
        left_out=dict(sorted(Counter(one.reason for one in elsewhere.left_out).items())),
        no_copies_because=elsewhere.no_home,
        namesakes=elsewhere.namesakes,
        missing_classes=tuple(
            name
            for number, name in enumerate(labelled.classes)
            if not (labelled.targets == number).any()
        ),
        out_of_distribution=share_unlike(predictions) if calibration else None,
        fitted=stored_operating_point(
            labelled, calibration, options.positive, options, is_fitted=True
        ),
        fitted_screening=stored_operating_point(
            labelled, calibration, ABNORMAL, options, is_fitted=True
        ),
        home=home,
    )
