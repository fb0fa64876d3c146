"""The JSON Schema of metrics.json, generated from the result types.

python -m lib.evaluation.schema > docs/metrics.schema.json
"""

import dataclasses
import json
import sys
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from lib.evaluation.results import VERSION, Evaluation

_SCALARS: dict[Any, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    NoneType: "null",
}


def metrics_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of metrics.json."""
    definitions: dict[str, Any] = {}
    reference = _schema_of(Evaluation, definitions)
    definitions["Evaluation"]["properties"]["version"]["const"] = VERSION
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "metrics.json",
        **reference,
        "$defs": definitions,
    }


def _schema_of(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Schema of a type. Dataclasses go into `definitions` and are referred to."""
    if dataclasses.is_dataclass(kind):
        return _reference_to(kind, definitions)
    if kind in _SCALARS:
        return {"type": _SCALARS[kind]}
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return {**_schema_of(arguments[0], definitions), "description": arguments[1]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is UnionType:
        return {"anyOf": [_schema_of(member, definitions) for member in arguments]}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema_of(arguments[1], definitions)}
    if origin is tuple and arguments[-1] is Ellipsis:
        return {"type": "array", "items": _schema_of(arguments[0], definitions)}
    if origin is tuple:
        members = [_schema_of(member, definitions) for member in arguments]
        return {"type": "array", "prefixItems": members, "items": False, "minItems": len(members)}
    raise TypeError(f"{kind} has no JSON Schema here: add it to lib/evaluation/schema.py.")


def _reference_to(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    name = kind.__name__
    if name not in definitions:
        definitions[name] = {}  # keeps the order in which types are met
        hints = get_type_hints(kind, include_extras=True)
        definitions[name] = {
            "type": "object",
            "description": " ".join((kind.__doc__ or "").split()),
            "properties": {key: _schema_of(hint, definitions) for key, hint in hints.items()},
            "required": [
                field.name
                for field in dataclasses.fields(kind)
                if field.default is dataclasses.MISSING
            ],
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{name}"}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(metrics_schema(), indent=2, ensure_ascii=False) + "\n")
