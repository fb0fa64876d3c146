"""Names and line styles of plots."""

from lib.reports import plots


def test_class_names_that_begin_alike_stay_apart() -> None:
    assert plots.short_names(["NORMAL", "TUBERCULOSIS", "PNEUMONIA"]) == [
        "NORMAL",
        "TB",
        "PNEUMONIA",
    ]
    assert plots.short_names(["PNEUMONIA_BACTERIAL", "PNEUMONIA_VIRAL"]) == [
        "PNEU…TERIAL",
        "PNEU…_VIRAL",
    ]
    styles = [
        tuple(style.values()) for style in plots.line_styles([str(number) for number in range(24)])
    ]
    assert len(set(styles)) == 24
