"""Sources: class folders, file-name patterns, and Kaggle with and without a network."""

import os
from pathlib import Path

import pytest

from lib.dataset import sources
from lib.dataset.collections import source_and_patient
from lib.dataset.sources import FOLDER, Dataset, Source, locate, scan
from lib.run.errors import JobError, UsageError


def _source(root: Path, *files: str, dataset: Dataset = FOLDER) -> Source:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return Source(dataset, root, "folder:test", may_link=False)


def _labels(source: Source, *classes: str) -> dict[str, str]:
    return {film.origin: film.label for film in scan(source, classes).films}


@pytest.mark.parametrize(
    ("files", "labels"),
    [
        (("normal/a.png", "tb/b.png"), ["NORMAL", "TUBERCULOSIS"]),
        (("train/NORMAL/a.png", "val/Pneumonia/b.png"), ["NORMAL", "PNEUMONIA"]),
        (
            ("set/chest_xray/train/normal/a.png", "set/chest_xray/test/tb/b.png"),
            ["NORMAL", "TUBERCULOSIS"],
        ),
        (("No Finding/a.png", "TBC/b.png"), ["NORMAL", "TUBERCULOSIS"]),
        (("normal/patient1/a.png", "covid-19/patient2/b.png"), ["NORMAL", "COVID-19"]),
        (("set/cat/a.png", "set/dog/images/b.png"), ["CAT", "DOG"]),
    ],
)
def test_class_folders_are_found_at_any_depth_and_in_any_case(
    tmp_path: Path, files: tuple[str, ...], labels: list[str]
) -> None:
    assert _labels(_source(tmp_path, *files)) == dict(zip(files, labels, strict=True))


def test_splits_of_the_source_are_merged(tmp_path: Path) -> None:
    found = _labels(_source(tmp_path, "train/normal/a.png", "val/normal/a.png", "test/tb/a.png"))
    assert found == {
        "train/normal/a.png": "NORMAL",
        "val/normal/a.png": "NORMAL",
        "test/tb/a.png": "TUBERCULOSIS",
    }


def test_files_outside_class_folders_are_reported(tmp_path: Path) -> None:
    found = scan(_source(tmp_path, "README.md", "normal/a.png", "tb/b.png"))
    assert found.outside == ["README.md"]


def test_named_classes_are_taken_and_all_others_left(tmp_path: Path) -> None:
    source = _source(tmp_path, "A/1.png", "B/2.png", "C/3.png")
    assert _labels(source, "A", "B") == {"A/1.png": "A", "B/2.png": "B"}


def test_classes_may_be_named_by_an_alias_in_any_case(tmp_path: Path) -> None:
    source = _source(tmp_path, "normal/1.png", "tb/2.png", "covid/3.png")
    assert _labels(source, "Normal", "tb") == {"normal/1.png": "NORMAL", "tb/2.png": "TUBERCULOSIS"}
    assert _labels(source, "Normal", "covid") == {"normal/1.png": "NORMAL", "covid/3.png": "COVID"}


@pytest.mark.parametrize("files", [("normal/a.png",), ("a.png",), ()])
def test_fewer_than_two_classes_are_refused(tmp_path: Path, files: tuple[str, ...]) -> None:
    with pytest.raises(JobError, match="Nothing was changed"):
        scan(_source(tmp_path, *files))


def test_a_missing_class_of_a_named_dataset_is_refused_by_name(tmp_path: Path) -> None:
    source = _source(
        tmp_path, "normal/a.png", "pneumonia/b.png", dataset=sources.KAGGLE_THREE_CLASSES
    )
    with pytest.raises(JobError, match="TUBERCULOSIS"):
        scan(source)


def test_a_class_folder_without_a_film_is_refused_by_name(tmp_path: Path) -> None:
    source = _source(tmp_path, "normal/a.png", "pneumonia/b.png")
    (tmp_path / "tuberculosis").mkdir()
    with pytest.raises(JobError, match="TUBERCULOSIS"):
        scan(source)


@pytest.mark.parametrize(
    ("name", "source", "patient"),
    [
        ("person12_bacteria_34.jpeg", "kermany", "kermany:PERSON12"),
        ("IM-0117-0001.jpeg", "kermany", "kermany:IM-0117"),
        ("NORMAL2-IM-0117-0001-0002.jpeg", "kermany", "kermany:NORMAL2-IM-0117"),
        ("00000773_001.png", "nih", "nih:00000773"),
        ("CHNCXR_0001_0.png", "shenzhen", "shenzhen:CHNCXR_0001"),
        ("MCUCXR_0001_1.png", "montgomery", "montgomery:MCUCXR_0001"),
        ("Tuberculosis-12.png", "rahman_tb", ""),
        ("Normal-12.png", "rsna_normal", ""),
        ("holiday.jpg", "", ""),
    ],
)
def test_known_collections_give_source_and_patient(name: str, source: str, patient: str) -> None:
    assert source_and_patient(name) == (source, patient)


@pytest.mark.parametrize(
    "dataset", ["kagle", "folder:", "kaggle:just-a-name", "kaggle:a/b/../../c", "phantom:3"]
)
def test_an_unknown_form_of_dataset_is_wrong_usage(tmp_path: Path, dataset: str) -> None:
    with pytest.raises(UsageError, match="--dataset"):
        locate(dataset, tmp_path, 30, 0, 1)


HANDLE = "muhammadrehan00/chest-xray-dataset"


def _cache_version(cache: Path, number: int, complete: bool = True) -> Path:
    """Lay out a version as kagglehub does."""
    home = cache / "kagglehub" / "datasets" / HANDLE
    for name in ("train/normal/a.png", "val/pneumonia/b.png", "test/tuberculosis/c.png"):
        (home / "versions" / str(number) / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "versions" / str(number) / name).write_text(name)
    if complete:
        (home / f"{number}.complete").touch()
    return home / "versions" / str(number)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection goes to a port where nobody listens."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)


def test_without_network_the_newest_complete_cached_version_is_used(
    tmp_path: Path, no_network: None, capsys: pytest.CaptureFixture[str]
) -> None:
    _cache_version(tmp_path, 9)
    newest = _cache_version(tmp_path, 10)
    _cache_version(tmp_path, 11, complete=False)
    source = locate("kaggle", tmp_path, 30, 0, 1)
    assert source.root == newest
    assert "cached copy" in capsys.readouterr().err
    assert {film.label for film in scan(source).films} == {"NORMAL", "PNEUMONIA", "TUBERCULOSIS"}


def test_a_named_cached_version_needs_no_network(
    tmp_path: Path, no_network: None, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = _cache_version(tmp_path, 9)
    _cache_version(tmp_path, 10)
    assert locate(f"kaggle:{HANDLE}/versions/9", tmp_path, 30, 0, 1).root == wanted
    assert capsys.readouterr().err == ""


def test_kagglehub_itself_finds_a_cache_laid_out_like_this(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import kagglehub

    wanted = _cache_version(tmp_path, 9)
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kagglehub"))
    assert Path(kagglehub.dataset_download(f"{HANDLE}/versions/9")) == wanted


def test_without_network_and_cache_the_refusal_names_the_ways_around(
    tmp_path: Path, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_USERNAME", "somebody")
    monkeypatch.setenv("KAGGLE_KEY", "s3cr3t-k3y")
    monkeypatch.delenv("KAGGLEHUB_CACHE", raising=False)
    with pytest.raises(JobError) as refusal:
        locate("kaggle", tmp_path, 30, 0, 1)
    for way in ("make demo", "DATASET=folder:", "kaggle.com/datasets/" + HANDLE):
        assert way in str(refusal.value)
    assert "s3cr3t" not in str(refusal.value)
    os.environ.pop("KAGGLEHUB_CACHE", None)


@pytest.mark.parametrize(
    "mask",
    [
        "normal/masks/a.png",
        "normal/mask/a.png",
        "normal/lung masks/a.png",
        "normal/infection masks/a.png",
        "normal/infection_masks/a.png",
        "ManualMask/leftMask/normal/a.png",
        "normal/a_mask.png",
        "normal/a-mask.png",
        "masks/normal/a.png",
    ],
)
def test_masks_are_no_films_and_are_named(tmp_path: Path, mask: str) -> None:
    found = scan(_source(tmp_path, "normal/images/a.png", "tb/images/b.png", mask))
    assert found.masks == [mask]
    assert [film.origin for film in found.films] == ["normal/images/a.png", "tb/images/b.png"]


def test_names_that_merely_hold_the_word_mask_are_films(tmp_path: Path) -> None:
    names = ("normal/damask.png", "normal/unmasked.png", "tb/masked-faces/a.png")
    assert scan(_source(tmp_path, *names)).masks == []


SUBTYPES = ("Viral Pneumonia/a.png", "Bacterial Pneumonia/b.png", "Normal/c.png")


def test_folders_that_are_merged_are_named(tmp_path: Path) -> None:
    found = scan(_source(tmp_path, *SUBTYPES))
    assert found.classes == ["NORMAL", "PNEUMONIA"]
    assert found.merged == {"PNEUMONIA": ["Bacterial Pneumonia", "Viral Pneumonia"]}


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (
            ("Viral Pneumonia", "Bacterial Pneumonia", "Normal"),
            {"VIRAL_PNEUMONIA", "BACTERIAL_PNEUMONIA", "NORMAL"},
        ),
        (("viral_pneumonia", "normal"), {"VIRAL_PNEUMONIA", "NORMAL"}),
        (("pneumonia", "normal"), {"PNEUMONIA", "NORMAL"}),  # no such folder: its aliases
    ],
)
def test_classes_mean_the_folders_as_they_are_named(
    tmp_path: Path, classes: tuple[str, ...], expected: set[str]
) -> None:
    found = scan(_source(tmp_path, *SUBTYPES), classes)
    assert set(found.classes) == expected
    assert bool(found.merged) == ("PNEUMONIA" in expected)


def test_two_synonyms_that_are_named_stay_two_classes(tmp_path: Path) -> None:
    source = _source(tmp_path, "healthy/a.png", "normal/b.png")
    assert set(_labels(source, "healthy", "normal").values()) == {"HEALTHY", "NORMAL"}


def test_class_folders_that_are_links_are_followed_on_request(tmp_path: Path) -> None:
    _source(tmp_path / "real", "a/1.png", "b/2.png")
    source = _source(tmp_path / "set", "README.md")
    (tmp_path / "set/normal").symlink_to(tmp_path / "real/a")
    (tmp_path / "set/tb").symlink_to(tmp_path / "real/b")
    with pytest.raises(JobError, match="--follow_links"):
        scan(source)
    found = scan(source, follow_links=True)
    assert {film.origin: film.label for film in found.films} == {
        "normal/1.png": "NORMAL",
        "tb/2.png": "TUBERCULOSIS",
    }


def test_an_archive_is_refused_with_the_command_that_unpacks_it(tmp_path: Path) -> None:
    (tmp_path / "films.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(UsageError, match=r"unzip .*films\.zip -d"):
        locate(f"folder:{tmp_path / 'films.zip'}", tmp_path, 30, 0, 1)
