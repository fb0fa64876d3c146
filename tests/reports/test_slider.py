"""The slider over the threshold: its marks, its table for paper, and its numbers in a browser."""

import dataclasses
import html
import json
import re
import subprocess
from pathlib import Path

import pytest

from lib.evaluation.baselines import no_baselines
from lib.evaluation.evaluation import Options, evaluate
from lib.evaluation.predictions import LabelledPredictions
from lib.evaluation.results import Estimate, Evaluation
from lib.evaluation.thresholds import Stop, stops
from lib.prediction.calibration import Calibration
from lib.prediction.classes import WHO_TUBERCULOSIS
from lib.reports.rendering import _ENVIRONMENT
from lib.reports.slider import Run, Slider, _meeting_words, _runs, threshold_slider
from tests.evaluation.conftest import MODEL, screened
from tests.reports.browser import browser
from tests.reports.test_pages import CHROMIUM

TB = "TUBERCULOSIS"
TABLE = screened([0.9] * 18 + [0.4] * 2, [0.1] * 55 + [0.6] * 5)
CALIBRATION = Calibration(9, 1.0, 0.9, 0.1, 0.9, {TB: 0.15678}, 1.0, 0.0)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    options = Options(TB, (0.02, 0.1), 0)
    return evaluate(TABLE, no_baselines(), MODEL, CALIBRATION, options)


@pytest.fixture(scope="module")
def slider(evaluation: Evaluation) -> Slider:
    found = threshold_slider(TABLE, evaluation, 0)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def curve() -> tuple[Stop, ...]:
    return stops(LabelledPredictions.of(TABLE), TB, 0.15678, 0)


def test_neighbouring_stops_that_meet_the_minimum_are_one_band() -> None:
    assert _runs([False, False, False]) == []
    assert _runs([True, True, False, False, True]) == [Run(0.0, 0.375), Run(0.875, 0.125)]


def test_the_words_say_from_where_to_where_the_minimum_is_reached(curve: tuple[Stop, ...]) -> None:
    assert _meeting_words(curve, WHO_TUBERCULOSIS).endswith("from 0.11 to 0.9, intervals aside")
    none = _meeting_words(curve[:5], WHO_TUBERCULOSIS)
    assert none.endswith("no threshold reaches it on these films")


def test_the_mark_of_the_stored_threshold_lies_on_its_stop(slider: Slider) -> None:
    assert slider.stored_threshold == "0.1567"
    assert slider.stored == pytest.approx(16 / 101)
    assert slider.numbers["stops"][slider.numbers["stored"]][0] == 0.1567


def test_without_an_operating_point_there_is_no_slider(evaluation: Evaluation) -> None:
    without = dataclasses.replace(evaluation, operating_point=None)
    assert threshold_slider(TABLE, without, 0) is None


def _range(estimate: Estimate) -> str:
    assert estimate.interval
    low, high = estimate.interval
    return f"{low:.1%} to {high:.1%}"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_computes_what_the_program_computes(
    evaluation: Evaluation, slider: Slider, curve: tuple[Stop, ...], tmp_path: Path
) -> None:
    point = evaluation.operating_point
    section = _ENVIRONMENT.get_template("report/threshold.html").render(
        point=point, thresholds=slider, kind="test films"
    )
    probe = """<script>
        const slider = document.getElementById("threshold");
        const share = document.getElementById("prevalence");
        const seen = () => [...document.querySelectorAll(".thresholds td, .thresholds output")]
          .map((one) => one.textContent).concat(document.getElementById("threshold-flag").value);
        const before = seen();
        slider.value = 52; slider.dispatchEvent(new Event("input"));
        share.value = "10"; share.dispatchEvent(new Event("input"));
        document.title = JSON.stringify([before, seen()]);
    </script>"""
    page = tmp_path / "page.html"
    page.write_text(f"<meta charset=utf-8><title></title><body>{section}{probe}</body>")
    assert CHROMIUM
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--enable-logging=stderr", f"--user-data-dir={tmp_path}/u", f"file://{page}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title
    before, after = json.loads(html.unescape(title.group(1)))
    assert before[0] == "0.1567"
    assert before[-1] == "--threshold TUBERCULOSIS=0.1567"
    stop = curve[52]
    values = stop.at(0.1)
    assert (stop.threshold, after[0]) == (0.51, "0.51")
    assert after[-1] == "--threshold TUBERCULOSIS=0.51"
    assert after[1:13] == [
        word
        for name, estimate in (
            ("sensitivity", stop.sensitivity),
            ("specificity", stop.specificity),
            ("positive predictive value", values.ppv),
            ("negative predictive value", values.npv),
        )
        for word in (name, f"{estimate.value:.1%}", _range(estimate))
    ]
    assert after[13:15] == ["cases missed per 1,000 people", "10.0"]
    assert after[16:18] == ["false alarms per 1,000 people", "75.0"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_slider_works_by_keyboard_and_its_flag_can_be_copied(
    evaluation: Evaluation, slider: Slider, tmp_path: Path
) -> None:
    section = _ENVIRONMENT.get_template("report/threshold.html").render(
        point=evaluation.operating_point, thresholds=slider, kind="test films"
    )
    page = tmp_path / "page.html"
    page.write_text(f"<meta charset=utf-8><body>{section}<input id=paste></body>")
    with browser(tmp_path) as opened:
        opened.window(1000, 1200)
        opened.open(page)
        value = "document.getElementById('threshold-value').textContent"
        opened.evaluate("document.getElementById('threshold').focus()")
        opened.press("ArrowRight")
        assert opened.evaluate(value) == "0.16"  # the stop behind the stored threshold
        opened.press("ArrowLeft")
        opened.press("ArrowLeft")
        assert opened.evaluate(value) == "0.15"
        box = opened.evaluate(
            "document.getElementById('threshold-copy').getBoundingClientRect().toJSON()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            opened.mouse(kind, box["x"] + 9, box["y"] + 9, button="left", clickCount=1)
        opened.evaluate("new Promise(done => setTimeout(done, 200))")
        copied = "document.getElementById('threshold-copied').textContent"
        assert opened.evaluate(copied) == "copied"
        opened.evaluate("document.getElementById('paste').focus()")
        opened.call("Input.dispatchKeyEvent", type="keyDown", key="v", commands=["paste"])
        pasted = opened.evaluate("document.getElementById('paste').value")
        assert pasted == "--threshold TUBERCULOSIS=0.15"
        assert opened.complaints == []
