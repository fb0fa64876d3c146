"""evaluate --films: a labelled folder from elsewhere."""

import csv
import json
import re
import shutil
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jobs import evaluate
from lib.dataset import synthetic
from lib.dataset.manifest import read_manifest, read_split
from lib.evaluation import recalibration
from lib.evaluation.operating_point import operating_point
from lib.evaluation.predictions import LabelledPredictions, read_predictions
from lib.network.artifact import ModelManifest
from lib.reports import pages
from tests.conftest import dirs, film, predict, run

FOLDERS = {"NORMAL": "Healthy", "PNEUMONIA": "pneumonia", "TUBERCULOSIS": "TB"}


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 generated films of other patients, in class folders of other names. Do not change it."""
    folder, drawn = tmp_path_factory.mktemp("other"), tmp_path_factory.mktemp("drawn")
    for one in synthetic.write_films(drawn, 36, seed=77, threads=2):
        if one.folder is None and not one.truncated and "export" not in one.name:
            target = folder / FOLDERS[one.label] / f"site_{one.name}"
            target.parent.mkdir(exist_ok=True)
            shutil.copy(drawn / one.relative_path, target)
    return folder


def metrics(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return content


def excluded(folder: Path) -> dict[str, dict[str, str]]:
    """Rows of excluded.csv by the name of the file, without its ending."""
    with open(folder / "excluded.csv", newline="") as file:
        return {Path(row["path"]).stem: row for row in csv.DictReader(file)}


def state(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything below a folder that a write would change."""
    return {
        path.relative_to(folder).as_posix(): (
            path.stat().st_mtime_ns,
            path.stat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(folder.rglob("*"))
    }


def home_film(chain: Path, side: str, label: str) -> Path:
    rows = (row for row in read_split(chain / "data") if (row.split, row.label) == (side, label))
    return chain / "data" / next(row.file for row in rows if "export" not in row.path)


def plant(chain: Path, folder: Path) -> None:
    """Copies of films at home, one film under two labels, and films of every other kind."""
    for name, side, label in (("same", "train", "NORMAL"), ("test", "test", "PNEUMONIA")):
        path = home_film(chain, side, label)
        shutil.copy(path, folder / FOLDERS[label] / f"{name}{path.suffix}")
    with Image.open(home_film(chain, "train", "TUBERCULOSIS")) as image:
        image.convert("L").resize((300, 300)).save(folder / "TB" / "again.jpg", quality=60)
    film(folder / "TB" / "two.png", seed=900)
    shutil.copy(folder / "TB" / "two.png", folder / "Healthy" / "labels.png")
    film(folder / "COVID" / "covid.png", seed=901)
    film(folder / "TB" / "noise.png", seed=902)
    film(folder / "TB" / "=odd\nname.png", seed=903)
    patient = next(one.patient for one in read_manifest(chain / "data") if one.patient)
    film(folder / "TB" / f"{patient.split(':')[1].lower()}_film9.png", seed=904)
    (folder / "pneumonia" / "broken.png").write_bytes(b"no film")


@pytest.fixture(scope="session")
def scored(chain: Path, hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder after the evaluation of a hospital whose films are read-only."""
    root = tmp_path_factory.mktemp("scored")
    shutil.copytree(hospital, root / "hospital")
    plant(chain, root / "hospital")
    for path in (*(root / "hospital").rglob("*"), root / "hospital"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = state(root / "hospital")
    shutil.copytree(chain / "runs" / "evaluation", root / "runs" / "evaluation")
    flags = ["--model", chain / "runs/model", "--data_dir", chain / "data"]
    flags += ["--runs_dir", root / "runs", "--films", f"folder:{root / 'hospital'}"]
    assert run(evaluate, *flags) == 3
    assert state(root / "hospital") == before
    return root


@pytest.fixture
def results(scored: Path) -> Path:
    """The folder with the results of `scored`."""
    return scored / "runs" / "external" / "hospital"


def test_the_report_is_a_folder_of_its_own_and_home_stays_as_it_was(
    chain: Path, scored: Path, results: Path
) -> None:
    assert metrics(scored / "runs" / "evaluation") == metrics(chain / "runs" / "evaluation")
    assert {path.name for path in results.iterdir()} >= {
        "report.html",
        "predictions.csv",
        "baselines.csv",
        "excluded.csv",
        "thresholds.csv",
        "overview.png",
    }
    assert not (results / "MODEL_CARD.md").exists()
    assert not (scored / "runs" / "report.html").exists()
    page = (results / "report.html").read_text()
    assert re.findall(r'<section id="(\w+)">', page) == [
        name for name in pages.SECTIONS if name != "left_out"
    ]
    assert "Away from home" in page
    assert page.count("test films") == page.count("test films of the model's own split") > 0


def test_the_scores_stand_beside_those_at_home(chain: Path, results: Path) -> None:
    found, home = metrics(results), metrics(chain / "runs" / "evaluation")
    assert found["external"]["name"] == "hospital"
    assert found["external"]["no_copies_because"] == ""
    beside = found["external"]["home"]
    assert beside["macro_f1"] == home["scores"]["macro_f1"]
    assert beside["films"] == home["films"]
    assert beside["sensitivity"] == home["operating_point"]["sensitivity"]
    assert beside["ece"] == home["calibration"]["after"]["ece"]
    assert set(found["baselines"]) == set(home["baselines"])
    assert found["verdict"]
    assert home["external"] is None


def test_copies_of_the_model_s_own_films_are_found_and_left_out(results: Path) -> None:
    rows = excluded(results)
    assert rows["same"]["reason"] == "copy of a training film of this model"
    assert rows["same"]["detail"].startswith("same bytes as train/NORMAL/")
    assert rows["test"]["reason"] == "copy of a test film of this model"
    assert rows["again"]["reason"] == "copy of a training film of this model"
    assert rows["again"]["detail"].startswith("near-duplicate of train/TUBERCULOSIS/")


def test_every_file_is_scored_or_named(scored: Path, results: Path) -> None:
    found, rows = metrics(results), excluded(results)
    assert set(rows) == {"same", "test", "again", "two", "labels", "covid"}
    table = read_predictions(results / "predictions.csv")
    files = [path for path in (scored / "hospital").rglob("*") if path.is_file()]
    assert len(table) + len(rows) == len(files)
    assert not set(table["path"]) & {row["path"] for row in rows.values()}
    assert table.loc[table["error"].ne(""), "path"].tolist() == ["pneumonia/broken.png"]
    assert (found["films"], found["unreadable"]) == (len(table) - 1, 1)
    reasons = Counter(row["reason"] for row in rows.values())
    assert found["external"]["left_out"] == reasons
    assert found["external"]["namesakes"] == 1


def test_names_that_a_table_must_escape_are_scored_and_shown(results: Path) -> None:
    table = read_predictions(results / "predictions.csv").set_index("path")
    assert table.loc[r"TB/=odd\nname.png", "prediction"]


def test_the_share_out_of_distribution_is_that_of_the_table(results: Path) -> None:
    table = read_predictions(results / "predictions.csv")
    answered = table[table["prediction"].ne("")].set_index("path")
    is_unlike = answered["reasons"].str.contains("unlike the training films")
    assert is_unlike["TB/noise.png"]
    assert metrics(results)["external"]["out_of_distribution"] == pytest.approx(is_unlike.mean())


def test_the_threshold_that_would_be_needed_reaches_the_stored_sensitivity(results: Path) -> None:
    fitted = metrics(results)["external"]["fitted"]
    assert fitted["sensitivity"]["value"] >= 0.9
    labelled = LabelledPredictions.of(read_predictions(results / "predictions.csv"))
    threshold = fitted["threshold"] * (1 + 1e-6)
    higher = operating_point(labelled, "TUBERCULOSIS", threshold, (), seed=0)
    assert higher.sensitivity.value is not None
    assert higher.sensitivity.value < 0.9


def test_a_table_of_labels_without_a_home_and_without_a_class(
    chain: Path, hospital: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["label,path,patient"]
    for folder in ("Healthy", "TB"):
        for path in sorted((hospital / folder).iterdir()):
            film_and_patient = f"{path.name},{path.stem.split('_film')[0]}"
            rows.append(f"{folder.lower()},{folder}/{film_and_patient}")
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join([*rows, "tb,gone.png,"]))
    flags = ["--model", chain / "runs/model", "--data_dir", tmp_path / "none"]
    flags += ["--runs_dir", tmp_path / "runs", "--output", tmp_path / "out"]
    assert run(evaluate, "--films", hospital, "--labels", labels, *flags) == 3
    said = capsys.readouterr()
    assert "cannot be looked for, because there is no" in said.err
    assert "1 left out: row of the table of labels without a file, such as gone.png" in said.err
    assert "external films" in said.out
    found = metrics(tmp_path / "out")
    assert found["groups"] == len({row.split(",")[2] for row in rows[1:]})
    assert found["verdict"] is None
    assert found["external"]["home"] is None
    assert found["external"]["missing_classes"] == ["PNEUMONIA"]
    per_class = found["scores"]["per_class"]
    for name in ("precision", "recall", "f1", "auroc"):
        assert per_class["PNEUMONIA"][name] == {"value": None, "interval": None}
    present = [per_class[name]["f1"]["value"] for name in ("NORMAL", "TUBERCULOSIS")]
    assert found["scores"]["macro_f1"]["value"] == pytest.approx(sum(present) / 2)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "There is no film of PNEUMONIA" in page
    assert "could not be looked for" in page


def test_another_split_than_the_model_s_is_not_taken_for_its_home(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(chain / "data" / "raw", tmp_path / "data" / "raw")
    split = (chain / "data" / "split.csv").read_text()
    (tmp_path / "data" / "split.csv").write_text(split.replace(",train,", ",val,", 1))
    home = home_film(chain, "train", "NORMAL")
    (tmp_path / "films" / "normal").mkdir(parents=True)
    for number in (1, 2):
        (tmp_path / "films" / "normal" / f"person {number}").mkdir()
        film(tmp_path / "films" / "normal" / f"person {number}" / "film.png", seed=number)
    shutil.copy(home, tmp_path / "films" / "normal" / "person 1")
    flags = ["--films", tmp_path / "films", "--model", chain / "runs/model"]
    flags += ["--runs_dir", tmp_path / "runs", "--data_dir", tmp_path / "data"]
    assert run(evaluate, *flags) == 0
    said = capsys.readouterr().err
    assert "is another split than the model's" in said
    assert "score them again with --group_by '([^/]+)/[^/]+$'" in said
    folder = tmp_path / "runs" / "external" / "films"
    assert excluded(folder) == {}
    assert "films of one class alone" in (folder / "report.html").read_text()
    assert metrics(folder)["verdict"] is None


def test_what_is_no_folder_is_refused_with_what_to_do(
    chain: Path, hospital: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def score(films: object, output: Path = tmp_path / "out", *more: object) -> int:
        return run(evaluate, "--films", films, "--output", output, *more, *dirs(chain))

    with tarfile.open(tmp_path / "films.tar.gz", "w:gz") as archive:
        archive.add(hospital, "films")
    assert score(tmp_path / "films.tar.gz") == 2
    assert "is an archive, not a folder. Unpack it" in capsys.readouterr().err
    assert score("s4://bucket/films") == 2
    assert "s4://bucket/films: Protocol not known" in capsys.readouterr().err
    assert score(tmp_path / "nothing") == 1
    assert "there is no folder" in capsys.readouterr().err
    assert score(hospital, hospital / "out") == 2
    assert "nothing is written among the films" in capsys.readouterr().err
    assert score(hospital, tmp_path / "out", "--labels", tmp_path / "none.csv") == 1
    assert "there is no such file" in capsys.readouterr().err
    assert run(evaluate, "--labels", "x.csv", *dirs(chain)) == 2
    assert "--labels belongs to --films PATH or --predictions" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert score(tmp_path / "empty") == 1
    assert "there is no file in this folder" in capsys.readouterr().err
    assert not (hospital / "out").exists()
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_the_model_is_set_up_for_the_place(
    chain: Path, hospital: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, runs = tmp_path / "sites" / "ward 3", tmp_path / "runs"
    flags = ["--model", chain / "runs/model", "--data_dir", chain / "data", "--runs_dir", runs]
    flags += ["--films", hospital, "--recalibrate", site, "--nobaselines"]
    assert run(evaluate, *flags) == 1  # too few patients
    assert not site.exists()
    monkeypatch.setattr(recalibration, "FEW_PATIENTS", 5)
    assert run(evaluate, *flags, "--prevalence", "COVID=0.1") == 1
    assert run(evaluate, *flags, "--prevalence", "TUBERCULOSIS=0.1") == 0

    before, after = ModelManifest.read(chain / "runs/model"), ModelManifest.read(site)
    assert after.weights_sha256 == before.weights_sha256
    assert after.name.startswith(f"{before.name}+ward_3@")
    results = runs / "external" / hospital.name
    found = metrics(results)["external"]["recalibration"]
    assert found["model"] == after.name
    assert found["prevalences"] == {"TUBERCULOSIS": 0.1}
    assert sum(found["films"].values()) == metrics(results)["films"]
    crossed = read_predictions(results / "recalibrated.csv")
    assert len(crossed) == sum(found["films"].values())
    assert "Set up for this place" in (results / "report.html").read_text()

    assert predict(chain, hospital, tmp_path / "there.csv", "--model", site) == 0
    there = read_predictions(tmp_path / "there.csv")
    assert set(there["model"]) == {after.name}
    assert run(evaluate, *flags[:-2], chain / "runs/model", "--nobaselines") == 1  # not a site's
