"""make release: the version, the section of the changelog, the commit and the tag, or a refusal."""

import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
CHANGELOG = "# Changelog\n\n## [Unreleased]\n\n### Fixed\n\n- A fault.\n\n## [0.1.0] - 2026-01-01\n"
WHO = ["-c", "user.name=Someone", "-c", "user.email=someone@example.org"]


def _git(folder: Path, *words: str) -> str:
    command = ["git", *WHO, *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one commit: the script, the version and a changelog."""
    (tmp_path / "deploy").mkdir()
    (tmp_path / "lib").mkdir()
    shutil.copy(PROJECT / "deploy/release.sh", tmp_path / "deploy")
    (tmp_path / "lib/__init__.py").write_text('__version__ = "0.1.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "config", "user.name", "Someone")
    _git(tmp_path, "config", "user.email", "someone@example.org")
    _git(tmp_path, "add", "-A")
    _git(tmp_path, "commit", "-qm", "All")
    return tmp_path


def _release(checkout: Path, version: str) -> "subprocess.CompletedProcess[str]":
    command = [str(checkout / "deploy/release.sh"), version]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_release_is_a_version_a_section_a_commit_and_a_tag(checkout: Path) -> None:
    done = _release(checkout, "0.2.0")
    assert done.returncode == 0, done.stderr
    assert (checkout / "lib/__init__.py").read_text() == '__version__ = "0.2.0"\n'
    lines = (checkout / "CHANGELOG.md").read_text().splitlines()
    assert lines[2] == "## [Unreleased]"
    assert lines[4].startswith("## [0.2.0] - 20")
    assert lines[8] == "- A fault."
    assert _git(checkout, "status", "--porcelain") == ""
    assert _git(checkout, "tag", "--points-at", "HEAD").split() == ["v0.2.0"]


@pytest.mark.parametrize("version", ["", "1.2", "v1.2.3", "1.2.3-rc1", "01.2.3"])
def test_what_is_no_version_is_refused(checkout: Path, version: str) -> None:
    done = _release(checkout, version)
    assert done.returncode == 2
    assert "MAJOR.MINOR.PATCH" in done.stderr
    assert _git(checkout, "tag") == ""


def test_uncommitted_changes_a_taken_tag_and_no_news_are_refused(checkout: Path) -> None:
    (checkout / "new").touch()
    assert "uncommitted" in _release(checkout, "0.2.0").stderr
    (checkout / "new").unlink()
    assert _release(checkout, "0.2.0").returncode == 0
    assert "no line under" in _release(checkout, "0.3.0").stderr
    assert "v0.2.0 exists" in _release(checkout, "0.2.0").stderr
