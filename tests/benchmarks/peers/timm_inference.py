"""The loop of timm's inference.py: its model, data set, loader and transform; random weights.

python -m tests.benchmarks.peers.timm_inference predict --data FOLDER --out FILE.json [--compiled]
"""

import json
import time
from pathlib import Path

import fire
import torch

from lib.network.torchvision import torchvision  # noqa: F401  # before timm
from tests.benchmarks.plain import BATCH, ROW, SIDE, WORKERS


def predict(data: str, out: str, compiled: bool = False) -> None:
    """The best class of each film and its probability; `compiled` as with --torchcompile.

    Compilation is not timed. The films should fill their batches: another size compiles again.
    """
    from timm import create_model
    from timm.data.config import resolve_data_config
    from timm.data.dataset_factory import create_dataset
    from timm.data.loader import create_loader

    model = create_model(ROW.architecture, num_classes=3).eval()
    config = resolve_data_config({}, model=model)
    dataset = create_dataset("", root=data)
    loader = create_loader(
        dataset, batch_size=BATCH, num_workers=WORKERS, device=torch.device("cpu"), **config
    )
    run = torch.compile(model) if compiled else model
    with torch.inference_mode():
        run(torch.zeros(min(BATCH, len(dataset)), 3, SIDE, SIDE))
        began = time.perf_counter()
        answers = torch.cat([run(images).softmax(-1).topk(1).values for images, _ in loader])
        seconds = time.perf_counter() - began
    Path(out).write_text(json.dumps({"seconds": seconds, "films": len(answers)}))


if __name__ == "__main__":
    fire.Fire({"predict": predict})
