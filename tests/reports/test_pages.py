"""The report: one file that needs nothing else, with every section, without a word the browser
complains about.
"""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from jobs import evaluate, ingest, split, train
from lib.evaluation.results import Estimate
from lib.reports import formatting, pages
from lib.storage.atomic import sha256_of
from tests.conftest import LITE0, dirs, predict, run

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


@pytest.fixture(scope="module")
def page(chain: Path) -> Path:
    return chain / "runs" / "report.html"


def _title_in_browser(file: Path, *flags: str) -> str:
    """What the page's own script made its title, after a browser has shown it without a complaint
    on its console.
    """
    assert CHROMIUM is not None
    command = [
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        *flags,
    ]
    command += [f"--user-data-dir={file.parent}/u", "--dump-dom", f"file://{file}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr
    found = re.search(r"<title>(.*?)</title>", done.stdout)
    assert found is not None
    return html.unescape(found.group(1))


def test_every_section_is_there_and_filled(page: Path) -> None:
    text = page.read_text()
    assert re.findall(r'<section id="(\w+)">', text) == [
        name for name in pages.SECTIONS if name not in ("external", "left_out")
    ]
    assert text.count("<svg") >= 9
    assert text.count("data:image/jpeg;base64,") >= 8
    assert "Not a medical device" in text
    assert "{{" not in text
    assert "None" not in re.sub(r"<pre>.*?</pre>", "", text, flags=re.DOTALL)


def test_nothing_is_loaded_from_anywhere(page: Path) -> None:
    text = page.read_text()
    assert (
        re.findall(
            r'(?:src|href)="(?!data:|#)[^"]*"', re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL)
        )
        == []
    )
    assert re.findall(r"<script[^>]*\bsrc", text) == []
    for word in ("@import", "fetch(", "XMLHttpRequest", "http:", "import("):
        assert word not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [400, 1400])
def test_a_browser_shows_it_without_a_complaint_and_without_scrolling_sideways(
    page: Path, tmp_path: Path, width: int
) -> None:
    root = "document.documentElement"
    probe = f"<script>document.title = {root}.scrollWidth + ' ' + {root}.clientWidth</script>"
    copy = tmp_path / "report.html"
    copy.write_text(page.read_text().replace("</body>", probe + "</body>"))
    wide, seen = _title_in_browser(copy, f"--window-size={width},1200").split()
    assert int(wide) <= int(seen)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_on_paper_no_table_is_cut_off(page: Path, tmp_path: Path) -> None:
    """The rules for print, applied to a window as wide as a sheet."""
    probe = "<script>document.title = [...document.querySelectorAll('table')].filter(table => "
    probe += "table.getBoundingClientRect().right > document.documentElement.clientWidth).length"
    probe += "</script>"
    text = (
        page.read_text()
        .replace("@media screen", "@media not all")
        .replace("@media print", "@media all")
    )
    (tmp_path / "paper.html").write_text(text.replace("</body>", probe + "</body>"))
    assert _title_in_browser(tmp_path / "paper.html", "--window-size=720,1000") == "0"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_triage_page_puts_films_to_look_at_first_and_sorts_without_a_server(
    chain: Path, tmp_path: Path
) -> None:
    inbox = tmp_path / "in"
    shutil.copytree((chain / "data").resolve() / "test" / "NORMAL", inbox)
    (inbox / "<b>broken.png").write_text("no film")
    assert predict(chain, inbox, tmp_path / "x.csv", "--report", tmp_path / "x.html") == 3
    text = (tmp_path / "x.html").read_text()
    assert "<b>broken" not in text
    table = pd.read_csv(tmp_path / "x.csv", keep_default_na=False)
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text)
    assert found
    films = json.loads(found.group(1))["films"]
    assert {film["path"] for film in films} == set(table["path"])
    assert [film["review"] for film in films] == sorted(table["needs_review"], reverse=True)
    for film in films:
        name = inbox / film["path"]
        assert film["sha256"] == sha256_of(name)
        assert bool(film["whole"]) == bool(film["picture"]) == bool(film["prediction"])
    probe = "by('sort').value = 'path'; by('show').value = 'review'; update(); document.title = "
    probe += "list.map(film => film.path).join('|') + ' ' + films.length"
    (tmp_path / "y.html").write_text(text.replace("</script>\n</body>", probe + "</script></body>"))
    shown, number = _title_in_browser(tmp_path / "y.html").rsplit(" ", 1)
    assert shown.split("|") == sorted(table["path"][table["needs_review"]])
    assert int(number) == len(table)


def test_the_model_card_stands_beside_the_model(chain: Path) -> None:
    card = (chain / "runs/model/MODEL_CARD.md").read_text()
    assert "Not a medical device" in card
    scores = json.loads((chain / "runs/evaluation/metrics.json").read_text())["scores"]
    for name in ("NORMAL", "PNEUMONIA", "TUBERCULOSIS"):
        recall = formatting.with_range(Estimate(**scores["per_class"][name]["recall"]))
        assert f"{name}: recall {recall}, precision" in card


def test_a_set_that_is_a_shortcut_and_nothing_else_is_called_so(tmp_path: Path) -> None:
    """Class = image size, the same noise in every film: no lung can be in it."""
    for place, label in enumerate(("NORMAL", "PNEUMONIA", "TUBERCULOSIS")):
        for number in range(40):
            noise = np.random.default_rng([place, number]).integers(
                0, 256, (64, 64), dtype=np.uint8
            )
            folder = tmp_path / "source" / label
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise).resize((128 + 32 * place,) * 2, Image.Resampling.NEAREST).save(
                folder / f"{number}.png"
            )
    root = tmp_path / "project"
    assert run(ingest, "--dataset", f"folder:{tmp_path / 'source'}", *LITE0, *dirs(root)[:2]) == 0
    assert run(split, "--val_fraction", "0.2", "--test_fraction", "0.3", *dirs(root)[:2]) == 0
    assert run(train, "--phase", "a", "--epochs", "1", *LITE0, *dirs(root)) == 0
    assert run(evaluate, *dirs(root)) == 0
    scores = json.loads((root / "runs/evaluation/metrics.json").read_text())
    assert scores["baselines"]["metadata"]["macro_f1"] == 1.0
    assert scores["verdict"]["level"] == "shortcut"
    assert (
        "Nothing here shows that the model reads lungs" in (root / "runs/report.html").read_text()
    )


def test_two_evaluations_of_the_same_films_are_compared_in_pairs(
    chain: Path, tmp_path: Path
) -> None:
    other = tmp_path / "phase_a"
    assert (
        run(evaluate, "--model", chain / "runs/phase_a/model", "--output", other, *dirs(chain)) == 0
    )
    assert run(evaluate, "--output", tmp_path / "again", "--compare", other, *dirs(chain)) == 0
    compared = json.loads((tmp_path / "again" / "metrics.json").read_text())["comparison"]
    first, second = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("phase_a", "again")
    )
    before, after = (one["scores"]["accuracy"]["value"] for one in (first, second))
    difference = compared["differences"]["accuracy"]["value"]
    assert difference == pytest.approx(after - before, abs=1e-9)
    assert "Difference from the earlier evaluation" in (tmp_path / "again/report.html").read_text()


def test_another_split_cannot_be_compared(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(chain / "runs/evaluation/predictions.csv", keep_default_na=False)
    (tmp_path / "other").mkdir()
    table[1:].to_csv(tmp_path / "other" / "predictions.csv", index=False)
    assert (
        run(evaluate, "--output", tmp_path / "out", "--compare", tmp_path / "other", *dirs(chain))
        == 1
    )
    assert "scored other films" in capsys.readouterr().err
    assert (
        run(evaluate, "--output", tmp_path / "out", "--compare", tmp_path / "nowhere", *dirs(chain))
        == 1
    )
    assert "Give the folder of an earlier evaluation" in capsys.readouterr().err
