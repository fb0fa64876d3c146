"""The home of a model: the films of its own split, and its scores on the test films there."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.dataset.duplicates import near_duplicates
from lib.dataset.manifest import FilmRecord, read_manifest, read_split_digest
from lib.evaluation.films import LabelledFilm, LeftOut, films_of_split
from lib.evaluation.predictions import read_predictions
from lib.evaluation.results import Estimate, HomeScores, ScoredModel
from lib.evaluation.tables import share_unlike
from lib.images.measure import LOW_CONTRAST

COPY = {
    side: f"copy of a {word} film of this model"
    for side, word in (("train", "training"), ("val", "validation"), ("test", "test"))
}


@dataclass(frozen=True)
class HomeFilms:
    """The films that the model was trained, selected and tested on."""

    films: Mapping[str, Sequence[LabelledFilm]]  # side of the split → films
    why_none: str = ""  # why nothing is known of them; empty: they are known

    @staticmethod
    def of(data_dir: Path, split_sha256: str) -> "HomeFilms":
        """The films of data/split.csv, if it is the split of this digest.

        Raises:
            JobError: it is, but data/raw/manifest.csv is damaged or of other films.
        """
        for path in (data_dir / "split.csv", data_dir / "raw" / "manifest.csv"):
            if not path.is_file():
                return HomeFilms({}, f"there is no {path}")
        if read_split_digest(data_dir) != split_sha256:
            return HomeFilms({}, f"{data_dir / 'split.csv'} is another split than the model's")
        return HomeFilms(films_of_split(data_dir, read_manifest(data_dir)))

    @property
    def training(self) -> Sequence[LabelledFilm]:
        """What baselines learn from."""
        return self.films.get("train", ())

    @property
    def patients(self) -> set[str]:
        """Known patients of all sides."""
        every = (film.record.patient for films in self.films.values() for film in films)
        return set(filter(None, every))

    def copies_among(self, records: Sequence[FilmRecord]) -> dict[str, LeftOut]:
        """The records that show a film of the split, by path: equal bytes, or near-duplicates.

        Blank films, which all resemble each other, are compared by bytes alone.
        """
        home = [(side, film) for side, films in self.films.items() for film in films]
        by_bytes = {film.record.sha256: (side, film) for side, film in home}
        copies = {
            record.path: _copy(record, by_bytes[record.sha256], "same bytes as")
            for record in records
            if record.sha256 in by_bytes
        }
        shown = [(side, film) for side, film in home if film.record.contrast >= LOW_CONTRAST]
        rest = [one for one in records if one.path not in copies and one.contrast >= LOW_CONTRAST]
        hashes = [film.record.dhash for _, film in shown] + [record.dhash for record in rest]
        for first, second in near_duplicates(hashes).tolist():
            if first < len(shown) <= second:
                record = rest[second - len(shown)]
                copy = _copy(record, shown[first], "near-duplicate of")
                copies.setdefault(record.path, copy)
        return copies


def scores_at_home(runs_dir: Path, model: ScoredModel, positive: str) -> HomeScores | None:
    """The scores of a model on its own test films, if an evaluation in `runs_dir` has them.

    The rates of the operating point are those of the class `positive`.
    """
    folder = runs_dir / "evaluation"
    for path in (folder / "metrics.json", *sorted(folder.glob("*/metrics.json"))):
        try:
            content = json.loads(path.read_text())
            if _is_at_home(content, model):
                predictions = read_predictions(path.with_name("predictions.csv"))
                return _home_scores(content, share_unlike(predictions), positive)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # none there, or one of another version
    return None


def _is_at_home(content: dict[str, Any], model: ScoredModel) -> bool:
    """Whether metrics.json is of this model, at the same operating point, on its own films.

    A model for a site has the weights of another model; its calibration gives it a name of its own.
    """
    found = content["model"]
    is_same = (found["weights_sha256"], found["name"]) == (model.weights_sha256, model.name)
    point = found.get("operating_point", "")
    return is_same and point == model.operating_point and not content.get("external")


def _copy(record: FilmRecord, at_home: tuple[str, LabelledFilm], how: str) -> LeftOut:
    side, film = at_home
    return LeftOut(record.path, record.label, COPY[side], f"{how} {side}/{film.record.path}")


def _home_scores(content: dict[str, Any], out_of_distribution: float, positive: str) -> HomeScores:
    scores, calibration = content["scores"], content["calibration"]
    point = content["operating_point"]
    point = point if point and point["positive"] == positive else None
    screening = content.get("screening")
    return HomeScores(
        films=content["films"],
        accuracy=_estimate(scores["accuracy"]),
        macro_f1=_estimate(scores["macro_f1"]),
        recall={name: _estimate(of["recall"]) for name, of in scores["per_class"].items()},
        auroc={name: _estimate(of["auroc"]) for name, of in scores["per_class"].items()},
        ece=calibration["after"]["ece"] if calibration else None,
        sensitivity=_estimate(point["sensitivity"]) if point else None,
        specificity=_estimate(point["specificity"]) if point else None,
        screening_sensitivity=_estimate(screening["sensitivity"]) if screening else None,
        screening_specificity=_estimate(screening["specificity"]) if screening else None,
        needs_review=content["review"]["share"],
        out_of_distribution=out_of_distribution if calibration else None,
    )


def _estimate(content: Mapping[str, Any]) -> Estimate:
    interval = content["interval"]
    return Estimate(content["value"], tuple(interval) if interval else None)
