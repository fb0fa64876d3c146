"""The lung segmenter as it is shipped: its files, what it finds, what it refuses, its recipe."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from lib.dataset import chest, synthetic
from lib.network.lungs import (
    FOLDER,
    ORIENTATIONS,
    SIDE,
    LungFinder,
    Lungs,
    box_of,
    plausible_lungs,
)
from lib.run.errors import JobError
from tests.conftest import environment

SHARED = Path(__file__).resolve().parents[3] / "shared"


@pytest.fixture(scope="module")
def finder() -> LungFinder:
    return LungFinder()


@pytest.fixture(scope="module")
def phantom() -> np.ndarray:
    return synthetic.draw("NORMAL", (3,), (4,))


def plot() -> np.ndarray:
    image = Image.new("L", (300, 200), 255)
    draw = ImageDraw.Draw(image)
    draw.rectangle((40, 20, 280, 170), outline=0)
    draw.line([(40 + 8 * i, 90 + 50 * np.sin(i / 3)) for i in range(31)], fill=0, width=2)
    draw.text((120, 180), "epoch", fill=0)
    return np.asarray(image)


def test_the_shipped_files_are_small_and_say_whose_masks_they_learned_from() -> None:
    record = json.loads((FOLDER / "lungs.json").read_text())
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 1 << 20
    assert "V7 Labs" in record["attribution"]
    assert "CC BY 4.0" in record["attribution"]
    assert record["side"] == SIDE
    assert tuple(record["orientations"]) == ORIENTATIONS


def test_a_changed_model_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(FOLDER, tmp_path / "lungs")
    content = bytearray((folder / "lungs.bin").read_bytes())
    content[100] ^= 1
    (folder / "lungs.bin").write_bytes(content)
    with pytest.raises(JobError, match=r"lungs\.bin differs from its digest"):
        LungFinder(folder=folder)


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="cannot be read"):
        LungFinder(folder=tmp_path)


def test_the_box_of_a_phantom_encloses_its_lungs(finder: LungFinder, phantom: np.ndarray) -> None:
    found = finder.find(phantom)
    assert found.box is not None
    soft, _ = chest.thorax(*chest.pose(np.random.default_rng(3)), np.random.default_rng(4))
    assert np.allclose(found.box, box_of(soft > 0.5), atol=0.08)
    assert found.orientation == "upright"
    assert found.fields.sum() <= found.mask.sum()


@pytest.mark.parametrize(
    "picture",
    [
        pytest.param(np.zeros((256, 256), np.uint8), id="black"),
        pytest.param(np.full((200, 300), 255, np.uint8), id="white"),
        pytest.param(np.random.default_rng(0).integers(0, 255, (256, 256), np.uint8), id="noise"),
        pytest.param(plot(), id="plot"),
    ],
)
def test_pictures_without_lungs_have_no_box(finder: LungFinder, picture: np.ndarray) -> None:
    found = finder.find(picture)
    assert found.box is None
    assert not found.mask.any()
    assert found.crop_box() == (0.0, 0.0, 1.0, 1.0)


def test_a_batch_finds_what_single_films_find(finder: LungFinder, phantom: np.ndarray) -> None:
    films = [phantom, phantom[::2, :400], plot()]
    together = finder.find_all(films)
    for film, one in zip(films, together, strict=True):
        alone = finder.find(film)
        assert one.box == alone.box
        assert (one.mask == alone.mask).mean() > 0.999
    assert finder.find_all([]) == []


def test_colour_is_refused(finder: LungFinder) -> None:
    with pytest.raises(ValueError, match=r"\(h, w\) uint8"):
        finder.find(np.zeros((64, 64, 3), np.uint8))


def test_the_margin_ends_at_the_edge_of_the_film() -> None:
    empty = np.zeros((SIDE, SIDE), bool)
    lungs = Lungs(empty, empty, (0.02, 0.2, 0.9, 0.97), "upright", 0.9)
    assert lungs.crop_box(0.06) == pytest.approx((0.0, 0.14, 0.96, 1.0))


def test_the_two_largest_components_are_kept_and_filled() -> None:
    probability = np.zeros((SIDE, SIDE), np.float32)
    probability[30:90, 20:50] = probability[30:90, 70:100] = 0.95
    probability[50:55, 30:35] = 0.1  # a hole
    probability[5:8, 5:8] = 0.9  # a third component
    lungs = plausible_lungs(probability)
    assert lungs is not None
    assert lungs.mask[52, 32]
    assert not lungs.mask[6, 6]
    assert lungs.certainty < 0.95
    assert lungs.box == box_of(lungs.mask) == (20 / SIDE, 30 / SIDE, 100 / SIDE, 90 / SIDE)


def test_a_speck_and_a_doubtful_mask_are_no_lungs() -> None:
    speck = np.zeros((SIDE, SIDE), np.float32)
    speck[60:70, 60:70] = 0.99
    assert plausible_lungs(speck) is None
    doubtful = np.zeros((SIDE, SIDE), np.float32)
    doubtful[20:100, 20:100] = 0.55
    assert plausible_lungs(doubtful) is None


@pytest.mark.skipif(not (SHARED / "lungs").is_dir(), reason="needs ../shared/lungs")
def test_the_recipe_learns_and_exports(tmp_path: Path) -> None:
    from tools import lung_films
    from tools.lung_export import export as export_lungs
    from tools.lung_learner import Learner, train
    from tools.lung_net import LungNet
    from tools.train_lungs import PUPIL

    films, kept, _ = lung_films.read_children(SHARED / "lungs", most=24)
    torch.manual_seed(0)
    learner = Learner(LungNet(), replace(PUPIL, steps=12, batch=8))
    losses = train(learner, [films, films, kept, kept], seed=0)
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    export_lungs(learner.averaged, tmp_path / "lungs", {"recipe": 0})
    found = LungFinder(folder=tmp_path / "lungs").find(films.grey[0])
    assert found.mask.shape == (SIDE, SIDE)


@pytest.mark.skipif(not (SHARED / "lungs").is_dir(), reason="needs ../shared/lungs")
def test_the_teacher_adds_to_the_masks_and_fills_those_that_films_lack() -> None:
    from tools import lung_films, train_lungs

    films, kept, _ = lung_films.read_children(SHARED / "lungs", most=12)
    course = replace(train_lungs.TEACHER, steps=2, batch=4)
    plan = train_lungs.Plan(teacher=course, taught=0.25)
    teacher = train_lungs.trained_teacher(films, [kept, kept], plan)
    taught = train_lungs.taught_children(teacher, films, plan)
    assert taught.known.all()
    lungs = films.target[:, 0] == 255
    assert (taught.target[:, 0][lungs] >= 191).all()
    assert (taught.target[:, 0][~lungs] <= 64).all()
    assert np.median(taught.target[:, 0][~lungs]) > 0


def test_threads_that_come_first_at_the_same_time_do_not_wait_for_each_other() -> None:
    """Without the preparation in lib/network/openvino.py 29 of 30 such programs stood still."""
    program = """
import sys, threading
import numpy as np
from lib.network.lungs import LungFinder
sys.setswitchinterval(1e-6)
finder, barrier = LungFinder(4), threading.Barrier(4)
def find():
    finder._request_of_this_thread()
    barrier.wait()
    finder.find(np.zeros((128, 128), np.uint8))
threads = [threading.Thread(target=find) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    for _ in range(3):
        command = [sys.executable, "-c", program]
        subprocess.run(command, check=True, timeout=60, env=environment())
