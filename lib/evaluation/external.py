"""The part of an evaluation that only films from elsewhere have: what changes away from home."""

from collections import Counter

import pandas as pd

from lib.evaluation.evaluation import Options, stored_operating_point
from lib.evaluation.films import Elsewhere
from lib.evaluation.predictions import LabelledPredictions
from lib.evaluation.results import External, HomeScores
from lib.prediction.calibration import Calibration
from lib.prediction.classes import ABNORMAL
from lib.prediction.rows import BETWEEN_REASONS
from lib.prediction.triage import UNLIKE


def away_from_home(
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


def share_unlike(predictions: pd.DataFrame) -> float:
    """Share of the films with a prediction that are out of distribution."""
    reasons = predictions["reasons"][predictions["prediction"].ne("")]
    return float(reasons.map(lambda text: UNLIKE in text.split(BETWEEN_REASONS)).mean())
