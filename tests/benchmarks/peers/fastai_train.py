"""fastai's way: `vision_learner` and `fine_tune`, whose first epochs train the head alone.

python -m tests.benchmarks.peers.fastai_train train --data DIR --out FILE.json
    [--epochs_a 5] [--epochs_b 8]
"""

import json
from pathlib import Path

import fire
import torch

from lib.network import weights
from lib.network.torchvision import torchvision  # noqa: F401  # before fastai and timm
from tests.benchmarks.plain import ROW, WORKERS


def train(data: str, out: str, epochs_a: int = 5, epochs_b: int = 8) -> None:
    """`epochs_a` with a frozen body, `epochs_b` with the whole network, validated after each."""
    from fastai.vision.all import (
        ImageDataLoaders,
        Resize,
        ResizeMethod,
        accuracy,
        aug_transforms,
        vision_learner,
    )

    loaders = ImageDataLoaders.from_folder(
        data,
        train="train",
        valid="val",
        item_tfms=Resize(224, ResizeMethod.Squish),
        batch_tfms=aug_transforms(do_flip=False, max_rotate=7, max_warp=0),
        bs=32,
        num_workers=WORKERS,
    )
    learner = vision_learner(loaders, ROW.architecture, pretrained=False, metrics=accuracy)
    state = torch.load(weights.weights_file(ROW, Path(data) / "cache"), weights_only=True)
    learner.model[0].model.load_state_dict(
        {name: value for name, value in state.items() if not name.startswith("classifier")}
    )
    with learner.no_bar():
        learner.fine_tune(epochs_b, freeze_epochs=epochs_a)
    torch.save(learner.model.state_dict(), Path(out).with_suffix(".pt"))
    Path(out).write_text(json.dumps({"films": len(loaders.train_ds)}))


if __name__ == "__main__":
    fire.Fire({"train": train})
