"""The lung segmenter as files: OpenVINO IR with fp16 weights, and the record of how it was made."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from lib.network.openvino import ov
from tools.lung_net import ORIENTATIONS, SIDE

ATTRIBUTION = (
    "Weights trained on lung masks by V7 Labs (covid-19-xray-dataset, CC BY 4.0) of films by "
    "D. Kermany, K. Zhang, M. Goldbaum (Guangzhou Women and Children's Medical Center, CC BY 4.0). "
    "Further films without masks: NIH ChestX-ray14 (X. Wang et al. 2017), RSNA Pneumonia Detection "
    "Challenge 2018, and the tuberculosis collection of T. Rahman et al. 2020."
)


class _Shipped(torch.nn.Module):
    """Takes `(B, 1, 128, 128) uint8`; gives probabilities instead of logits."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, films: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        masks, turns = self.network(films.float())
        return masks.sigmoid(), turns.softmax(1)


def export(network: torch.nn.Module, folder: Path, record: dict[str, Any]) -> None:
    """Write lungs.xml, lungs.bin and lungs.json to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    example = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.uint8)
    model = ov.convert_model(
        _Shipped(network.eval()), example_input=example, input=[-1, 1, SIDE, SIDE]
    )
    for output, name in zip(model.outputs, ("masks", "orientation"), strict=True):
        output.get_tensor().set_names({name})
    ov.save_model(model, folder / "lungs.xml", compress_to_fp16=True)
    files = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("lungs.xml", "lungs.bin")
    }
    content = {
        "files": files,
        "side": SIDE,
        "masks": ["lungs with what lies behind the heart", "lung fields beside the heart"],
        "orientations": list(ORIENTATIONS),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "attribution": ATTRIBUTION,
        **record,
    }
    (folder / "lungs.json").write_text(json.dumps(content, indent=2) + "\n")
