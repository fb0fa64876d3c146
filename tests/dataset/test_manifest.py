"""The indexes that pass between the jobs."""

from pathlib import Path

import pytest

from lib.dataset.manifest import SplitRecord, read_split, write_rows
from lib.run.errors import JobError

ROW = SplitRecord("NORMAL/a,b.png", "NORMAL", "train", "NORMAL/a,b.png", "", "0" * 64)


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_rows(tmp_path / "split.csv", [ROW, ROW], SplitRecord)
    assert read_split(tmp_path) == [ROW, ROW]


@pytest.mark.parametrize("text", ["", "path,label\nNORMAL/a.png,NORMAL\n", "half a row"])
def test_a_damaged_index_says_which_job_to_run(tmp_path: Path, text: str) -> None:
    path = tmp_path / "split.csv"
    write_rows(path, [ROW], SplitRecord)
    path.write_text(path.read_text() + "NORMAL/b.png,NORM" if text == "half a row" else text)
    with pytest.raises(JobError, match=r"is damaged.*Run the split job"):
        read_split(tmp_path)
