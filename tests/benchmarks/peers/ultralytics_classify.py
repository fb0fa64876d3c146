"""ultralytics' classifier: train, predict, and predict with its own OpenVINO export.

Its smallest network has 1.5 million parameters (efficientnet_lite0: 3.4 million). Its pretrained
weights would be a download, so that the weights are random.

python -m tests.benchmarks.peers.ultralytics_classify train --data DIR --out FILE.json
    [--epochs_a 5] [--epochs_b 8]
python -m tests.benchmarks.peers.ultralytics_classify export|predict --data FOLDER --out FILE.json
    [--exported] [--batch 32]
"""

import json
import os
from pathlib import Path
from typing import Any

import fire

from lib.network.torchvision import torchvision  # noqa: F401  # before ultralytics
from tests.benchmarks.plain import WORKERS

ARCHITECTURE = "yolo11n-cls.yaml"
SIDE = 224


def _yolo(model: str | Path, out: str) -> Any:
    """A model of ultralytics, which may neither install packages nor write to the home folder."""
    os.environ["YOLO_AUTOINSTALL"] = "false"
    os.environ["YOLO_CONFIG_DIR"] = str(Path(out).parent / "ultralytics")
    from ultralytics import YOLO

    return YOLO(str(model), task="classify")


def train(data: str, out: str, epochs_a: int = 5, epochs_b: int = 8) -> None:
    """All epochs with the whole network, as its documentation has it."""
    model = _yolo(ARCHITECTURE, out)
    model.train(
        data=str(Path(data).resolve()),
        epochs=epochs_a + epochs_b,
        imgsz=SIDE,
        batch=32,
        workers=WORKERS,
        device="cpu",
        plots=False,
        project=str(Path(out).parent / "ultralytics"),
        exist_ok=True,
    )
    films = sum(path.is_file() for path in (Path(data) / "train").rglob("*"))
    Path(out).write_text(json.dumps({"films": films}))


def _weights(out: str) -> Path:
    return Path(out).parent / "ultralytics" / "classify.pt"


def export(
    data: str, out: str, checkpoint: str = "", exported: bool = False, batch: int = 32
) -> None:
    """The model for `predict`, and as an OpenVINO graph; data and checkpoint are not read."""
    model = _yolo(ARCHITECTURE, out)
    _weights(out).parent.mkdir(exist_ok=True)
    model.save(str(_weights(out)))
    if exported:
        _yolo(_weights(out), out).export(
            format="openvino", imgsz=SIDE, batch=batch, dynamic=True, device="cpu"
        )
    Path(out).write_text(json.dumps({"films": 0}))


def predict(
    data: str, out: str, checkpoint: str = "", exported: bool = False, batch: int = 32
) -> None:
    """The classes of all files of the folder, by the model of `export`; checkpoint is not read."""
    weights = _weights(out)
    model = _yolo(weights.with_name("classify_openvino_model") if exported else weights, out)
    results = model.predict(
        data, stream=True, imgsz=SIDE, batch=batch, device="cpu", verbose=False, save=False
    )
    answers = [(result.path, result.probs.top1, float(result.probs.top1conf)) for result in results]
    Path(out).write_text(json.dumps({"films": len(answers)}))


if __name__ == "__main__":
    fire.Fire({"train": train, "export": export, "predict": predict})
