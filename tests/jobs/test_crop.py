"""Training, evaluation and prediction with --crop lungs: the same pixels in all of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from jobs import evaluate, train
from lib.images.reader import thumbnail_of
from lib.network import checkpoints
from lib.network.artifact import ModelManifest
from lib.network.choices import FILM_SIDE
from lib.network.lungs import FILES, segmenter_digest
from lib.prediction.maps import OUTLINE
from lib.prediction.prediction import Prediction
from lib.prediction.predictor import Predictor
from lib.run.errors import JobError
from lib.training.films import FilmReader, SplitFilms, TrainingFilm
from lib.training.plan import Overrides, plan_of
from tests.conftest import LITE0, dirs, predict, run
from tests.stored import restore_or_build
from tests.training.plans import SETTINGS

CHECKPOINT = "best_efficientnet_lite0.pt"
SIDE = 224
EPOCHS = ("--epochs", "2")


@pytest.fixture(scope="session")
def cropped(tmp_path_factory: pytest.TempPathFactory, ready: Path) -> Path:
    """A project folder after Phase A with --crop lungs. Tests must not change it."""
    root = tmp_path_factory.mktemp("cropped")

    def build() -> None:
        (root / "data").symlink_to(Path("..") / ready.name / "data")
        assert run(train, "--phase", "a", *EPOCHS, "--crop", "lungs", *LITE0, *dirs(root)) == 0

    restore_or_build("cropped", root, build, "tests/jobs/test_crop.py")
    return root


@pytest.fixture
def root(tmp_path: Path, cropped: Path) -> Path:
    """A copy of the project folder that the test may change."""
    (tmp_path / "data").symlink_to((cropped / "data").resolve())
    shutil.copytree(cropped / "runs", tmp_path / "runs")
    return tmp_path


@pytest.fixture(scope="module")
def answers(cropped: Path) -> list[tuple[TrainingFilm, Prediction]]:
    """The validation films with their predictions."""
    films = SplitFilms.read(cropped / "data").films["val"]
    predictor = Predictor(cropped / "runs/model", "fp32", 2, 2)
    return list(zip(films, predictor.predict([film.path for film in films]), strict=True))


def _train(root: Path, *more: str) -> int:
    return run(train, *more, *EPOCHS, *LITE0, *dirs(root))


def test_the_model_records_the_crop_and_carries_the_segmenter(cropped: Path) -> None:
    manifest = ModelManifest.read(cropped / "runs/model")
    assert manifest.crop == "lungs"
    assert manifest.even_exposure
    assert manifest.decoded_side == FILM_SIDE
    assert set(FILES) <= set(manifest.files)
    config = json.loads((cropped / "runs/phase_a/config.json").read_text())
    assert config["plan"]["crop"] == "lungs"
    assert config["plan"]["even_exposure"]
    assert checkpoints.load(cropped / "runs" / CHECKPOINT).segmenter == segmenter_digest()


def test_training_and_prediction_see_the_same_pixels(
    answers: list[tuple[TrainingFilm, Prediction]],
) -> None:
    plan = plan_of("a", Overrides(), **{**SETTINGS, "crop": "lungs"})
    reader = FilmReader.of(plan)
    assert reader.input_side == SIDE
    cropped = 0
    for film, answer in answers:
        assert np.array_equal(reader.read(film), answer.film.grey)
        assert np.array_equal(thumbnail_of(reader.decode(film)), answer.film.thumbnail)
        assert answer.lungs is not None
        cropped += answer.lungs.box is not None
    assert cropped > len(answers) / 2


def test_the_segmenter_of_the_model_folder_is_used(root: Path) -> None:
    predictor = Predictor(root / "runs/model", "fp32", 1, 1)
    (root / "runs/model/lungs.bin").unlink()
    film = next((root / "data").resolve().joinpath("test").rglob("*.png"))
    with pytest.raises(JobError, match=r"lung segmenter in .*runs/model cannot be read"):
        list(predictor.predict([film]))


def test_the_jobs_that_follow_use_the_crop(root: Path, tmp_path: Path) -> None:
    assert run(evaluate, *LITE0, *dirs(root), "--nobaselines") in (0, 3)
    scored = pd.read_csv(root / "runs/evaluation/predictions.csv").set_index("path")
    page = (root / "runs/report.html").read_text()
    assert "the film's own" in page
    assert "What the network sees" in page
    assert page.count('alt="whole film"') == scored["label"].value_counts().clip(upper=4).sum()
    films = tmp_path / "films"
    shutil.copytree((root / "data").resolve() / "test", films)
    noise = np.random.default_rng(0).integers(0, 255, (300, 300), np.uint8)
    Image.fromarray(noise).save(films / "noise.png")
    maps = tmp_path / "maps"
    assert predict(root, films, tmp_path / "a.csv", "--explain", str(maps)) in (0, 3)
    table = pd.read_csv(tmp_path / "a.csv").set_index("path")
    for name in scored.index:
        assert table.loc[name, "prob_NORMAL"] == pytest.approx(
            scored.loc[name, "prob_NORMAL"], abs=1e-6
        )
    assert "no lungs found" in str(table.loc["noise.png", "reasons"])
    assert table.loc["noise.png", "needs_review"]
    outlined = [_outlined(maps / f"{name}.png") for name in scored.index]
    assert np.mean(outlined) > 0.5
    assert not _outlined(maps / "noise.png.png")


def test_films_that_look_turned_say_so_in_the_table(root: Path, tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    for path in sorted((root / "data").resolve().joinpath("test").rglob("*.png")):
        with Image.open(path) as film:
            film.convert("L").transpose(Image.Transpose.ROTATE_90).save(films / path.name)
    assert predict(root, films, tmp_path / "a.csv") in (0, 3)
    reasons = pd.read_csv(tmp_path / "a.csv", keep_default_na=False)["reasons"]
    assert reasons.str.contains("looks turned by 90 degrees").mean() > 0.5


def _outlined(path: Path) -> bool:
    picture = np.asarray(Image.open(path))
    assert picture.shape == (SIDE, 2 * SIDE, 3)
    return bool((picture == OUTLINE).all(2).any())


def test_a_checkpoint_alone_is_scored_with_its_crop(root: Path, tmp_path: Path) -> None:
    argv = ["--checkpoint_path", root / "runs" / CHECKPOINT, "--output", tmp_path / "out"]
    assert run(evaluate, *argv, *LITE0, *dirs(root), "--nobaselines") in (0, 3)
    assert "the film's own" in (tmp_path / "out/report.html").read_text()


def test_a_phase_b_of_another_crop_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(root, "--phase", "b", "--crop", "none") == 1
    assert "trained with --crop lungs, this run has --crop none" in capsys.readouterr().err


def test_a_phase_b_that_would_see_other_grey_levels_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(root, "--phase", "b", "--crop", "lungs", "--noeven_exposure") == 1
    assert "was trained with --even_exposure" in capsys.readouterr().err


def test_a_phase_b_that_would_see_other_detail_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(root, "--phase", "b", "--crop", "lungs", "--film_side", "448") == 1
    assert "Give --film_side 250, or run Phase A again." in capsys.readouterr().err


def test_phase_b_goes_on_with_the_crop(root: Path) -> None:
    assert _train(root, "--phase", "b", "--crop", "lungs") == 0
    assert ModelManifest.read(root / "runs/model").crop == "lungs"


def test_another_crop_is_another_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _train(root, "--phase", "a", "--crop", "lungs") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert _train(root, "--phase", "a", "--crop", "none") == 0
    assert "nothing to do" not in capsys.readouterr().out
    assert ModelManifest.read(root / "runs/model").crop == "none"
    assert not set(FILES) & {path.name for path in (root / "runs/model").iterdir()}
