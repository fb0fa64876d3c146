"""Deal the films of data/raw to train, val and test, patients and duplicates whole."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from lib import settings
from lib.dataset import contradictions, duplicates, provenance
from lib.dataset import split as splitting
from lib.dataset.audit import audit
from lib.dataset.manifest import FilmRecord, SplitRecord, read_manifest, write_rows
from lib.dataset.patients import patients
from lib.dataset.sources import DATASETS, FOLDER, Dataset
from lib.dataset.split import SPLITS
from lib.reports import audit_table
from lib.run import console, execute
from lib.run.errors import DONE, JobError, UsageError
from lib.run.flags import Flag
from lib.storage import atomic


def split(
    *,
    val_fraction: Annotated[
        float, Flag("share of each class that chooses the best epoch", above=0, below=1)
    ] = 0.1,
    test_fraction: Annotated[
        float, Flag("share of each class that is scored once, at the end", above=0, below=1)
    ] = 0.1,
    on_contradiction: Annotated[
        str,
        Flag(
            "what to do with one film under two labels; auto is the dataset's own rule",
            placeholder="auto|keep:CLASS|drop|fail",
        ),
    ] = "auto",
    group_by: Annotated[
        str,
        Flag(
            "how to tell a patient from a path: known collections, not at all, or a regex",
            placeholder="auto|none|REGEX",
        ),
    ] = "auto",
    hold_out: Annotated[
        str | None,
        Flag(
            "source whose films are the test films, all of them; the audit lists the sources",
            placeholder="SOURCE",
        ),
    ] = None,
    data_dir: Annotated[Path, settings.DATA_DIR] = settings.DATA_DIR.default,
    runs_dir: Annotated[Path, settings.RUNS_DIR] = settings.RUNS_DIR.default,  # noqa: ARG001  # log
    seed: Annotated[int, settings.SEED] = settings.SEED.default,
) -> int:
    """Deal the films to data/train|val|test/<CLASS>/ (hard links, ImageFolder layout) and write
    data/split.csv.

    Films of one patient, identical bytes and near-duplicates stay on one side; the classes are
    balanced across the sides. Films that are added later leave nearly all others on their sides. A
    contradiction is one film under two labels: the same bytes, or the same film at another size or
    in another coding. A reader's label (ingest --labels) prevails over the dataset's;
    --on_contradiction decides which copies of the others are excluded. With --hold_out the
    test films are those of one source, which training never sees: what they score says more about
    another hospital than films of the same sources do. The folders are swapped when the new split
    is whole: no file of an earlier split stays.

    Examples:
        python -m jobs.split
        python -m jobs.split --val_fraction 0.15 --test_fraction 0.15 --seed 7
        python -m jobs.split --on_contradiction drop --group_by '(patient\\d+)_'
        python -m jobs.split --hold_out nih
    """
    if val_fraction + test_fraction >= 1:
        raise UsageError(
            f"--val_fraction {val_fraction} and --test_fraction {test_fraction} "
            "leave nothing to train on."
        )
    with atomic.lock(data_dir, "the data folder"):
        atomic.recover_folder(data_dir / "raw")
        records = read_manifest(data_dir)
        films = [record for record in records if record.status == "ok"]
        if not films:
            raise JobError(f"no film in {data_dir / 'raw'} can be read; run the ingest job again.")
        dataset, labels = _dataset(data_dir), sorted({film.label for film in films})
        policy = _policy(on_contradiction, dataset, labels)
        contradictions.check_policy(policy, labels)
        persons = patients(films, group_by)

        pairs = duplicates.near_duplicates([film.dhash for film in films])
        by_content = contradictions.find_content_contradictions(films, pairs)
        excluded = contradictions.apply_policy(
            contradictions.find_contradictions(films) + by_content, policy
        ) | {r.path: f"unreadable: {r.problem}" for r in records if r.status != "ok"}

        groups = splitting.group_films(films, persons, pairs)
        group_of = dict(zip((film.path for film in films), groups, strict=True))
        used = [film for film in films if film.path not in excluded]
        held: set[str] = set()
        if hold_out:
            groups_of_used = [group_of[film.path] for film in used]
            held, apart = splitting.hold_out(
                used, groups_of_used, provenance.sources(used), hold_out
            )
            excluded |= apart
            used = [film for film in used if film.path not in apart]
            test_fraction = 0.0  # of the other sources
        drawn = [film for film in used if film.path not in held]
        sides = splitting.draw_splits(
            [film.label for film in drawn],
            [group_of[film.path] for film in drawn],
            [film.sha256 for film in drawn],
            val_fraction,
            test_fraction,
            seed,
        )
        side_of = dict(zip((film.path for film in drawn), sides, strict=True))
        side_of |= dict.fromkeys(held, "test")
        rows = [
            SplitRecord(
                path=record.path,
                label=record.label,
                split=side_of.get(record.path, ""),
                group=group_of.get(record.path, ""),
                excluded_because=excluded.get(record.path, ""),
                sha256=record.sha256,
            )
            for record in records
        ]
        known_patients = _require_whole_groups(rows, films, persons)
        _publish(rows, data_dir)
    audit_table.print_counts(rows)
    reason = dataset.why_this_policy if policy == dataset.on_contradiction else "no class to prefer"
    findings = audit(records, pairs)
    audit_table.print_audit(findings)
    audit_table.print_contradictions(
        findings, by_content, policy, reason if on_contradiction == "auto" else ""
    )
    if group_by == "auto":
        audit_table.advise_group_by(films, "run split again")
    console.say(
        f"groups: {len({row.group for row in rows if row.split})} groups hold the {len(used)} "
        f"films, {known_patients} patients are known by name, {len(pairs)} pairs are identical "
        "or near-duplicates. Groups on two sides: 0."
    )
    return DONE


def _policy(on_contradiction: str, dataset: Dataset, labels: Sequence[str]) -> str:
    """The policy to carry out. `auto` is the dataset's own; where its kept class does not exist,
    all copies go.
    """
    if on_contradiction != "auto":
        kind, colon, kept = on_contradiction.partition(":")
        return f"{kind}:{kept.upper()}" if colon else on_contradiction
    kept = dataset.on_contradiction.partition(":")[2]
    return dataset.on_contradiction if kept in labels else "drop"


def _dataset(data_dir: Path) -> Dataset:
    source = data_dir / "raw" / "source.json"
    name = json.loads(source.read_text())["dataset"] if source.exists() else FOLDER.name
    return DATASETS.get(name, FOLDER)


def _publish(rows: Sequence[SplitRecord], data_dir: Path) -> None:
    """Build the three folders beside the old ones, then swap them; split.csv comes last and makes
    the split valid.
    """
    staging = data_dir / f".split{atomic.PARTIAL}"
    shutil.rmtree(staging, ignore_errors=True)
    raw, used = data_dir / "raw", [row for row in rows if row.split]
    for row in console.track(used, "linking films", len(used)):
        atomic.link_or_copy(raw / row.path, staging / row.file)
    (data_dir / "split.csv").unlink(missing_ok=True)
    for name in SPLITS:
        atomic.swap_folder(staging / name, data_dir / name, names_alone=True)  # hard links
    staging.rmdir()
    write_rows(data_dir / "split.csv", rows, SplitRecord)


def _require_whole_groups(
    rows: Sequence[SplitRecord], films: Sequence[FilmRecord], persons: Sequence[str]
) -> int:
    """Check, before anything is published, that no group and no patient lies on two sides. Returns
    the patients.
    """
    person_of = {film.path: person for film, person in zip(films, persons, strict=True) if person}
    sides: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        if row.split:
            sides.setdefault(("group", row.group), set()).add(row.split)
            if row.path in person_of:
                sides.setdefault(("person", person_of[row.path]), set()).add(row.split)
    crossing = [name for (_, name), found in sides.items() if len(found) > 1]
    if crossing:
        raise JobError(
            f"{len(crossing)} groups lie on two sides, {crossing[0]} first: "
            "this must not happen, please report it."
        )
    return sum(kind == "person" for kind, _ in sides)


if __name__ == "__main__":
    execute.run(split)
