"""Deal the films of data/raw to train, val and test, patients and duplicates whole."""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated

from lib import settings
from lib.dataset import split as splitting
from lib.dataset.audit import Audit, audit
from lib.dataset.manifest import FilmRecord, SplitRecord, read_manifest, write_rows
from lib.dataset.sources import DATASETS, FOLDER, Dataset, class_or_split
from lib.dataset.split import SPLITS
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
            "what to do with the same bytes under two labels; auto is the dataset's own rule",
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
    data_dir: Annotated[Path, settings.DATA_DIR] = settings.DATA_DIR.default,
    seed: Annotated[int, settings.SEED] = settings.SEED.default,
) -> int:
    """Deal the films to data/train|val|test/<CLASS>/ (hard links, ImageFolder layout) and write
    data/split.csv.

    Films of one patient, identical bytes and near-duplicates stay on one side; the classes are
    balanced across the sides. A contradiction, the same bytes under two labels, is settled by
    --on_contradiction. The folders are swapped when the new split is whole: no file of an earlier
    one survives.

    Examples:
        python -m jobs.split
        python -m jobs.split --val_fraction 0.15 --test_fraction 0.15 --seed 7
        python -m jobs.split --on_contradiction drop --group_by '(patient\\d+)_'
    """
    if val_fraction + test_fraction >= 1:
        raise UsageError(
            f"--val_fraction {val_fraction} and --test_fraction {test_fraction} leave nothing to train on."
        )
    with atomic.lock(data_dir, "the data folder"):
        atomic.recover_folder(data_dir / "raw")
        records = read_manifest(data_dir)
        readable = [record for record in records if record.status == "ok"]
        if not readable:
            raise JobError(f"no film in {data_dir / 'raw'} can be read; run the ingest job again.")
        contradictions = splitting.find_contradictions(readable)
        dataset, labels = _dataset(data_dir), sorted({record.label for record in readable})
        policy = _policy(on_contradiction, dataset, labels)
        splitting.check_policy(policy, labels)
        excluded = splitting.apply_policy(contradictions, policy)
        excluded |= {
            record.path: f"unreadable: {record.problem}"
            for record in records
            if record.status != "ok"
        }

        persons = splitting.patients(readable, group_by)
        pairs = splitting.near_duplicates([film.dhash for film in readable])
        groups = splitting.group_films(readable, persons, pairs)
        group_of = dict(zip((film.path for film in readable), groups, strict=True))
        used = [film for film in readable if film.path not in excluded]
        dealt = splitting.draw_splits(
            [film.label for film in used],
            [group_of[film.path] for film in used],
            val_fraction,
            test_fraction,
            seed,
        )
        place = dict(zip((film.path for film in used), dealt, strict=True))
        rows = [
            SplitRecord(
                r.path,
                r.label,
                place.get(r.path, ""),
                group_of.get(r.path, ""),
                excluded.get(r.path, ""),
                r.sha256,
            )
            for r in records
        ]
        known_persons = _require_whole_groups(rows, readable, persons)
        _publish(rows, data_dir)
    _print_counts(rows)
    reason = dataset.why_this_policy if policy == dataset.on_contradiction else "no class to prefer"
    _print_audit(audit(records, pairs), policy, reason if on_contradiction == "auto" else "")
    _warn_of_unused_folders(readable, group_by)
    used_groups = {row.group for row in rows if row.split}
    console.say(
        f"groups: {len(used_groups)} groups hold the {len(used)} films, {known_persons} patients are known by name, "
        f"{len(pairs)} pairs are identical or near-duplicates. Groups on two sides: 0."
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
    for row in console.track(
        [row for row in rows if row.split], "linking films", sum(bool(row.split) for row in rows)
    ):
        atomic.link_or_copy(data_dir / "raw" / row.path, staging / row.file)
    (data_dir / "split.csv").unlink(missing_ok=True)
    for name in SPLITS:
        atomic.swap_folder(staging / name, data_dir / name)
    staging.rmdir()
    write_rows(data_dir / "split.csv", rows, SplitRecord)


def _print_counts(rows: Sequence[SplitRecord]) -> None:
    counts = Counter((row.label, row.split) for row in rows)
    labels = sorted({row.label for row in rows})
    columns = (*SPLITS, "")
    body = [
        (label, *(counts[label, name] for name in columns), sum(counts[label, c] for c in columns))
        for label in labels
    ]
    totals = [sum(counts[label, name] for label in labels) for name in columns]
    console.table(
        "films by class and split",
        ("class", *SPLITS, "excluded", "all"),
        [*body, ("all", *totals, len(rows))],
    )


def _print_audit(found: Audit, policy: str, reason: str) -> None:
    """What the films show of themselves before anything is trained on them."""
    columns = (
        "class",
        "films",
        "median size",
        "sizes",
        "square",
        "tinted",
        "brightness",
        "contrast",
        "blank",
        "files",
    )
    rows = [
        (
            p.label,
            p.films,
            f"{p.width} x {p.height}",
            p.sizes,
            f"{p.square:.0%}",
            f"{p.tinted:.0%}",
            f"{p.brightness:.0f}",
            f"{p.contrast:.0f}",
            p.blank,
            p.files,
        )
        for p in found.properties
    ]
    console.table("what tells the classes apart before a film is looked at", columns, rows)
    by_source = [(source, *counts.values()) for source, counts in found.sources.items()]
    console.table(
        "where the films seem to come from",
        ("source", *(p.label for p in found.properties)),
        by_source,
    )
    if found.single_class_sources:
        console.say(
            f"sources that hold one class alone: {', '.join(found.single_class_sources)}. A model can tell their films by how "
            "they were made; only scores within a source that holds several classes are free of that."
        )
    if found.inverted:
        console.say(
            f"films that look inverted, dark for light: {len(found.inverted)}; the report names the first."
        )
    if found.near_pairs:
        console.say(
            f"{len(found.near_pairs)} further pairs are the same film or nearly so, {found.near_pairs_across_labels} of them "
            "under different labels; the report shows some side by side."
        )
    if not found.contradictions:
        console.say("contradictions: none, no bytes lie under two labels.")
        return
    listed = ", ".join(
        f"{number} {labels}" for labels, number in sorted(found.contradictory_labels.items())
    )
    console.say(
        f"contradictions: {len(found.contradictions)} films lie under two labels ({listed})."
    )
    if found.crossing:
        console.say(
            f"  {found.crossing} of them cross the train, val and test folders of the source."
        )
    console.say(
        f"  On the labels as filed no classifier can be right more often than {found.ceiling:.1%}."
    )
    console.say(f"  Policy {policy}{f' (auto: {reason})' if reason else ''}.")


def _warn_of_unused_folders(films: Sequence[FilmRecord], group_by: str) -> None:
    """Folders below the class folders may be patients, or may not: say that `auto` took no notice
    of them.
    """
    unknown = [PurePosixPath(film.origin).parent for film in films if not film.patient]
    labels = {film.label for film in films}
    folders = {
        folder
        for folder in unknown
        if folder.name and class_or_split(folder.name) not in (*labels, "")
    }
    if group_by == "auto" and folders:
        console.warn(
            f"{len(folders)} folders such as {min(folders)} lie below the class folders and were not taken for patients. "
            "If each is one patient, run split again with --group_by '([^/]+)/[^/]+$'.",
            log_as=f"{len(folders)} folders below the class folders were not taken for patients.",
        )


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
            f"{len(crossing)} groups lie on two sides, {crossing[0]} first: this must not happen, please report it."
        )
    return sum(kind == "person" for kind, _ in sides)


if __name__ == "__main__":
    execute.run(split)
