"""The files of a folder from elsewhere that are not scored: excluded.csv, and on the console."""

from collections import defaultdict
from dataclasses import asdict, fields
from pathlib import Path

from lib.evaluation.elsewhere import FolderElsewhere
from lib.evaluation.fetched_folder import UNFETCHED
from lib.evaluation.films import Elsewhere, EvaluationSet, LeftOut
from lib.evaluation.labelled_folder import NO_FILE
from lib.evaluation.results import External
from lib.reports.audit_table import advise_group_by
from lib.run import console
from lib.storage import atomic
from lib.storage.cells import to_cell

NAMED = 3  # on the console, for each reason


def report_left_out(folder: FolderElsewhere, films: EvaluationSet, path: Path) -> None:
    """Write excluded.csv to `path`, print what is not scored, and advise on --group_by."""
    assert films.elsewhere
    write_left_out(path, films.elsewhere)
    print_left_out(films.elsewhere)
    if folder.table is None and not folder.reading.is_grouped:
        advise_group_by([film.record for film in films.films], "score them again")


def write_left_out(path: Path, elsewhere: Elsewhere) -> None:
    """Write excluded.csv: one row per file or row of the table that is not scored."""
    rows = (
        {name: to_cell(text) for name, text in asdict(one).items()} for one in elsewhere.left_out
    )
    atomic.write_csv(path, [field.name for field in fields(LeftOut)], rows)


def print_left_out(elsewhere: Elsewhere) -> None:
    """Print how many files are left out for each reason, with the first names."""
    by_reason: dict[str, list[LeftOut]] = defaultdict(list)
    for one in elsewhere.left_out:
        by_reason[one.reason].append(one)
    for reason, files in by_reason.items():
        what = f"{len(files)} left out: {reason}"
        console.warn(f"{what}, such as {', '.join(map(_named, files[:NAMED]))}", log_as=what)
    if elsewhere.no_home:
        console.warn(
            f"copies of the model's own films cannot be looked for, because {elsewhere.no_home}; "
            "no baseline can be trained either. Restore the data folder, or be sure that the films "
            "were not used at home."
        )
    if elsewhere.namesakes:
        console.warn(
            f"{elsewhere.namesakes} films that are scored name a patient who is in the model's "
            "split: other films, but perhaps of the same patients."
        )


def count_missing(external: External) -> int:
    """Films that should have been scored and are not there: a reason to look, and for exit 3."""
    return sum(external.left_out.get(reason, 0) for reason in (NO_FILE, UNFETCHED))


def _named(one: LeftOut) -> str:
    label = f" ({one.label})" if one.label and one.label not in one.path.split("/") else ""
    return f"{to_cell(one.path)}{label}" + (f": {to_cell(one.detail)}" if one.detail else "")
