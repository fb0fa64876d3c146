"""The audit finds planted defects; provenance names the source of a film."""

from dataclasses import replace

import numpy as np
import pytest

from lib.dataset import provenance
from lib.dataset.audit import audit
from lib.dataset.manifest import FilmRecord


def film_record(number: int, label: str, width: int = 224, source: str = "") -> FilmRecord:
    digest = f"{number:064x}"
    hashed = np.random.default_rng(number).bytes(32).hex()
    path, origin = f"{label}/{number}.png", f"train/{label}/{number}.png"
    return FilmRecord(
        path,
        label,
        digest,
        hashed,
        width,
        224,
        "L",
        9000,
        0.0,
        120.0,
        50.0,
        source,
        "",
        "ok",
        "",
        origin,
    )


def test_sources_are_names_else_common_signatures_else_unknown() -> None:
    named = film_record(0, "A", source="nih")
    alike = [
        film_record(number, "A", width=512) for number in range(1, 1 + provenance.USUAL_SIGNATURE)
    ]
    odd = film_record(99, "B", width=300)
    found = provenance.sources([named, *alike, odd])
    assert found == ["nih", *["png L 512x224"] * provenance.USUAL_SIGNATURE, "unknown"]


def test_the_audit_finds_what_was_planted() -> None:
    films = [film_record(number, "NORMAL", source="one") for number in range(10)]
    films += [film_record(number, "TB", source="two") for number in range(10, 20)]
    twice = replace(films[0], path="TB/0.png", label="TB", origin="test/TB/0.png")
    near = replace(
        films[1], path="NORMAL/again.png", sha256="f" * 64, origin="train/NORMAL/again.png"
    )
    blank = replace(
        films[2], path="NORMAL/blank.png", sha256="e" * 64, contrast=1.0, dhash="0" * 64
    )
    broken = replace(
        films[3], path="NORMAL/broken.png", status="unreadable", dhash="", sha256="d" * 64
    )
    found = audit([*films, twice, near, blank, broken])
    assert (found.films, found.unreadable, found.crossing) == (24, 1, 1)
    assert found.contradictory_labels == {"NORMAL / TB": 1}
    assert found.ceiling == pytest.approx(22 / 23)
    assert [(a.path, b.path) for a, b in found.near_pairs] == [("NORMAL/1.png", "NORMAL/again.png")]
    assert found.blank == ["NORMAL/blank.png"]
    assert found.single_class_sources == ["two"] or found.sources["one"]["TB"] == 1


def test_the_audit_finds_negatives_among_films_that_are_alike() -> None:
    usual = np.random.default_rng(0).integers(0, 2, 256)
    films = []
    for number in range(40):
        bits = np.where(np.random.default_rng(number).random(256) < 0.25, 1 - usual, usual)
        films.append(
            replace(
                film_record(number, "A"),
                dhash=np.packbits(bits if number else 1 - bits).tobytes().hex(),
            )
        )
    assert audit(films).inverted == ["A/0.png"]
    assert audit([film_record(number, "A") for number in range(40)]).inverted == []
