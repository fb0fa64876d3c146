"""The table of shared settings and the file that explains it to people."""

import re
from pathlib import Path

from lib.network.backbones import BACKBONES
from lib.settings import SETTINGS

PROJECT = Path(__file__).resolve().parents[1]
EXAMPLE = (PROJECT / ".env.example").read_text()


def test_every_shared_setting_is_in_the_example_with_its_default() -> None:
    for setting in SETTINGS:
        default = "" if setting.default is None else str(setting.default)
        line = re.search(rf"^{setting.env}=(.*)$", EXAMPLE, re.MULTILINE)
        assert line, setting.env
        assert line[1].removeprefix("./") == default


def test_every_variable_of_the_compose_file_is_explained() -> None:
    used = set(re.findall(r"\$\{(\w+)", (PROJECT / "compose.yaml").read_text())) - {"IMAGE"}
    explained = set(re.findall(r"^(\w+)=", EXAMPLE, re.MULTILINE))
    assert used <= explained


def test_the_example_names_a_backbone_that_exists() -> None:
    named = re.search(r"^BACKBONE=(.+)$", EXAMPLE, re.MULTILINE)
    assert named
    assert named[1] in BACKBONES
