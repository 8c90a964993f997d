"""`unidiff schema`: every recipe that comes with unidiff is valid under it, and slips are not."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from tiny import RING, refused, unidiff

from unidiff.recipe.shipped import shipped_recipes
from unidiff.recipe.yaml_tree import read_yaml

_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def valid(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether a value is valid under a schema, by the keywords of draft 7 that schemas of recipes use."""
    if "$ref" in schema:
        return valid(value, root["definitions"][schema["$ref"].removeprefix("#/definitions/")], root)
    known = {"type", "anyOf", "allOf", "enum", "const", "pattern", "properties", "required", "additionalProperties"}
    assert schema.keys() <= known | {
        "items",
        "minItems",
        "maxItems",
        "description",
        "default",
        "title",
        "definitions",
        "$schema",
    }
    kinds = schema.get("type")
    checks = [
        kinds is None or (isinstance(value, _TYPES[kinds]) and (kinds == "boolean" or not isinstance(value, bool))),
        "enum" not in schema or value in schema["enum"],
        "const" not in schema or value == schema["const"],
        "anyOf" not in schema or any(valid(value, arm, root) for arm in schema["anyOf"]),
        all(valid(value, arm, root) for arm in schema.get("allOf", ())),
        "pattern" not in schema or not isinstance(value, str) or re.search(schema["pattern"], value) is not None,
    ]
    if isinstance(value, dict):
        own = schema.get("properties", {})
        checks.append(schema.get("additionalProperties", True) is not False or value.keys() <= own.keys())
        checks.append(set(schema.get("required", ())) <= value.keys())
        checks += [valid(part, own[name], root) for name, part in value.items() if name in own]
        if isinstance(rest := schema.get("additionalProperties"), dict):
            checks += [valid(part, rest, root) for name, part in value.items() if name not in own]
    if isinstance(value, list):
        items = schema.get("items", {})
        checks.append(schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)))
        pairs = zip(value, items) if isinstance(items, list) else ((part, items) for part in value)
        checks += [valid(part, item, root) for part, item in pairs]
    return all(checks)


@pytest.fixture(scope="module")
def schema():
    return json.loads(unidiff("schema").out)


def test_shipped_recipes_are_valid(schema):
    for name, path in shipped_recipes().items():
        assert valid(read_yaml(path.read_text(), name).plain(), schema, schema), name
    assert valid(
        json.loads(unidiff("check", "ddpm_digits", "--json").out)["recipe"], schema, schema
    )  # with all defaults


def test_what_the_reader_accepts_is_valid(schema):
    for change in [
        {"process": "ddpm"},
        {"process": {"type": "sub_vpsde"}},
        {"process": {"type": "mine:Process", "any": 3}},
        {"conditioning": None},
        {"sampling": {"grid": {"type": "Karras", "steps": 4, "rho": 3}, "count": 4}},
    ]:
        assert valid({**RING, **change}, schema, schema), change


def test_what_diffusers_saved_determines_the_rest(schema):
    short = {name: RING[name] for name in ("data", "training")}
    assert valid({**short, "start": "ddpm-cat/"}, schema, schema)
    for change in ({"lora": 8}, {"lora": 4, "lora_layers": ["to_q"]}, {"type": "Pretrained", "folder": "ddpm-cat/"}):
        assert valid({**short, "start": "ddpm-cat/", "backbone": change}, schema, schema), change
    assert not valid({**short, "start": "ddpm-cat/", "backbone": {"lroa": 8}}, schema, schema)
    assert not valid({**RING, "backbone": {"lora": 8}}, schema, schema)
    assert not valid(short, schema, schema)
    assert not valid({"start": "ddpm-cat/", "data": short["data"]}, schema, schema)


@pytest.mark.parametrize(
    "slip",
    [
        {"smapling": {}},
        {"process": "DDMP"},
        {"process": {"type": "DDPM", "t": 50}},
        {"process": {"type": "DDPM", "T": "50"}},
        {"parameterization": None},
        {"training": {"batch": 8}},
        {"training": {"steps": True}},
        {"sampling": {"solver": "Karras"}},
        {"backbone": {"width": 3}},
    ],
)
def test_slips_are_not(schema, slip):
    assert not valid({**copy.deepcopy(RING), **slip}, schema, schema)


def test_descriptions_and_defaults_are_those_of_the_classes(schema):
    training = schema["definitions"]["Training"]["properties"]
    assert training["lr"]["default"] == 2e-4
    assert training["steps"]["description"] == "Optimiser steps, at least 1."
    assert "default" not in training["steps"]


def test_a_file(tmp_path, schema):
    path = tmp_path / "recipe.schema.json"
    assert f"$schema={path}" in unidiff("schema", "--out", path).out
    assert json.loads(path.read_text()) == schema
    assert unidiff("schema", "--out", path).code == 0  # it replaces its own
    (tmp_path / "mine.json").write_text("{}")
    assert "mine.json" in refused("schema", "--out", tmp_path / "mine.json")
