"""ultralytics' classifier: train, predict, and predict with its own OpenVINO export.

Its smallest network has 1.5 million parameters (efficientnet_lite0: 3.4 million). Its pretrained
weights would be a download, so the weights are random.

python -m tests.benchmarks.peers.ultralytics_classify train --data DIR --out FILE.json
python -m tests.benchmarks.peers.ultralytics_classify predict --data FOLDER --out FILE.json
    [--exported]
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import fire
import numpy as np

from lib.network.torchvision import torchvision  # noqa: F401  # before ultralytics
from tests.benchmarks.plain import BATCH, SIDE, WORKERS


def _yolo(model: str | Path, folder: Path) -> Any:
    """A model of ultralytics, which may neither install packages nor write to the home folder."""
    os.environ |= {"YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": str(folder)}
    from ultralytics import YOLO

    return YOLO(str(model), task="classify")


def train(data: str, out: str) -> None:
    """One epoch of the whole network, with validation: it freezes nothing by default.

    Writes {"a": seconds, "b": seconds}, which are equal.
    """
    folder = Path(out).parent / "ultralytics"
    model = _yolo("yolo11n-cls.yaml", folder)
    marks: list[float] = []
    for event in ("on_train_epoch_start", "on_fit_epoch_end"):
        model.add_callback(event, lambda _: marks.append(time.perf_counter()))
    model.train(
        data=str(Path(data).resolve()),
        epochs=1,
        imgsz=SIDE,
        batch=BATCH,
        workers=WORKERS,
        device="cpu",
        plots=False,
        project=str(folder),
        exist_ok=True,
    )
    seconds = marks[1] - marks[0]
    Path(out).write_text(json.dumps({"a": seconds, "b": seconds}))


def predict(data: str, out: str, exported: bool = False) -> None:
    """The best class of each film and its probability; the export and the first call of the model
    are not timed.
    """
    folder = Path(out).parent / "ultralytics"
    folder.mkdir(exist_ok=True)
    model = _yolo("yolo11n-cls.yaml", folder)
    if exported:
        model.save(str(folder / "classify.pt"))
        network = _yolo(folder / "classify.pt", folder)
        export = network.export(format="openvino", imgsz=SIDE, batch=BATCH, dynamic=True)
        model = _yolo(export, folder)
    options = {"imgsz": SIDE, "batch": BATCH, "device": "cpu", "verbose": False, "save": False}
    black = np.zeros((SIDE, SIDE, 3), np.uint8)
    model.predict([black] * BATCH, **options)
    began = time.perf_counter()
    results = model.predict(data, stream=True, **options)
    answers = [(result.probs.top1, float(result.probs.top1conf)) for result in results]
    seconds = time.perf_counter() - began
    Path(out).write_text(json.dumps({"seconds": seconds, "films": len(answers)}))


if __name__ == "__main__":
    fire.Fire({"train": train, "predict": predict})
