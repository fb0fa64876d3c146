"""metrics.json, its schema, and the types that both are made from."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from lib.evaluation.results import VERSION
from lib.evaluation.schema import metrics_schema

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "metrics.schema.json"


@pytest.fixture
def metrics(chain: Path) -> Any:
    return json.loads((chain / "runs" / "evaluation" / "metrics.json").read_text())


def test_the_schema_in_docs_is_that_of_the_types() -> None:
    command = "python -m lib.evaluation.schema > docs/metrics.schema.json"
    assert json.loads(SCHEMA.read_text()) == metrics_schema(), command


def test_the_schema_is_a_valid_one_and_describes_every_type() -> None:
    schema = metrics_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert all(entry["description"] for entry in schema["$defs"].values())


def test_metrics_json_satisfies_the_schema_in_docs(metrics: Any) -> None:
    jsonschema.validate(metrics, json.loads(SCHEMA.read_text()))
    assert metrics["version"] == VERSION


def _without_version(metrics: Any) -> None:
    del metrics["version"]


def _of_another_version(metrics: Any) -> None:
    metrics["version"] = VERSION + 1


def _with_text_for_a_number(metrics: Any) -> None:
    metrics["scores"]["accuracy"]["value"] = "0.9"


def _with_half_an_interval(metrics: Any) -> None:
    metrics["scores"]["macro_f1"]["interval"] = [0.5]


def _with_a_field_that_is_not_known(metrics: Any) -> None:
    metrics["verdict"]["colour"] = "green"


@pytest.mark.parametrize(
    "change",
    [
        _without_version,
        _of_another_version,
        _with_text_for_a_number,
        _with_half_an_interval,
        _with_a_field_that_is_not_known,
    ],
)
def test_a_file_that_differs_from_the_types_is_refused(metrics: Any, change: Any) -> None:
    changed = copy.deepcopy(metrics)
    change(changed)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed, metrics_schema())
