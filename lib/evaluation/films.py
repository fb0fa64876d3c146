"""The films that an evaluation scores, and the films that its baselines learn from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lib.dataset import provenance
from lib.dataset.manifest import FilmRecord, SplitRecord, read_manifest, read_split
from lib.run.errors import JobError


@dataclass(frozen=True)
class LabelledFilm:
    """One film with its label, wherever it comes from."""

    name: str  # path below the folder of its set, as in predictions.csv
    file: Path
    label: str
    group: str  # films of one group (patient) are not independent
    source: str  # collection that it seems to come from
    record: FilmRecord


@dataclass(frozen=True)
class EvaluationSet:
    """Films to score, with what is known about their collection."""

    films: Sequence[LabelledFilm]
    folder: Path  # that the films' names start from
    training: Sequence[LabelledFilm]  # what baselines learn from
    manifest: Sequence[FilmRecord]  # every file of the collection, unreadable ones too
    raw: Path  # folder that the manifest's paths start from

    @property
    def names(self) -> list[str]:
        """Of the films to score, in order."""
        return [film.name for film in self.films]

    @property
    def labels(self) -> list[str]:
        """Of the films to score, in order."""
        return [film.label for film in self.films]

    @staticmethod
    def of_split(data_dir: Path) -> "EvaluationSet":
        """The test films of data/split.csv; baselines learn from its training films.

        Raises:
            JobError: no split, no manifest, no test film, or a film that the manifest lacks.
        """
        records = read_manifest(data_dir)
        sources = provenance.sources(records)
        known = {
            record.path: (record, source) for record, source in zip(records, sources, strict=True)
        }
        films: dict[str, list[LabelledFilm]] = {"train": [], "val": [], "test": []}
        for row in read_split(data_dir):
            if not row.split:
                continue
            if row.path not in known:
                raise JobError(
                    f"{row.path} is in split.csv but not in the manifest. Run the split job again."
                )
            films[row.split].append(_film(row, data_dir, *known[row.path]))
        if not films["test"]:
            raise JobError(f"{data_dir / 'split.csv'} has no test film. Run the split job again.")
        raw, folder = data_dir / "raw", data_dir / "test"
        return EvaluationSet(films["test"], folder, films["train"], records, raw)


def _film(row: SplitRecord, data_dir: Path, record: FilmRecord, source: str) -> LabelledFilm:
    name = f"{row.label}/{PurePosixPath(row.path).name}"
    return LabelledFilm(name, data_dir / row.file, row.label, row.group, source, record)
