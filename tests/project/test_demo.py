"""The end of make demo."""

import json
import subprocess
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def test_the_demo_ends_with_both_verdicts_and_the_pages_to_open(tmp_path: Path) -> None:
    scored = {
        "evaluation": ("clear", 0.812),
        "confounded/evaluation": ("shortcut", 0.948),
        "external/other": ("clear", 0.701),
        "confounded/external/other": ("chance", 0.352),
    }
    for folder, (level, macro_f1) in scored.items():
        scores = {"macro_f1": {"value": macro_f1, "interval": [0.1, 0.9]}}
        metrics = {"scores": scores, "verdict": {"level": level, "words": "macro-F1: 0.5"}}
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "metrics.json").write_text(json.dumps(metrics, indent=2))
    command = [str(PROJECT / "deploy" / "demo.sh"), str(tmp_path), "other"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[-3:] for line in said if line.startswith("  all films from one")] == [
        ["clear", "0.81", "0.70"]
    ]
    assert [line.split()[-3:] for line in said if line.startswith("  the films of each")] == [
        ["shortcut", "0.95", "0.35"]
    ]
    assert f"  {tmp_path}/confounded/report.html" in said
    assert f"  {tmp_path}/external/other/report.html" in said
