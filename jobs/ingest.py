"""Bring films into data/raw/<CLASS>/, index every one of them, and bring the pretrained weights."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

from lib import settings
from lib.dataset import sources
from lib.dataset.joined import Joining, films_of, join, joined, records_to_join
from lib.dataset.label_table import LabelTable
from lib.dataset.labels import LabelledFiles
from lib.dataset.manifest import FilmRecord, write_rows
from lib.dataset.raw import RawPlan, record_of
from lib.dataset.sources import Source
from lib.images.reader import Examination, examine, unexamined
from lib.network import backbones
from lib.network.weights import bring_weights
from lib.run import console, execute
from lib.run.connection import trusted_authorities
from lib.run.errors import DONE, SOME_INPUTS_UNUSABLE, UsageError
from lib.run.flags import Flag
from lib.storage import atomic
from lib.workers.cores import usable_cores
from lib.workers.processes import map_isolated


def ingest(
    *,
    dataset: Annotated[str, settings.DATASET] = settings.DATASET.default,
    classes: Annotated[
        tuple[str, ...],
        Flag(
            "folder names to take as classes, as they are named, comma-separated; "
            "none takes what is there",
            placeholder="A,B,…",
        ),
    ] = (),
    labels: Annotated[
        Path | None,
        Flag(
            "add the films of --dataset folder:PATH that this table labels to data/raw: labels.csv "
            "of the triage page, a CSV with path and label, or Label Studio's export",
            placeholder="FILE.csv|FILE.json",
        ),
    ] = None,
    phantom_films: Annotated[
        int, Flag("how many films to draw for --dataset phantom…", at_least=30)
    ] = 360,
    backbone: Annotated[str, settings.BACKBONE] = settings.BACKBONE.default,
    weights: Annotated[Path | None, settings.WEIGHTS] = settings.WEIGHTS.default,
    max_megapixels: Annotated[float, settings.MAX_MEGAPIXELS] = settings.MAX_MEGAPIXELS.default,
    file_timeout: Annotated[float, settings.FILE_TIMEOUT] = settings.FILE_TIMEOUT.default,
    follow_links: Annotated[bool, settings.FOLLOW_LINKS] = settings.FOLLOW_LINKS.default,
    trust_headers: Annotated[bool, settings.TRUST_HEADERS] = settings.TRUST_HEADERS.default,
    data_dir: Annotated[Path, settings.DATA_DIR] = settings.DATA_DIR.default,
    runs_dir: Annotated[Path, settings.RUNS_DIR] = settings.RUNS_DIR.default,  # noqa: ARG001  # log
    seed: Annotated[int, settings.SEED] = settings.SEED.default,
    cpus: Annotated[int, settings.CPUS] = settings.CPUS.default,
    workers: Annotated[int, settings.WORKERS] = settings.WORKERS.default,
) -> int:
    """Bring films into data/raw/<CLASS>/ and the backbone's ImageNet weights into
    data/cache/weights/.

    train, val and test folders of the source are merged: the split job draws its own. If a class
    is missing, nothing is changed; the old data/raw stays until the new one is whole; a second run
    copies only what is missing or changed. Every file is hashed, decoded and measured in
    data/raw/manifest.csv; an unreadable file is a row with its problem, and the job ends with exit
    code 3. Segmentation masks and the side folders of operating systems and network storage are
    left out and counted. No later job needs a network.

    With --labels films join data/raw instead: what is there stays, and stays in every later ingest.
    Where the table has a film's sha256, its bytes decide which film is meant. A reader's label
    prevails over another label that the dataset gives the same film (split leaves that one out),
    and over an earlier label of a reader, whose place it takes. Films under labels that data/raw
    does not have are left out. A row without a film gives exit code 3.

    Examples:
        python -m jobs.ingest --dataset phantom --backbone efficientnet_lite0
        python -m jobs.ingest --dataset folder:/srv/films
        python -m jobs.ingest --dataset folder:/srv/films --classes "Viral Pneumonia,Normal"
        python -m jobs.ingest --dataset kaggle:muhammadrehan00/chest-xray-dataset/versions/1
        python -m jobs.ingest --dataset folder:/srv/films --follow_links
        python -m jobs.ingest --dataset folder:/srv/inbox --labels labels.csv
        python -m jobs.ingest --backbone resnet18 --weights resnet18-f37072fd.pth
    """
    threads = workers or usable_cores(cpus)
    table = _table_of(labels, dataset, classes)
    with atomic.lock(data_dir, "the data folder"), trusted_authorities():
        raw, staging = data_dir / "raw", data_dir / f".raw{atomic.PARTIAL}"
        atomic.recover_folder(raw)
        stays = records_to_join(data_dir) if table else joined(data_dir)
        source = sources.locate(dataset, data_dir / "cache", phantom_films, seed, threads)
        _require_apart(source, data_dir)
        if table:
            joining = join(source.root, table, stays, raw, follow_links, threads)
            _say_what_joins(joining)
            films = joining.films_with(stays, raw)
        else:
            found = sources.scan(source, classes, follow_links, apart_from=[data_dir])
            _say_what_is_left_out(found)
            bring_weights(backbones.BACKBONES[backbone], data_dir / "cache", weights)
            films = [*found.films, *films_of(stays, raw)]

        plan = RawPlan.of(films, data_dir)
        room = sources.free_space_for(source, plan.to_copy, data_dir)
        atomic.require_room(data_dir, room, "copying the films")
        atomic.sweep(data_dir)
        records, refused = list(plan.earlier), {}
        if not plan.is_carried_out:
            refused = plan.stage(staging, raw, source, follow_links)
            look = partial(
                examine, max_pixels=int(1e6 * max_megapixels), trust_headers=trust_headers
            )
            seen = _examine(plan, refused, staging, threads, look, file_timeout)
            records = plan.records(seen, refused)
        if not plan.to_copy and records == list(plan.earlier):
            shutil.rmtree(staging, ignore_errors=True)
            console.say(f"{raw} already holds these {len(records)} films; nothing was copied.")
        else:
            _publish(
                records, _origin_of(source, raw if table else None), staging, raw, source.may_link
            )
            copied, kept = len(plan.to_copy), len(plan.films) - len(plan.to_copy)
            console.say(f"{raw}: {copied - len(refused)} films copied, {kept} were there already.")
    rows_without_file = len(joining.without_file) if table else 0
    return _report(records) or (SOME_INPUTS_UNUSABLE if rows_without_file else DONE)


def _require_apart(source: Source, data_dir: Path) -> None:
    """Refuse a source in the data folder, or around it: our own files would be taken for films."""
    root, own = source.root.resolve(), data_dir.resolve()
    if not source.may_link and (root == own or root in own.parents or own in root.parents):
        raise UsageError(
            f"--dataset {source.description} and --data_dir {data_dir} lie in one another; "
            "keep the source apart."
        )


def _table_of(labels: Path | None, dataset: str, classes: Sequence[str]) -> LabelTable | None:
    """The table of --labels.

    Raises:
        UsageError: a dataset that is no folder, or classes, which the table names itself.
        JobError: the table is damaged.
    """
    if labels is None:
        return None
    if not dataset.startswith("folder:"):
        raise UsageError(f"--labels {labels} needs --dataset folder:PATH, the folder of its films.")
    if classes:
        raise UsageError("--classes does not go with --labels: the table names the classes.")
    return LabelTable.read(labels)


def _say_what_joins(joining: Joining) -> None:
    console.say(f"{len(joining.films)} films join with their label")
    for number, kind in (
        (joining.already_there, "are there already under this label"),
        (len(joining.superseded), "of a reader are replaced by a newer one"),
        (joining.without_class, "have an answer that is no class"),
    ):
        if number:
            console.say(f"{number} labels {kind}")
    if joining.unknown:
        unknown = ", ".join(f"{label} ({rows})" for label, rows in joining.unknown.items())
        console.warn(f"labels that are no class of data/raw are left out: {unknown}")
    if joining.without_file:
        kind = f"{len(joining.without_file)} labels are of no film in the folder"
        console.warn(f"{kind}, the first: {joining.without_file[0].path}", log_as=kind)


def _say_what_is_left_out(found: LabelledFiles) -> None:
    for label, folders in sorted(found.merged.items()):
        console.say(
            f"class {label} takes the folders {', '.join(folders)}; "
            "name folders with --classes to keep them apart."
        )
    for number, kind, examples in (
        (len(found.masks), "segmentation masks are left out", found.masks),
        (found.system_entries, "hidden or system entries are left out", found.system_examples),
    ):
        if number:
            console.say(f"{number} {kind}, such as {examples[0]}")
    for names, kind in (
        (found.links, "links to folders are not followed (--follow_links follows them)"),
        (found.outside, "files lie outside any class folder and are left out"),
    ):
        if names:
            console.warn(
                f"{len(names)} {kind}, the first: {names[0]}", log_as=f"{len(names)} {kind}"
            )


def _examine(
    plan: RawPlan,
    refused: Mapping[str, str],
    staging: Path,
    threads: int,
    look: Callable[[Path], Examination],
    seconds: float,
) -> dict[str, FilmRecord]:
    """Decode and measure the copies that need it, in worker processes. Rows by origin.

    Bytes that were measured before, under another name or label, are not decoded again.
    """
    known = plan.known(staging, threads)
    done = known.keys() | refused.keys()
    films = [film for film in plan.films if not film.measured and film.film.origin not in done]
    examinations = map_isolated(
        look,
        unexamined,
        (staging / film.name for film in films),
        threads,
        seconds,
    )
    tracked = console.track(examinations, "measuring films", len(films))
    return known | {
        film.film.origin: record_of(film, seen) for film, seen in zip(films, tracked, strict=True)
    }


def _origin_of(source: Source, joined_raw: Path | None) -> dict[str, str]:
    """The content of source.json; that of data/raw stays where films join it."""
    if joined_raw and (joined_raw / "source.json").exists():
        earlier: dict[str, str] = json.loads((joined_raw / "source.json").read_text())
        return earlier
    return {
        "dataset": source.dataset.name,
        "description": source.description,
        "citation": source.dataset.citation,
    }


def _publish(
    records: Sequence[FilmRecord],
    origin: Mapping[str, str],
    staging: Path,
    raw: Path,
    links_a_cache: bool,
) -> None:
    """Complete the staged folder and put it in the place of data/raw.

    Copies, and what data/raw had, are on the disk already; files that `links_a_cache` may not be.
    """
    write_rows(staging / "manifest.csv", records, FilmRecord)
    atomic.write_json(staging / "source.json", origin)
    atomic.swap_folder(staging, raw, names_alone=not links_a_cache)


def _report(records: Sequence[FilmRecord]) -> int:
    classes = sorted({record.label for record in records})
    collections = Counter((record.source or "unknown", record.label) for record in records)
    sources = sorted({source for source, _ in collections})
    rows = [(source, *(collections[source, label] for label in classes)) for source in sources]
    totals = Counter(record.label for record in records)
    console.table(
        "films by collection",
        ("collection", *classes),
        [*rows, ("all", *(totals[label] for label in classes))],
    )
    unreadable = [record for record in records if record.problem]
    for record in unreadable[:10]:
        console.warn(f"{record.path}: {record.problem}", log_as="")
    if unreadable:
        console.warn(
            f"{len(unreadable)} of {len(records)} films cannot be read; the manifest says why, "
            "split leaves them out."
        )
    return SOME_INPUTS_UNUSABLE if unreadable else DONE


if __name__ == "__main__":
    execute.run(ingest)
