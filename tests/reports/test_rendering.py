"""Templates: what is escaped, and sentences that depend on a number that may be missing."""

from jinja2 import DictLoader

from lib.evaluation.results import (
    CalibrationScores,
    ConformalScores,
    Reliability,
    Review,
)
from lib.reports.rendering import _ENVIRONMENT


def test_text_is_escaped_in_html_and_left_alone_in_markdown() -> None:
    templates = {"x.html": "{{ words }}", "x.md": "{{ words }}"}
    environment = _ENVIRONMENT.overlay(loader=DictLoader(templates))
    words = "the patients' age <1"
    assert environment.get_template("x.md").render(words=words) == words
    assert "&lt;1" in environment.get_template("x.html").render(words=words)


def test_no_share_of_the_others_is_given_where_there_are_no_others() -> None:
    for rest, end in ((0.5, "look; of the others 50.0% are correct."), (None, "look.")):
        reliability = Reliability(0.1, 0.2, ())
        evaluation = {
            "calibration": CalibrationScores(1.0, reliability, reliability),
            "conformal": ConformalScores(0.9, 0.9, 0.5),
            "review": Review(1.0, rest),
        }
        page = _ENVIRONMENT.get_template("report/calibration.html").render(
            evaluation=evaluation, figures={"reliability": ""}, kind="test films"
        )
        assert f"{end}</p>" in page
