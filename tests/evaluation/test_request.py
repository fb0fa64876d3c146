"""The flags of evaluate: combinations that are refused, and before a bucket is asked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lib.evaluation.reading import Reading
from lib.evaluation.request import Request
from lib.run.errors import UsageError

USUAL = Request(
    films=None,
    predictions=None,
    labels=None,
    reading=Reading(),
    model=None,
    checkpoint=None,
    backbone=None,
    output=None,
    positive=None,
    operating_point="",
    prevalences=(),
    compare=None,
    recalibrate=None,
    prevalence={},
    baselines=True,
    leave_source_out=False,
    repeats=0,
    cache_gb=0,
    precision="auto",
    data_dir=Path("data"),
    runs_dir=Path("runs"),
    seed=0,
    cores=1,
    readers=1,
)
TABLE = replace(USUAL, predictions=Path("today.csv"), labels=Path("labels.csv"))
BUCKET = replace(USUAL, films="s3://films/in")


@pytest.mark.parametrize(
    ("flag", "more"),
    [
        ("films", {"films": "x"}),
        ("checkpoint_path", {"checkpoint": Path("x.pt")}),
        ("operating_point", {"operating_point": "abnormal"}),
        ("backbone", {"backbone": "resnet18"}),
        ("repeats", {"repeats": 5}),
        ("leave_source_out", {"leave_source_out": True}),
    ],
)
def test_a_flag_that_a_table_cannot_follow_is_refused(flag: str, more: dict[str, Any]) -> None:
    replace(TABLE, precision="int8").check()  # the environment may say so for all jobs
    with pytest.raises(UsageError, match=f"--{flag} does not go with --predictions"):
        replace(TABLE, **more).check()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"repeats": 5}, "--repeats repeats the training"),
        ({"leave_source_out": True}, "--leave_source_out repeats the training"),
        ({"model": Path("m"), "checkpoint": Path("c")}, "name two models"),
        ({"prevalence": {"TB": 0.1}}, "belongs to --recalibrate"),
        ({"compare": Path("runs/external/in")}, "is the folder that this evaluation is written to"),
    ],
)
def test_a_bucket_is_not_fetched_for_flags_that_are_refused(
    more: dict[str, Any], said: str
) -> None:
    request = replace(BUCKET, **more)
    with pytest.raises(UsageError, match=said):
        request.check()
    assert "elsewhere" not in vars(request)


def test_the_results_have_the_name_of_the_folder_of_films(tmp_path: Path) -> None:
    assert BUCKET.folder == Path("runs/external/in")
    assert replace(BUCKET, films="s3://films/..").folder == Path("runs/external/films")
    (tmp_path / "ward 3").mkdir()
    for films in (f"{tmp_path}/ward 3", f"folder:{tmp_path}/./ward 3/"):
        assert replace(USUAL, films=films).folder == Path("runs/external/ward 3")
