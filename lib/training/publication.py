"""The results of a finished run: learning curves, the compiled model, the published copies."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from lib.images.reader import thumbnail_of
from lib.network import checkpoints, export
from lib.network.choices import Tap
from lib.network.numerics import Floats, Grey
from lib.prediction import fitting
from lib.reports.curves import write_curves
from lib.run import console
from lib.training.films import FilmReader, SplitFilms, TrainingFilm
from lib.training.run_folder import EpochScores, RunFolder


def publish(
    run: RunFolder,
    network: nn.Sequential,
    history: Sequence[EpochScores],
    split: SplitFilms,
    frozen_graphs: tuple[Path, Tap] | None,
    cores: int,
) -> None:
    """Write curves and compiled model, copy checkpoint and model to runs/, mark the run finished.

    `network` receives the best epoch's weights. With `frozen_graphs`, those of its frozen layers,
    only the trained layers are converted.

    Raises:
        JobError: the split changed during the training, or the compiled model does not agree with
            PyTorch.
    """
    split.require_unchanged()
    rows = [asdict(row) for row in history]
    write_curves(
        {name: [row[name] for row in rows] for name in rows[0]},
        run.plan.phase,
        run.folder / "curves.png",
    )
    best = checkpoints.load(run.best_path)
    network.load_state_dict(best.state)
    chosen = export.sample(split.films["val"], export.AGREEMENT_FILMS)
    reader = FilmReader.of(run.plan)
    films, thumbnails = [], []
    for film in chosen:
        whole = reader.decode(film)
        films.append(reader.view_of(whole))
        thumbnails.append(thumbnail_of(whole))
    manifest = export.write_model(
        run.folder / "model",
        best,
        network,
        films,
        cores,
        frozen_graphs,
        _calibrator(chosen, thumbnails, best.classes),
    )
    run.copy_results()
    run.finish(best)
    if manifest.bf16:
        agreement = manifest.bf16
        console.say(
            f"{run.published_model}: bfloat16 predicts the same class as fp32 for "
            f"{agreement.same_prediction:.1%} of {agreement.films} validation films; "
            f"probabilities differ by {agreement.mean_shift:.4f} on average"
        )
    if manifest.int8:
        use = "used where the CPU has no bfloat16" if manifest.int8.is_usable else "not used"
        console.say(f"{run.published_model}: {manifest.int8} ({use})")
    console.say(
        f"{run.published_checkpoint}: epoch {best.epoch}, "
        f"validation accuracy {best.val_accuracy:.3f}, weights sha256 {best.digest[:16]}…"
    )


def _calibrator(
    chosen: Sequence[TrainingFilm], thumbnails: Sequence[Grey], classes: Sequence[str]
) -> export.Calibrate:
    """The step of `export.write_model` that fits temperature, thresholds and reference films."""
    targets = np.array([film.target for film in chosen])

    def calibrate(model: Path, logits: Floats, features: Floats) -> dict[str, Any]:
        fitted, reference = fitting.calibrate(
            logits, targets, features, np.stack(thumbnails), classes
        )
        reference.write(model)
        return fitted.to_json()

    return calibrate
