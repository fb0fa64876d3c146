"""The loop of timm's inference.py: its model, data set, loader and transform, and its CSV.

python -m tests.benchmarks.peers.timm_inference predict --data FOLDER --checkpoint FILE.pt
    --out FILE.json [--compiled]
"""

import json
from pathlib import Path

import fire
import pandas as pd
import torch

from lib.network import checkpoints
from lib.network.torchvision import torchvision  # noqa: F401  # before timm
from tests.benchmarks.plain import ROW, WORKERS


def predict(data: str, out: str, checkpoint: str, compiled: bool = False) -> None:
    """The class and its probability for each file; `compiled` as with --torchcompile."""
    from timm import create_model
    from timm.data.config import resolve_data_config
    from timm.data.dataset_factory import create_dataset
    from timm.data.loader import create_loader

    content = checkpoints.load(Path(checkpoint))
    model = create_model(ROW.architecture, num_classes=len(content.classes)).eval()
    config = resolve_data_config({}, model=model)
    run = torch.compile(model) if compiled else model
    dataset = create_dataset("", root=data)
    loader = create_loader(
        dataset, batch_size=32, num_workers=WORKERS, device=torch.device("cpu"), **config
    )
    with torch.inference_mode():
        best = [run(images).softmax(-1).topk(1) for images, _ in loader]
    table = pd.DataFrame(
        {
            "filename": dataset.filenames(basename=True),
            "index": torch.cat([answer.indices[:, 0] for answer in best]).numpy(),
            "prob": torch.cat([answer.values[:, 0] for answer in best]).numpy(),
        }
    )
    table.to_csv(Path(out).with_suffix(".csv"), index=False)
    Path(out).write_text(json.dumps({"films": len(table)}))


if __name__ == "__main__":
    fire.Fire({"predict": predict})
