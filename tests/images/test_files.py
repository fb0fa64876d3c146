"""Listing a folder: side folders, links, loops, archives."""

import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from lib.images.files import archive_refusal, find_files, is_passed_over, unpack_command
from lib.images.inputs import place_of
from lib.run.errors import UsageError


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def _names(root: Path, follow_links: bool = False) -> list[str]:
    files = find_files(root, follow_links).files
    return [path.relative_to(root).as_posix() for path in files]


@pytest.mark.parametrize(
    "name",
    [
        "@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg",
        "#recycle/a.jpg",
        "$RECYCLE.BIN/S-1-5/$R1.jpg",
        "System Volume Information/x",
        "lost+found/a.jpg",
        ".Trash-1000/files/a.jpg",
        "__MACOSX/._a.jpg",
        "ehthumbs.db",
        "Thumbs.db",
        "~$scan.jpg",
        "@Recycle/a.jpg",
        ".@__thumb/a.jpg",
    ],
)
def test_side_folders_and_files_of_systems_are_counted_and_named(tmp_path: Path, name: str) -> None:
    _touch(tmp_path, "a.jpg", f"below/{name}")
    listing = find_files(tmp_path)
    assert [path.name for path in listing.files] == ["a.jpg"]
    assert listing.passed_over == 1
    assert listing.examples == (f"below/{name.split('/')[0]}",)
    assert is_passed_over(f"below/{name}")  # in a bucket


def test_names_that_merely_resemble_side_folders_are_inputs(tmp_path: Path) -> None:
    names = ["$100/a.jpg", "@home/a.jpg", "lost/a.jpg", "recycle/a.jpg"]
    _touch(tmp_path, *names)
    assert _names(tmp_path) == names


def test_links_are_followed_on_request_and_each_folder_is_entered_once(tmp_path: Path) -> None:
    _touch(tmp_path, "elsewhere/a.png", "elsewhere/deep/b.png", "in/real/c.png")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "twice").symlink_to(tmp_path / "elsewhere" / "deep")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in" / "real")
    (tmp_path / "in" / "up").symlink_to(tmp_path / "in")
    root = tmp_path / "in"
    assert _names(root) == ["again", "linked", "real/c.png", "twice", "up"]
    assert _names(root, follow_links=True) == ["linked/a.png", "linked/deep/b.png", "real/c.png"]


def test_followed_links_do_not_enter_folders_to_stay_apart_from(tmp_path: Path) -> None:
    _touch(tmp_path, "data/raw/a.png", "in/b.png")
    (tmp_path / "in" / "data").symlink_to(tmp_path / "data")
    files = find_files(tmp_path / "in", True, [tmp_path / "data"]).files
    assert [path.name for path in files] == ["b.png"]


def test_a_broken_link_and_a_link_to_itself_are_entries(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert _names(tmp_path, follow_links=True) == ["gone", "self"]


def test_archives_are_recognised_by_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"film")
    with zipfile.ZipFile(tmp_path / "films", "w") as archive:
        archive.write(tmp_path / "a.png")
    for name, mode in (("f.tar", "w"), ("f.tgz", "w:gz"), ("f.tar.xz", "w:xz")):
        with tarfile.open(tmp_path / name, mode) as tar:  # type: ignore[call-overload]
            tar.add(tmp_path / "a.png")
    names = sorted(path.name for path in tmp_path.iterdir())
    commands = {name: unpack_command(tmp_path / name) for name in names}
    assert commands == {
        "a.png": "",
        "f.tar": "tar -xf",
        "f.tar.xz": "tar -xJf",
        "f.tgz": "tar -xzf",
        "films": "unzip",
    }
    assert unpack_command(tmp_path / "nothing") == ""


def test_the_refusal_of_an_archive_is_a_command_that_unpacks_it(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"film")
    path = tmp_path / "my films.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(tmp_path / "a.png", "a.png")
    message = archive_refusal("--input x", path, unpack_command(path))
    command = message.partition("give the folder: ")[2]
    assert os.system(command) == 0
    assert (tmp_path / "my films" / "a.png").read_bytes() == b"film"


def test_a_batch_of_an_archive_is_refused_and_links_are_followed_on_request(tmp_path: Path) -> None:
    _touch(tmp_path, "elsewhere/a.png", "in/b.png")
    (tmp_path / "in" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "films.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(UsageError, match="unzip"):
        place_of(str(tmp_path / "films.zip"), [])
    assert list(place_of(str(tmp_path / "in"), []).names) == ["b.png", "more"]
    assert list(place_of(str(tmp_path / "in"), [], True).names) == ["b.png", "more/a.png"]
