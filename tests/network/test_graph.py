"""The compiled model: order, independence of cores and neighbours, precision, and folders that are
damaged.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.images.decode import read_grey
from lib.network import artifact, backbones, checkpoints, graph, lungs
from lib.network.artifact import Agreement, ModelManifest
from lib.network.backbones import to_input
from lib.network.choices import FILM_SIDE
from lib.network.crop import LungCropper
from lib.network.graph import Graph
from lib.network.numerics import softmax
from lib.prediction.predictor import Predictor
from lib.run.errors import JobError
from lib.storage.atomic import copy_folder
from tests.conftest import dirs, environment, film

HAS_BF16 = graph.native_precision() == "bf16"


@pytest.fixture
def model(chain: Path) -> Path:
    return chain / "runs" / "model"


def _greys(count: int) -> list[np.ndarray]:
    return [
        np.random.default_rng(seed).integers(0, 256, (224, 224), dtype=np.uint8)
        for seed in range(count)
    ]


def test_answers_come_in_input_order_and_films_that_are_missing_pass_through(model: Path) -> None:
    graph = Graph(model, "fp32", 2)
    greys = _greys(5)
    items = [(place, None if place % 3 else greys[place % 5]) for place in range(150)]
    answers = list(graph.stream(items))
    assert [key for key, _ in answers] == list(range(150))
    alone = {place: next(graph.stream([(0, grey)]))[1] for place, grey in enumerate(greys)}
    for place, outputs in answers:
        assert (outputs is None) == bool(place % 3)
        if outputs is not None:
            assert np.array_equal(outputs[0], alone[place % 5][0])  # type: ignore[index]


def test_bits_do_not_depend_on_the_number_of_cores(model: Path) -> None:
    greys = _greys(9)
    for precision in ("fp32", "bf16"):
        one, two = (
            np.stack(
                [
                    outputs[0]
                    for _, outputs in Graph(model, precision, cores).stream(
                        (None, g) for g in greys
                    )
                    if outputs
                ]
            )
            for cores in (1, 2)
        )
        assert np.array_equal(one, two)


def test_no_more_threads_than_cores(model: Path) -> None:
    assert [Graph(model, "fp32", cores).threads for cores in (1, 2)] == [1, 2]


def test_the_stream_runs_only_a_little_ahead(model: Path) -> None:
    graph, taken = Graph(model, "fp32", 2), []

    def films() -> Iterator[tuple[int, np.ndarray]]:
        for place in range(1000):
            taken.append(place)
            yield place, np.zeros((224, 224), np.uint8)

    answers = graph.stream(films())
    for _ in range(10):
        next(answers)
    assert len(taken) < 40
    assert isinstance(answers, Generator)
    answers.close()
    assert len(list(graph.stream([(0, np.zeros((224, 224), np.uint8))]))) == 1


def test_a_failure_of_the_reader_reaches_the_caller(model: Path) -> None:
    def films() -> Iterator[tuple[int, np.ndarray]]:
        yield 0, np.zeros((224, 224), np.uint8)
        raise RuntimeError("reader")

    with pytest.raises(RuntimeError, match="reader"):
        list(Graph(model, "fp32", 1).stream(films()))


def _read(values: np.ndarray | None) -> np.ndarray:
    """The values of a film that could be read."""
    assert values is not None
    return values


def test_fp32_agrees_with_pytorch(chain: Path, model: Path) -> None:
    content = checkpoints.load(chain / "runs" / "best_efficientnet_lite0.pt")
    network = backbones.build(content.architecture, 3).eval()
    network.load_state_dict(content.state)
    files = sorted((chain / "data").resolve().joinpath("test").rglob("*.*"))
    cropper = LungCropper(1, even_exposure=True)
    greys = [cropper.view(read_grey(path, FILM_SIDE), 224).grey for path in files]
    with torch.inference_mode():
        wanted = torch.softmax(network(to_input(greys, content.architecture)).double(), 1).numpy()
    answers = list(Predictor(model, "fp32", 2, 2).predict(files))
    assert [answer.film.path for answer in answers] == files
    shift = np.abs(softmax(np.stack([_read(answer.logits) for answer in answers])) - wanted)
    assert shift.max() <= 1e-4


@pytest.mark.skipif(not HAS_BF16, reason="this CPU has no bfloat16")
def test_bf16_is_as_close_to_fp32_as_the_model_says(chain: Path, model: Path) -> None:
    files = sorted((chain / "data").resolve().joinpath("train").rglob("*.*"))
    answers = {
        precision: list(Predictor(model, precision, 2, 2).predict(files))
        for precision in ("fp32", "bf16")
    }
    exact, rounded = (
        np.stack([_read(answer.probabilities) for answer in answers[precision]])
        for precision in answers
    )
    assert np.abs(exact - rounded).mean() <= 0.005
    second, best = np.sort(exact, axis=1)[:, -2:].T
    same = exact.argmax(1) == rounded.argmax(1)
    assert same[best - second > 0.02].all()  # the others are as good as undecided
    # "auto" rests on the figure in the model: of other films, and before calibration
    raw = [softmax(np.stack([_read(one.logits) for one in found])) for found in answers.values()]
    recorded = ModelManifest.read(model).bf16
    assert recorded
    assert np.abs(raw[0] - raw[1]).mean() == pytest.approx(recorded.mean_shift, abs=0.002)


def _card(shift: float | None) -> ModelManifest:
    agreement = None if shift is None else Agreement(100, 1.0, shift, shift)
    return ModelManifest("resnet18", ("A", "B"), 224, "a", 1, "w", "s", agreement, {}, {})


def test_auto_takes_bf16_only_where_cpu_and_model_bear_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "native_precision", lambda: "bf16")
    assert [_card(shift).precision("auto") for shift in (0.001, 0.02, None)] == [
        "bf16",
        "fp32",
        "fp32",
    ]
    assert _card(None).precision("bf16") == "bf16"
    monkeypatch.setattr(artifact, "native_precision", lambda: "fp32")
    assert _card(0.001).precision("auto") == "fp32"


def _remove(folder: Path) -> None:
    shutil.rmtree(folder)


def _flip(folder: Path) -> None:
    content = bytearray((folder / "fp32.bin").read_bytes())
    content[1000] ^= 1
    (folder / "fp32.bin").write_bytes(content)


def _other_format(folder: Path) -> None:
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**card, "format": 99}))


def _edit(folder: Path) -> None:
    card = (folder / "model.json").read_text()
    (folder / "model.json").write_text(
        card.replace('"NORMAL",\n    "PNEUMONIA"', '"PNEUMONIA",\n    "NORMAL"')
    )
    assert card != (folder / "model.json").read_text()


def _no_json(folder: Path) -> None:
    (folder / "model.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove, "no model in"),
        (_flip, "fp32.bin is missing or damaged"),
        (_other_format, "not a model"),
        (_edit, "model.json was changed"),
        (_no_json, "cannot be"),
    ],
)
def test_a_damaged_model_is_refused_with_the_reason(
    model: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    shutil.copytree(model, tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(JobError, match=message):
        Predictor(tmp_path / "model", "auto", 1, 1)


def test_a_model_that_is_replaced_before_it_is_compiled_gives_no_answers(
    chain: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    copy_folder(chain / "runs/phase_a/model", folder)
    predictor = Predictor(folder, "fp32", 1, 1)
    copy_folder(chain / "runs/model", folder)
    with pytest.raises(JobError, match="was replaced while this run began"):
        list(predictor.predict([film(tmp_path / "a.png")]))


def test_the_card_survives_the_way_to_disk_and_back(model: Path, tmp_path: Path) -> None:
    card = ModelManifest.read(model)
    assert card.classes == ("NORMAL", "PNEUMONIA", "TUBERCULOSIS")
    shutil.copytree(model, tmp_path / "model")
    card.write(tmp_path / "model")
    assert ModelManifest.read(tmp_path / "model") == card
    graphs = {"fp32.xml", "fp32.bin", "bf16.xml", "bf16.bin"}
    in_int8 = {"int8.xml", "int8.bin"}  # where the CPU has VNNI and the answers agree
    assert set(card.files) - in_int8 == {*graphs, "reference.npz", *lungs.FILES}


def test_softmax_of_large_logits_is_finite() -> None:
    assert softmax(np.array([[1000.0, 0.0]], np.float32)).tolist() == [[1.0, 0.0]]


def test_prediction_needs_neither_torch_nor_timm(chain: Path, tmp_path: Path) -> None:
    film(tmp_path / "in" / "a.png")
    code = (
        "import sys; from jobs.predict_batch import predict_batch; from lib.run import execute; "
        "assert 'scipy' not in sys.modules; "  # a model that crops needs it later
        "code = execute.execute(predict_batch, sys.argv[1:]); "
        "absent = {'torch', 'torchvision', 'timm', 'pandas', 'matplotlib'}; "
        "assert not absent & set(sys.modules); sys.exit(code)"
    )
    argv = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "x.csv"), *dirs(chain)[2:]]
    subprocess.run([sys.executable, "-c", code, *argv], env=environment(), check=True, cwd=tmp_path)
