"""Learning curves: loss and accuracy by epoch, drawn without pandas, which takes time to load."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.reports.style import COLOURS, GREY, tidy
from lib.storage.atomic import whole_file


def write_curves(history: Mapping[str, Sequence[Any]], phase: str, path: Path) -> None:
    """Write curves.png: training and validation, the best epoch marked.

    `history` has the columns of history.csv.
    """
    scores = zip(history["val_accuracy"], history["val_loss"], history["epoch"], strict=True)
    _, _, best = max((accuracy, -loss, -epoch) for accuracy, loss, epoch in scores)
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, what in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        draw_history(axes, history, what, markersize=4)
        axes.axvline(-best, color=GREY, linestyle=":", label="best epoch")
        axes.legend(frameon=False)
    figure.suptitle(f"Phase {phase.upper()}")
    write_png(figure, path)


def draw_history(
    axes: Axes, history: Mapping[str, Sequence[Any]], what: str, markersize: int
) -> None:
    """Training and validation curve of `what` ("loss" or "accuracy") by epoch."""
    for part, colour in (("train", COLOURS[0]), ("val", COLOURS[1])):
        values = history[f"{part}_{what}"]
        axes.plot(history["epoch"], values, "o-", color=colour, label=part, markersize=markersize)
    axes.set(xlabel="epoch", title=what, xticks=history["epoch"])
    tidy(axes)


def write_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    with whole_file(path) as file:
        file.write(buffer.getbuffer())
