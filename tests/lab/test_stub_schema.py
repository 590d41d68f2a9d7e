"""Values made from JSON Schemas fit them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, Field

from gateway.lab.stub_schema import instance


class Leaf(BaseModel):
    kind: str = Field(pattern=None, min_length=12, max_length=14)
    weight: float = Field(ge=2, lt=9)
    count: int = Field(gt=4, le=12, multiple_of=4)


class Tree(BaseModel):
    leaves: list[Leaf] = Field(min_length=2, max_length=3)
    left: Tree | None
    right: Tree | None
    label: str | int | None


@pytest.mark.parametrize("seed", [0, 1, 7, 12345, 2**40 + 3])
def test_a_recursive_schema_gets_a_finite_value_that_fits(seed: int) -> None:
    value = instance(Tree.model_json_schema(), seed)
    Tree.model_validate(value)
    assert value == instance(Tree.model_json_schema(), seed)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"const": 3}, 3),
        ({"enum": ["a", "b"]}, "b"),
        ({"type": ["null", "boolean"]}, False),
        ({"type": "string", "format": "date"}, "2026-11-22"),
        ({"type": "array", "items": {"type": "boolean"}, "maxItems": 0}, []),
        ({"allOf": [{"type": "object", "properties": {"a": {"const": 1}}}]}, {"a": 1}),
        (
            {"type": "object", "properties": {"a": {"const": 1}, "b": {}}, "required": ["a"]},
            {"a": 1},
        ),
        ({}, "birch"),
    ],
    ids=str,
)
def test_what_each_keyword_asks_for_is_given(schema: dict[str, Any], expected: Any) -> None:
    assert instance(schema, 1) == expected


def test_another_seed_gives_another_value() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    assert instance(schema, 1) != instance(schema, 2)
