"""Bring films into data/raw/<CLASS>/, index every one of them, and bring the pretrained weights."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated

from lib import settings
from lib.dataset import sources
from lib.dataset.manifest import FilmRecord, read_manifest, write_rows
from lib.dataset.sources import FoundFilm, Source
from lib.images.files import LARGEST_FILE, TOO_LARGE_FILE, describe_non_file, leads_out
from lib.images.reader import Examination, examine, unexamined
from lib.network import backbones
from lib.network.weights import bring_weights
from lib.run import console, execute
from lib.run.connection import trusted_authorities
from lib.run.errors import DONE, SOME_INPUTS_UNUSABLE, JobError, UnreadableFilmError, UsageError
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
            "folder names to take as classes, comma-separated; none takes what is there",
            placeholder="A,B,…",
        ),
    ] = (),
    phantom_films: Annotated[
        int, Flag("how many films to draw for --dataset phantom", at_least=30)
    ] = 360,
    backbone: Annotated[str, settings.BACKBONE] = settings.BACKBONE.default,
    weights: Annotated[Path | None, settings.WEIGHTS] = settings.WEIGHTS.default,
    max_megapixels: Annotated[float, settings.MAX_MEGAPIXELS] = settings.MAX_MEGAPIXELS.default,
    file_timeout: Annotated[float, settings.FILE_TIMEOUT] = settings.FILE_TIMEOUT.default,
    data_dir: Annotated[Path, settings.DATA_DIR] = settings.DATA_DIR.default,
    seed: Annotated[int, settings.SEED] = settings.SEED.default,
    cpus: Annotated[int, settings.CPUS] = settings.CPUS.default,
    workers: Annotated[int, settings.WORKERS] = settings.WORKERS.default,
) -> int:
    """Bring films into data/raw/<CLASS>/ and the backbone's ImageNet weights into
    data/cache/weights/.

    train, val and test folders of the source are merged: the split job draws its own. All classes
    are found or nothing is touched; the old data/raw stays until the new one is whole; a second run
    copies only what is missing. Every file is hashed, decoded and measured in
    data/raw/manifest.csv; an unreadable one is a row with its problem, and the job ends with exit
    code 3. No later job needs a network.

    Examples:
        python -m jobs.ingest --dataset phantom --backbone efficientnet_lite0
        python -m jobs.ingest --dataset folder:/srv/films
        python -m jobs.ingest --dataset kaggle:muhammadrehan00/chest-xray-dataset/versions/1
        python -m jobs.ingest --dataset folder:/srv/films --backbone resnet18 --weights resnet18-f37072fd.pth
    """
    threads = workers or usable_cores(cpus)
    with atomic.lock(data_dir, "the data folder"), trusted_authorities():
        raw = data_dir / "raw"
        atomic.recover_folder(raw)
        source = sources.locate(dataset, data_dir / "cache", phantom_films, seed, threads)
        _require_apart(source, data_dir)
        found, outside = sources.scan(source, classes)
        if outside:
            left_out = f"{len(outside)} files lie outside any class folder and are left out"
            console.warn(f"{left_out}, the first: {outside[0]}", log_as=left_out)
        bring_weights(backbones.BACKBONES[backbone], data_dir / "cache", weights)

        known = {record.origin: record for record in _earlier(data_dir)}
        names = _names(found, known)
        unchanged = {
            film.origin for film in found if _is_unchanged(film, raw, known.get(film.origin))
        }
        missing = [film for film in found if film.origin not in unchanged]
        atomic.require_room(
            data_dir, sources.free_space_for(source, missing, data_dir), "copying the films"
        )

        staging = data_dir / f".raw{atomic.PARTIAL}"
        atomic.sweep(data_dir)
        refused = _stage(found, names, unchanged, raw, staging, source)
        reusable = {origin: known[origin] for origin in unchanged if known[origin].status == "ok"}
        fresh = [
            film for film in found if film.origin not in reusable and film.origin not in refused
        ]
        copies = (staging / names[film.origin] for film in fresh)
        look = partial(examine, max_pixels=int(1e6 * max_megapixels))
        measured = map_isolated(look, unexamined, copies, threads, file_timeout)
        seen = dict(
            zip(
                (film.origin for film in fresh),
                console.track(measured, "measuring films", len(fresh)),
                strict=True,
            )
        )
        records = [
            reusable[film.origin]
            if film.origin in reusable
            else _record(
                film,
                names[film.origin],
                seen.get(film.origin) or Examination(problem=refused[film.origin]),
            )
            for film in found
        ]
        records.sort(key=lambda record: record.path)
        if not missing and list(known.values()) == records:
            shutil.rmtree(staging)
            console.say(f"{raw} already holds these {len(records)} films; nothing was copied.")
        else:
            write_rows(staging / "manifest.csv", records, FilmRecord)
            atomic.write_json(
                staging / "source.json",
                {
                    "dataset": source.dataset.name,
                    "description": source.description,
                    "citation": source.dataset.citation,
                },
            )
            atomic.swap_folder(staging, raw)
            console.say(f"{raw}: {len(missing)} films copied, {len(unchanged)} were there.")
    return _report(records)


def _earlier(data_dir: Path) -> list[FilmRecord]:
    """What an earlier ingest measured; nothing where its manifest is missing, damaged or of an
    older form.
    """
    try:
        return read_manifest(data_dir)
    except JobError:
        return []


def _require_apart(source: Source, data_dir: Path) -> None:
    """A source that lies in the data folder, or around it, would take our own files for films."""
    root, own = source.root.resolve(), data_dir.resolve()
    if not source.may_link and (root == own or root in own.parents or own in root.parents):
        raise UsageError(
            f"--dataset {source.description} and --data_dir {data_dir} lie in one another; keep the source apart."
        )


def _names(found: Sequence[FoundFilm], known: dict[str, FilmRecord]) -> dict[str, str]:
    """Origin → path below data/raw. A name already taken in its class gets a suffix drawn from the
    origin.

    Names given by an earlier ingest are kept, so that adding films renames none.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    returning = [
        film for film in found if film.origin in known and known[film.origin].label == film.label
    ]
    for film in returning:
        names[film.origin] = known[film.origin].path
        taken.add(names[film.origin].casefold())  # some file systems do not tell a.png from A.png
    for film in found:
        if film.origin in names:
            continue
        file = PurePosixPath(film.origin).name.replace("\\", "_")
        path = f"{film.label}/{file}"
        if path.casefold() in taken:
            digest = hashlib.sha256(film.origin.encode("utf-8", "surrogateescape")).hexdigest()[:8]
            path = f"{film.label}/{PurePosixPath(file).stem}~{digest}{PurePosixPath(file).suffix}"
        names[film.origin] = path
        taken.add(path.casefold())
    return names


def _is_unchanged(film: FoundFilm, raw: Path, record: FilmRecord | None) -> bool:
    """Same label, size and modification time as the copy that an earlier ingest made and measured."""
    if record is None or record.label != film.label:
        return False
    return _same_file(film.path, raw / record.path)


def _same_file(source: Path, copy: Path) -> bool:
    try:
        original, copied = source.stat(), copy.stat()
    except OSError:
        return False
    return (original.st_size, original.st_mtime_ns) == (copied.st_size, copied.st_mtime_ns)


def _stage(
    found: Sequence[FoundFilm],
    names: dict[str, str],
    unchanged: set[str],
    raw: Path,
    staging: Path,
    source: Source,
) -> dict[str, str]:
    """Fill `staging`, taking from data/raw what is unchanged and from an interrupted run what it
    had finished.

    Returns what could not be copied, as origin → reason.
    """
    wanted = set(names.values())
    refused, root = {}, source.root.resolve()
    for path in [path for path in staging.rglob("*") if path.is_file()]:
        if path.relative_to(staging).as_posix() not in wanted:
            path.unlink()
    for film in console.track(found, "copying films", len(found)):
        target = staging / names[film.origin]
        if _same_file(film.path, target):
            continue
        target.unlink(missing_ok=True)
        try:
            if not film.path.is_file():
                raise UnreadableFilmError(describe_non_file(film.path))
            if film.path.stat().st_size > LARGEST_FILE:
                raise UnreadableFilmError(TOO_LARGE_FILE)
            if film.origin in unchanged:
                atomic.link_or_copy(raw / names[film.origin], target)
            elif leads_out(film.path, root):
                raise UnreadableFilmError("link leads out of the source and is not followed")
            elif source.may_link:
                atomic.link_or_copy(film.path.resolve(), target)
            else:
                atomic.copy_file(film.path, target)
        except (UnreadableFilmError, PermissionError, FileNotFoundError) as error:
            refused[film.origin] = f"cannot be copied: {getattr(error, 'strerror', None) or error}"
    return refused


def _record(film: FoundFilm, name: str, seen: Examination) -> FilmRecord:
    collection, patient = sources.source_and_patient(PurePosixPath(film.origin).name)
    return FilmRecord(
        path=name,
        label=film.label,
        sha256=seen.sha256,
        dhash=seen.measured.dhash,
        width=seen.measured.width,
        height=seen.measured.height,
        mode=seen.measured.mode,
        bytes=seen.bytes,
        tint=seen.measured.tint,
        brightness=seen.measured.brightness,
        contrast=seen.measured.contrast,
        source=collection,
        patient=patient or seen.patient,
        status="unreadable" if seen.problem else "ok",
        problem=seen.problem,
        origin=film.origin,
    )


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
            f"{len(unreadable)} of {len(records)} films cannot be read; the manifest says why, split leaves them out."
        )
    return SOME_INPUTS_UNUSABLE if unreadable else DONE


if __name__ == "__main__":
    execute.run(ingest)
