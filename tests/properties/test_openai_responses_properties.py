"""Requests for responses that differ in one place differ; stated equivalences make no difference."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.providers.openai_responses import RESPONSES
from gateway.wire.base import NotUnderstood
from tests.helpers.openai_responses import (
    CALL,
    FUNCTION,
    MARK,
    OUTPUT,
    UNKNOWN_RESPONSES,
    canonical_of,
    said,
    understood,
)

if TYPE_CHECKING:
    import random

    from gateway.providers.base import ApiRules

RULES = {"openai": RESPONSES, "unknown": UNKNOWN_RESPONSES}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
leaves = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1e300]) | texts
names = st.sampled_from(["a", "b", "type", "text", "content", "role", "é"])
rendered = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
parts = st.builds(lambda t: {"type": "input_text", "text": t}, texts) | st.builds(
    lambda u: {"type": "input_image", "image_url": u, "detail": "low"}, texts
)
items = st.one_of(
    st.builds(
        lambda r, c: {"role": r, "content": c},
        st.sampled_from(["user", "system", "developer", "assistant"]),
        texts | st.lists(parts, max_size=3),
    ),
    st.builds(lambda a: {**CALL, "call_id": "call_Aa1111", "arguments": a}, texts),
    st.builds(
        lambda o: {**OUTPUT, "call_id": "call_Aa1111", "output": o},
        texts | st.lists(parts, max_size=2),
    ),
    st.builds(lambda x: {"type": "new_item", "x": x}, rendered),
)
requests = st.fixed_dictionaries(
    {"model": st.sampled_from(["gpt-4o", "o3"]), "input": texts | st.lists(items, max_size=4)},
    optional={
        "store": st.booleans(),
        "temperature": st.integers(0, 2),
        "instructions": texts,
        "previous_response_id": texts,
        "metadata": st.dictionaries(texts, texts, max_size=2),
        "text": rendered,
        "some_new_field": rendered,
        "tools": st.lists(
            st.builds(lambda p: {**FUNCTION, "parameters": p}, rendered), min_size=1, max_size=2
        ),
    },
)
Path = tuple[str | int, ...]


def places(value: Any, path: Path = ()) -> list[Path]:
    if isinstance(value, dict) and value:
        return [p for name, inner in value.items() for p in places(inner, (*path, name))]
    if isinstance(value, list) and value:
        return [p for index, inner in enumerate(value) for p in places(inner, (*path, index))]
    return [path]


def same_json(a: Any, b: Any) -> bool:
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def key_or_none(body: dict[str, Any], rules: ApiRules) -> bytes | None:
    try:
        return understood(body, rules).canonical
    except NotUnderstood:
        return None


@given(requests, st.sampled_from(sorted(RULES)), st.data())
def test_a_change_in_one_place_changes_the_key(
    body: dict[str, Any], provider: str, data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from(places(body)))
    assume(path[-1] != "call_id")
    changed = copy.deepcopy(body)
    owner: Any = changed
    for step in path[:-1]:
        owner = owner[step]
    new = data.draw(leaves)
    assume(not same_json(owner[path[-1]], new))
    # Numbers of one value are one in a parameter; they are told apart in the prompt.
    assume(not (path == ("temperature",) and owner[path[-1]] == new))
    owner[path[-1]] = new

    assert key_or_none(body, RULES[provider]) != key_or_none(changed, RULES[provider])


def shuffled(value: Any, order: random.Random, path: Path = ()) -> Any:
    """The request with its members in another order, but where order is kept."""
    if path and path[0] in {"text", "some_new_field", "metadata"}:
        return value
    if path and path[-1] == "parameters":
        return value
    if isinstance(value, dict):
        if value.get("type") == "new_item":
            return value
        members = list(value.items())
        order.shuffle(members)
        return {name: shuffled(inner, order, (*path, name)) for name, inner in members}
    if isinstance(value, list):
        return [shuffled(inner, order, (*path, i)) for i, inner in enumerate(value)]
    return value


@given(requests, st.randoms(use_true_random=False), st.booleans())
def test_what_is_stated_to_be_equal_shares_its_key(
    body: dict[str, Any], order: random.Random, stream: bool
) -> None:
    other = shuffled(body, order)
    other["stream"] = stream
    if other.get("store") is True:
        del other["store"]
    if isinstance(other["input"], str):
        other["input"] = [{"role": "user", "content": [said(other["input"], **MARK)]}]

    assert canonical_of(body) == canonical_of(other)
