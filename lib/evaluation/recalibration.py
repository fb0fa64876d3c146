"""Set a model up for a site: calibrate it on labelled films from there, and say what that is worth.

The weights stay. Temperature, offsets, thresholds, conformal sets and reference films are fitted on
one half of the films (by patient) and scored on the other half, then the other way round, so that
every film is scored once by a calibration that has not seen it. The published calibration is fitted
on all films.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from lib.evaluation import metrics
from lib.evaluation.evaluation import Options
from lib.evaluation.films import EvaluationSet, LabelledFilm
from lib.evaluation.model import Scored
from lib.evaluation.operating_point import cases_and_scores, has_both_sides, rates_of
from lib.evaluation.predictions import Floats, Ints, LabelledPredictions
from lib.evaluation.request import Request
from lib.evaluation.results import Rates, Recalibration, SiteScores
from lib.evaluation.site_model import require_free, write_site_model
from lib.evaluation.tables import labelled_cells, share_unlike, write_predictions
from lib.prediction.calibration import Calibration, Reference
from lib.prediction.classes import ABNORMAL
from lib.prediction.fitting import (
    calibrate_scaled,
    fit_temperature_and_offsets,
    shift_priors,
    smoothed_targets,
)
from lib.prediction.prediction import Prediction
from lib.prediction.rows import RowSchema, row_of
from lib.prediction.triage import Triage
from lib.run import console
from lib.run.errors import JobError

FEW_PATIENTS = 20  # of a class; fewer say too little about its threshold


@dataclass(frozen=True)
class SiteFilms:
    """The readable films of a site, and what the network computed for them."""

    films: Sequence[LabelledFilm]
    predictions: Sequence[Prediction]
    classes: tuple[str, ...]

    @staticmethod
    def of(
        films: EvaluationSet, predictions: Sequence[Prediction], classes: Sequence[str]
    ) -> "SiteFilms":
        """`predictions`: of `films.films`, in their order. Unreadable films are left out."""
        pairs = zip(films.films, predictions, strict=True)
        readable = [(film, one) for film, one in pairs if one.logits is not None]
        return SiteFilms(
            [film for film, _ in readable], [one for _, one in readable], tuple(classes)
        )

    @cached_property
    def targets(self) -> Ints:
        """Class numbers `(N,)`."""
        return np.array([self.classes.index(film.label) for film in self.films])

    @cached_property
    def groups(self) -> list[str]:
        """Patients `(N,)`."""
        return [film.group for film in self.films]

    @cached_property
    def counts(self) -> dict[str, int]:
        """Films by class."""
        return {
            name: int((self.targets == number).sum()) for number, name in enumerate(self.classes)
        }

    def fit(self, among: Ints, mix: "CaseMix") -> tuple[Calibration, Reference]:
        """A calibration fitted on the films with these indices `(M,)`."""
        chosen = [self.predictions[index] for index in among]
        logits = np.stack([one.logits for one in chosen if one.logits is not None])
        targets = self.targets[among]
        temperature, offsets = fit_temperature_and_offsets(logits, targets)
        shifted = tuple((np.array(offsets) + mix.offsets).tolist())
        return calibrate_scaled(
            temperature,
            shifted,
            logits,
            targets,
            np.stack([one.features for one in chosen]),
            np.stack([one.film.thumbnail for one in chosen]),
            self.classes,
            mix.ratios[targets],
        )

    def halves(self, seed: int) -> list[tuple[Ints, Ints]]:
        """Two pairs of indices (to fit on, to score): no patient is in both parts of a pair."""
        from sklearn.model_selection import StratifiedGroupKFold

        folds = StratifiedGroupKFold(2, shuffle=True, random_state=seed)
        return list(folds.split(self.targets, self.targets, self.groups))


@dataclass(frozen=True)
class CaseMix:
    """The class shares of the place where the model is to work, against those of the films."""

    offsets: Floats  # (classes,), of the logits
    ratios: Floats  # (classes,), share there / share in the films

    @staticmethod
    def of(site: SiteFilms, prevalences: Mapping[str, float]) -> "CaseMix":
        """Without stated prevalences the shares are those of the films."""
        shares = smoothed_targets(site.targets, len(site.classes)).mean(axis=0)
        numbers = {site.classes.index(name): share for name, share in prevalences.items()}
        offsets, new = shift_priors(shares.tolist(), numbers)
        return CaseMix(offsets, new / shares)


def require_site(request: Request, films: EvaluationSet, scored: Scored) -> None:
    """Refuse what --recalibrate cannot set up, before the network reads a film.

    Raises:
        JobError: a folder that holds something else, a model without calibration, an unknown class,
            or too few films.
    """
    if not request.recalibrate:
        return
    require_free(request.recalibrate)
    if not scored.calibration:
        raise JobError(
            "--recalibrate: this model was made without validation films, so it has no calibration "
            "to replace. Train again with validation films."
        )
    classes = scored.manifest.classes
    unknown = [name for name in request.prevalence if name not in classes]
    if unknown:
        raise JobError(f"--prevalence {unknown[0]}: this model knows {', '.join(classes)}.")
    _require_shares(request.prevalence, classes)
    _require_enough(films)


def _require_shares(prevalence: Mapping[str, float], classes: Sequence[str]) -> None:
    """The classes without a stated share need something; where all are stated nothing is left."""
    total, all_stated = sum(prevalence.values()), len(prevalence) == len(classes)
    if prevalence and (abs(total - 1) < 1e-9) != all_stated:
        wanted = "must add up to 1" if all_stated else "leave nothing for the other classes"
        raise JobError(
            f"--prevalence: the shares of {', '.join(prevalence)} {wanted}; they are {total:g}."
        )


def _require_enough(films: EvaluationSet) -> None:
    groups: dict[str, set[str]] = {}
    for film in films.films:
        if not film.record.problem:
            groups.setdefault(film.label, set()).add(film.group)
    if len(groups) < 2:
        raise JobError(
            "--recalibrate needs films of at least two classes; these are all "
            f"{', '.join(groups) or 'unreadable'}."
        )
    few = {name: len(of) for name, of in sorted(groups.items()) if len(of) < FEW_PATIENTS}
    if few:
        has = ", ".join(f"{name} has {count}" for name, count in few.items())
        raise JobError(
            f"--recalibrate needs {FEW_PATIENTS} patients of every class in the folder; {has}. "
            "With that many a sensitivity of 90 % is known to ±13 points, with 35 to ±10, with 140 "
            "to ±5. Add labelled films, or leave the films of that class out."
        )


def set_up(
    site: SiteFilms,
    predictions: pd.DataFrame,
    scored: Scored,
    options: Options,
    prevalences: Mapping[str, float],
    folder: Path,
    table: Path,
) -> Recalibration:
    """Write the model for the site to `folder`, and the cross-fitted predictions to `table`.

    `predictions` is predictions.csv of the same films.
    """
    assert scored.calibration
    mix = CaseMix.of(site, prevalences)
    fitted, reference = site.fit(np.arange(len(site.films)), mix)
    manifest = write_site_model(
        scored.predictor.folder, folder, scored.manifest, fitted, reference, site_name(folder)
    )
    pairs = site.halves(options.seed)
    crossed = _Crossed([site.fit(to_fit, mix) for to_fit, _ in pairs], [of for _, of in pairs])
    answers = crossed.table(site, scored.triage, manifest.name, table)
    count, weights = len(site.films), mix.ratios[site.targets]
    at_home = [scored.calibration] * count
    warn_of_missing_classes(site, prevalences)
    return Recalibration(
        model=manifest.name,
        films=site.counts,
        temperature=fitted.temperature,
        offsets=dict(zip(site.classes, fitted.offsets, strict=True)),
        thresholds=fitted.thresholds,
        prevalences=dict(prevalences),
        before=_scores(predictions, at_home, weights, options),
        after=_scores(answers, crossed.of_films(count), weights, options),
    )


def site_name(folder: Path) -> str:
    """The name of a site in tables, from the name of its model folder."""
    return re.sub(r"[^\w.-]+", "_", folder.resolve().name)


def warn_of_missing_classes(site: SiteFilms, prevalences: Mapping[str, float]) -> None:
    """Say that a class without films is hardly ever predicted from now on."""
    for name, count in site.counts.items():
        if count == 0 and name not in prevalences:
            console.warn(
                f"there is no {name} film in the folder, so the model for this site will hardly "
                f"ever predict {name}. If it occurs there, say how often: --prevalence {name}=0.05"
            )


@dataclass(frozen=True)
class _Crossed:
    """The calibrations of both halves, each with the films that it has not seen."""

    fits: Sequence[tuple[Calibration, Reference]]
    scored: Sequence[Ints]  # indices of films

    def of_films(self, count: int) -> list[Calibration]:
        """The calibration that each film is scored with."""
        number = self._numbers(count)
        return [self.fits[half][0] for half in number]

    def table(self, site: SiteFilms, triage: Triage, model: str, path: Path) -> pd.DataFrame:
        """Write the predictions of the readable films."""
        schema = RowSchema(site.classes, probability_format=".9g")
        triages = [
            replace(triage, calibration=calibration, reference=reference)
            for calibration, reference in self.fits
        ]
        rows = []
        numbers = self._numbers(len(site.films))
        for film, answer, half in zip(site.films, site.predictions, numbers, strict=True):
            assert answer.logits is not None
            probabilities = self.fits[half][0].probabilities(answer.logits)
            row = row_of(
                film.name, replace(answer, probabilities=probabilities), triages[half], model
            )
            rows.append(labelled_cells(film, schema.cells(row)))
        return write_predictions(path, rows)

    def _numbers(self, count: int) -> Ints:
        numbers = np.empty(count, dtype=np.int64)
        for number, indices in enumerate(self.scored):
            numbers[indices] = number
        return numbers


def _scores(
    table: pd.DataFrame, calibrations: Sequence[Calibration], weights: Floats, options: Options
) -> SiteScores:
    """Scores of the films with a prediction; each has the calibration that it was scored with."""
    table = table[table["prediction"].ne("")]
    labelled = LabelledPredictions.of(table)
    confidence = labelled.probabilities.max(axis=1)
    correct = labelled.probabilities.argmax(axis=1) == labelled.targets
    of_true = labelled.probabilities[np.arange(len(labelled)), labelled.targets]
    smallest = np.array([one.smallest_probability for one in calibrations])
    positives = dict.fromkeys((options.positive, ABNORMAL))
    rates = (_rates(labelled, name, calibrations, options.seed) for name in positives)
    return SiteScores(
        ece=metrics.expected_calibration_error(confidence, correct, weights=weights),
        brier=metrics.brier(labelled.probabilities, labelled.targets, weights),
        coverage=float(np.average(of_true >= smallest, weights=weights)),
        rates=tuple(filter(None, rates)),
        needs_review=float(table["needs_review"].eq("True").mean()),
        out_of_distribution=share_unlike(table),
    )


def _rates(
    labelled: LabelledPredictions, positive: str, calibrations: Sequence[Calibration], seed: int
) -> Rates | None:
    """At the threshold of each film's calibration; None without one, or without both sides."""
    if not has_both_sides(labelled, positive):
        return None
    if not all(positive in one.thresholds for one in calibrations):
        return None
    cases, scores = cases_and_scores(labelled, positive)
    called = scores >= np.array([one.thresholds[positive] for one in calibrations])
    return Rates(positive, *rates_of(labelled, cases, called, seed))
