"""The short form of make chaos and make fuzz, for every run of the tests."""

from pathlib import Path

import pytest

from tests.chaos import chaos, fuzz


def test_one_round_of_faults_leaves_what_an_undisturbed_chain_leaves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        chaos.run(rounds=1, seed=4, folder=str(tmp_path), faults=1, copies=3)
    said = capsys.readouterr()
    assert end.value.code == 0, said.err
    assert "rows expected 279, found 279, lost 0" in said.out


def test_damaged_files_are_films_or_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        fuzz.run(inputs=3000, seed=7)
    assert end.value.code == 0, capsys.readouterr().err
