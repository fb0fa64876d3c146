"""The findings of a split, printed: counts by class, the audit, the contradictions."""

from collections import Counter
from collections.abc import Sequence

from lib.dataset.audit import Audit
from lib.dataset.contradictions import Contradiction, count_labels
from lib.dataset.manifest import FilmRecord, SplitRecord
from lib.dataset.patients import find_patient_folders
from lib.dataset.split import SPLITS
from lib.run import console


def print_counts(rows: Sequence[SplitRecord]) -> None:
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


def print_audit(found: Audit) -> None:
    """What can be told of the films before a model is trained on them."""
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
    console.table("what tells the classes apart without looking at the films", columns, rows)
    by_source = [(source, *counts.values()) for source, counts in found.sources.items()]
    console.table(
        "where the films seem to come from",
        ("source", *(p.label for p in found.properties)),
        by_source,
    )
    if found.single_class_sources:
        console.say(
            f"sources that hold one class alone: {', '.join(found.single_class_sources)}. "
            "A model can recognise their films by how they were made; only scores within a source "
            "that holds several classes are free of that."
        )
    if found.inverted:
        console.say(
            f"films that look inverted, dark for light: {len(found.inverted)}; "
            "the report names the first."
        )
    if found.near_pairs:
        console.say(
            f"{len(found.near_pairs)} further pairs are the same film or nearly so, "
            f"{found.near_pairs_across_labels} of them under different labels; "
            "the report shows some side by side."
        )


def print_contradictions(
    found: Audit, by_content: Sequence[Contradiction], policy: str, reason: str
) -> None:
    """Films under two labels, by bytes and by content, and the policy that was carried out.
    `reason` explains the policy where it was chosen by `auto`.
    """
    if not found.contradictions:
        console.say("contradictions: none, no bytes lie under two labels.")
    else:
        console.say(
            f"contradictions: {len(found.contradictions)} films lie under two labels "
            f"({_list(found.contradictory_labels)})."
        )
    if found.crossing:
        console.say(
            f"  {found.crossing} of them cross the train, val and test folders of the source."
        )
    if by_content:
        console.say(
            f"contradictions by content: {len(by_content)} pairs are one film under two labels, "
            f"at another size or in another coding ({_list(count_labels(by_content))})."
        )
    if found.contradictions:
        console.say(
            "  On the labels as filed no classifier can be right more often than "
            f"{found.ceiling:.1%}."
        )
    settled = sum(bool(one.readers_label) for one in (*found.contradictions, *by_content))
    if settled:
        console.say(f"  The label of a reader settles {settled} of them.")
    if found.contradictions or by_content:
        console.say(f"  Policy {policy}{f' (auto: {reason})' if reason else ''}.")


def _list(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {labels}" for labels, number in sorted(counts.items()))


def advise_group_by(films: Sequence[FilmRecord], again: str) -> None:
    """Say which folders may be patients, where `--group_by auto` took none for one.

    `again` is what to do with --group_by.
    """
    found = find_patient_folders(films)
    if found:
        like = f" (as in {found.layout})" if found.layout else ""
        console.warn(
            f"{found.folders} folders such as {found.example} lie below the class folders{like} "
            f"and were not taken for patients. If each is one patient, {again} with "
            f"--group_by '{found.pattern}'.",
            log_as=f"{found.folders} folders below the class folders were not taken for patients.",
        )
