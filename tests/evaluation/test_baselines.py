"""Baselines that never see a lung: a planted shortcut is found and named, an honest set is not
accused.
"""

from dataclasses import replace

import numpy as np
import pytest

from lib.dataset import provenance
from lib.dataset.audit import audit
from lib.dataset.manifest import FilmRecord
from lib.evaluation import baselines


def _film(number: int, label: str, width: int = 224, source: str = "") -> FilmRecord:
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


@pytest.mark.parametrize("names", ["AB", "01"])
def test_a_class_that_is_told_by_its_size_is_found_from_metadata(names: str) -> None:
    films = [_film(number, names[number % 2], width=224 + number % 2) for number in range(80)]
    features = baselines.metadata(films)
    classes, probabilities = baselines.predict(
        features[:60], [film.label for film in films[:60]], features[60:], 0, 1
    )
    assert [classes[best] for best in probabilities.argmax(axis=1)] == [
        film.label for film in films[60:]
    ]


@pytest.mark.parametrize(
    ("baseline", "margin", "level"),
    [
        (0.99, (-0.01, 0.02), "shortcut"),
        (0.85, (-0.20, 0.25), "undecided"),
        (0.85, (0.05, 0.15), "confounded"),
        (0.40, (0.40, 0.60), "clear"),
    ],
)
def test_the_verdict_in_words(baseline: float, margin: tuple[float, float], level: str) -> None:
    found = baselines.verdict(
        0.95,
        (0.9, 0.98),
        {"metadata": baseline, "thumbnail": 0.35},
        {"metadata": margin, "thumbnail": (0.5, 0.7)},
        1 / 3,
    )
    assert found["level"] == level
    assert f"{baseline:.3f}" in found["words"]


def test_a_thumbnail_alone_does_not_prove_how_the_files_were_made() -> None:
    margins = {"metadata": (0.3, 0.5), "thumbnail": (-0.02, 0.05)}
    found = baselines.verdict(
        0.9, (0.85, 0.95), {"metadata": 0.4, "thumbnail": 0.89}, margins, 1 / 3
    )  # type: ignore[arg-type]
    assert "makes out no detail of a lung" in found["words"]
    assert "differ by how the files were made" not in found["words"]


def test_a_margin_that_is_not_known_counts_as_not_beaten() -> None:
    found = baselines.verdict(
        0.9,
        (0.85, 0.95),
        {"metadata": 0.4, "thumbnail": 0.4},
        {"metadata": None, "thumbnail": (0.3, 0.5)},
        1 / 3,
    )
    assert found["level"] == "shortcut"


def test_sources_are_names_else_common_signatures_else_unknown() -> None:
    named = _film(0, "A", source="nih")
    alike = [_film(number, "A", width=512) for number in range(1, 1 + provenance.USUAL_SIGNATURE)]
    odd = _film(99, "B", width=300)
    found = provenance.sources([named, *alike, odd])
    assert found == ["nih", *["png L 512x224"] * provenance.USUAL_SIGNATURE, "unknown"]


def test_the_audit_finds_what_was_planted() -> None:
    films = [_film(number, "NORMAL", source="one") for number in range(10)]
    films += [_film(number, "TB", source="two") for number in range(10, 20)]
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


def test_a_model_that_guesses_is_told_so() -> None:
    margins = {"metadata": (-0.1, 0.1), "thumbnail": (-0.1, 0.1)}
    found = baselines.verdict(
        0.33, (0.27, 0.42), {"metadata": 0.34, "thumbnail": 0.31}, margins, 1 / 3
    )  # type: ignore[arg-type]
    assert found["level"] == "chance"
    assert "Nothing here shows that the model does better than guessing" in found["words"]
    found = baselines.verdict(
        0.33, (0.27, 0.42), {"metadata": 1.0, "thumbnail": 0.3}, {"metadata": (-0.7, -0.6)}, 1 / 3
    )
    assert (
        found["level"] == "shortcut"
    )  # what tells the classes apart is there, and it is not in the lungs


def test_the_audit_finds_negatives_among_films_that_are_alike() -> None:
    usual = np.random.default_rng(0).integers(0, 2, 256)
    films = []
    for number in range(40):
        bits = np.where(np.random.default_rng(number).random(256) < 0.25, 1 - usual, usual)
        films.append(
            replace(
                _film(number, "A"), dhash=np.packbits(bits if number else 1 - bits).tobytes().hex()
            )
        )
    assert audit(films).inverted == ["A/0.png"]
    assert audit([_film(number, "A") for number in range(40)]).inverted == []
