"""fastai's way: `vision_learner`, `fine_tune` (the head first, then all layers), `get_preds`.

The weights are random: those of fastai would be a download.

python -m tests.benchmarks.peers.fastai_learner train --data DIR --out FILE.json
python -m tests.benchmarks.peers.fastai_learner predict --data FOLDER --out FILE.json
"""

import json
import time
from pathlib import Path
from typing import Any

import fire

from lib.network.torchvision import torchvision  # noqa: F401  # before fastai and timm
from tests.benchmarks.plain import BATCH, ROW, SIDE, WORKERS


def _loading() -> dict[str, Any]:
    from fastai.vision.all import Resize, ResizeMethod

    squished = Resize(SIDE, ResizeMethod.Squish)
    return {"item_tfms": squished, "bs": BATCH, "num_workers": WORKERS}


def train(data: str, out: str) -> None:
    """One epoch of the head, one of all layers, with validation.

    Writes {"a": seconds, "b": seconds}.
    """
    from fastai.vision.all import Callback, ImageDataLoaders, aug_transforms, vision_learner

    ends: list[float] = []

    class Clock(Callback):  # type: ignore[misc]  # untyped
        def before_fit(self) -> None:
            ends.append(time.perf_counter())

        def after_epoch(self) -> None:
            ends.append(time.perf_counter())

    augmented = aug_transforms(do_flip=False, max_rotate=7, max_warp=0)
    loaders = ImageDataLoaders.from_folder(
        data, train="train", valid="val", batch_tfms=augmented, **_loading()
    )
    learner = vision_learner(loaders, ROW.architecture, pretrained=False, cbs=Clock())
    with learner.no_bar():
        learner.fine_tune(1, freeze_epochs=1)
    begin_a, end_a, begin_b, end_b = ends
    Path(out).write_text(json.dumps({"a": end_a - begin_a, "b": end_b - begin_b}))


def predict(data: str, out: str) -> None:
    """The probabilities of the films of a folder."""
    from fastai.vision.all import ImageDataLoaders, get_image_files, vision_learner

    files = get_image_files(data)
    labels = [str(number % 3) for number in range(len(files))]
    loaders = ImageDataLoaders.from_lists(data, files, labels, **_loading())
    learner = vision_learner(loaders, ROW.architecture, pretrained=False)
    began = time.perf_counter()
    with learner.no_bar():
        answers, _ = learner.get_preds(dl=loaders.test_dl(files))
    seconds = time.perf_counter() - began
    Path(out).write_text(json.dumps({"seconds": seconds, "films": len(answers)}))


if __name__ == "__main__":
    fire.Fire({"train": train, "predict": predict})
