"""What a tutorial would write: ImageFolder, DataLoader with two workers, eager PyTorch, same recipe
and films as the jobs.

python -m tests.benchmarks.plain train --data DIR --out FILE.json [--seed 0]
    [--epochs_a 1] [--epochs_b 1] [--tuned]
python -m tests.benchmarks.plain predict --data FOLDER --checkpoint FILE.pt --out FILE.json
    [--tuned]

--tuned: channels-last, and bfloat16 where the CPU has it.
"""

import json
import time
from pathlib import Path
from typing import Any

import fire
import numpy as np
import torch
from PIL import Image
from sklearn.metrics import f1_score
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lib.network import backbones, checkpoints
from lib.network.backbones import BACKBONES
from lib.network.torchvision import torchvision
from lib.network.weights import weights_file

transforms = torchvision.transforms.v2
ROW = BACKBONES["efficientnet_lite0"]
SIDE = 224
BATCH = 32
WORKERS = 2
FROZEN = {"a": ("trunk", "last_block"), "b": ("trunk",)}  # by phase


def _to_tensor() -> list[Any]:
    return [
        transforms.ToImage(),
        transforms.ToDtype(torch.float32, scale=True),
        transforms.Normalize(ROW.mean, ROW.std),
    ]


def _plain_transform(augmented: bool) -> Any:
    steps = [transforms.Grayscale(3), transforms.Resize((SIDE, SIDE))]
    if augmented:
        steps.append(transforms.RandomAffine(7, translate=(0.04, 0.04), scale=(0.92, 1.08)))
        steps.append(transforms.ColorJitter(brightness=0.15, contrast=0.15))
    return transforms.Compose([*steps, *_to_tensor()])


def _layout(tuned: bool) -> torch.memory_format:
    return torch.channels_last if tuned else torch.contiguous_format


def _arrange(model: Any, tuned: bool) -> None:  # torch does not declare this form of `to`
    model.to(memory_format=_layout(tuned))


def _autocast(tuned: bool) -> torch.autocast:
    """bfloat16 where the CPU has instructions for it, if `tuned`."""
    enabled = tuned and torch.cpu._is_avx512_bf16_supported()
    return torch.autocast("cpu", torch.bfloat16, enabled=enabled)


def train(
    data: str,
    out: str,
    seed: int = 0,
    epochs_a: int = 1,
    epochs_b: int = 1,
    tuned: bool = False,
) -> None:
    """Both phases, then the test films.

    Writes the mean seconds of an epoch of each phase with its validation, and the score of the
    test films: {"a": …, "b": …, "macro_f1": …}.
    """
    torch.manual_seed(seed)
    folders = {
        name: torchvision.datasets.ImageFolder(
            str(Path(data) / name), _plain_transform(augmented=name == "train")
        )
        for name in ("train", "val", "test")
    }
    loaders = {
        name: DataLoader(folder, batch_size=BATCH, shuffle=name == "train", num_workers=WORKERS)
        for name, folder in folders.items()
    }
    classes = len(folders["train"].classes)
    model = backbones.build(ROW, classes, weights_file(ROW, Path(data) / "cache"))
    _arrange(model, tuned)
    counts = np.bincount(folders["train"].targets, minlength=classes)
    weights = torch.tensor((counts.sum() / (classes * counts)) ** 0.5, dtype=torch.float32)
    criterion = nn.CrossEntropyLoss(weight=weights)
    best, best_state = -1.0, model.state_dict()
    result = {}
    for phase, epochs in (("a", epochs_a), ("b", epochs_b)):
        model.load_state_dict(best_state)
        frozen = [model.get_submodule(name) for name in FROZEN[phase]]
        for parameter in model.parameters():
            parameter.requires_grad = True
        for part in frozen:
            for parameter in part.parameters():
                parameter.requires_grad = False
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=3e-4 if phase == "a" else 1e-4, weight_decay=1e-4)
        step = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.3)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, epochs))
        scheduler = step if phase == "a" else cosine
        began = time.perf_counter()
        for _ in range(epochs):
            model.train()
            for part in frozen:
                part.eval()
            for images, labels in loaders["train"]:
                optimizer.zero_grad()
                with _autocast(tuned):
                    logits = model(images.to(memory_format=_layout(tuned)))
                loss = criterion(logits.float(), labels)
                loss.backward()
                optimizer.step()
            scheduler.step()
            answers, labels = _answers(model, loaders["val"], tuned)
            accuracy = float((answers == labels).mean())
            if accuracy > best:
                best, best_state = (
                    accuracy,
                    {name: tensor.clone() for name, tensor in model.state_dict().items()},
                )
        result[phase] = (time.perf_counter() - began) / epochs
    model.load_state_dict(best_state)
    answers, labels = _answers(model, loaders["test"], tuned)
    result["macro_f1"] = float(f1_score(labels, answers, average="macro"))
    Path(out).write_text(json.dumps(result))


@torch.no_grad()
def _answers(
    model: nn.Module, loader: DataLoader[Any], tuned: bool
) -> tuple[np.ndarray, np.ndarray]:
    model.eval()
    pairs = []
    for images, labels in loader:
        with _autocast(tuned):
            logits = model(images.to(memory_format=_layout(tuned)))
        pairs.append((logits.argmax(1).numpy(), labels.numpy()))
    answers, labels = zip(*pairs, strict=True)
    return np.concatenate(answers), np.concatenate(labels)


class Folder(Dataset[torch.Tensor]):
    """The files of a folder, as every tutorial on inference writes it."""

    def __init__(self, folder: str, transform: Any) -> None:
        self.files, self.transform = (
            sorted(path for path in Path(folder).rglob("*") if path.is_file()),
            transform,
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.open(self.files[index]).convert("RGB"))


def predict(data: str, checkpoint: str, out: str, tuned: bool = False) -> None:
    """Answers for a folder; writes {"seconds": …, "films": …} from the first batch to the last,
    imports not counted.
    """
    content = checkpoints.load(Path(checkpoint))
    model = backbones.build(ROW, len(content.classes))
    model.load_state_dict(content.state)
    model.eval()
    _arrange(model, tuned)
    loader = DataLoader(
        Folder(data, _plain_transform(augmented=False)), batch_size=BATCH, num_workers=WORKERS
    )
    began = time.perf_counter()
    with torch.no_grad(), _autocast(tuned):
        answers = torch.cat(
            [
                torch.softmax(model(images.to(memory_format=_layout(tuned))).float(), 1)
                for images in loader
            ]
        )
    seconds = time.perf_counter() - began
    Path(out).write_text(json.dumps({"seconds": seconds, "films": len(answers)}))


if __name__ == "__main__":
    fire.Fire({"train": train, "predict": predict})
