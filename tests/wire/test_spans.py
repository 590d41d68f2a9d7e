from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.spans import locate, replaced

if TYPE_CHECKING:
    from gateway.wire.spans import Span

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def every(span: Span) -> list[Span]:
    inner = [*span.members.values(), *span.items]
    return [span, *(deeper for each in inner for deeper in every(each))]


def value_of(span: Span, text: str) -> Any:
    if span.members:
        return {name: value_of(member, text) for name, member in span.members.items()}
    if span.items:
        return [value_of(item, text) for item in span.items]
    return json.loads(span.of(text)) if span.numbers else span.value


@given(values, st.integers(0, 4), st.sampled_from([None, 1]), st.booleans())
def test_every_part_stands_where_it_is_said_to(
    value: Any, depth: int, indent: int | None, ascii_only: bool
) -> None:
    if not _fits(value):
        return
    text = " " + json.dumps(value, indent=indent, ensure_ascii=ascii_only) + "\n"
    top = locate(text, depth)

    assert value == value_of(top, text)
    for span in every(top):
        assert json.loads(span.of(text)) == value_of(span, text)


def _fits(value: Any) -> bool:
    """orjson, which knows what JSON is here, reads integers of 64 bits only as such."""
    if isinstance(value, dict | list):
        return all(map(_fits, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, int) or -(2**63) <= value < 2**64


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "{", "[", "[1", "[1,]", "[1 2]", '{"a"}', '{"a":}', '{"a":1,}', "{a:1}", "1 2"),
        *("[]]", "NaN", "[NaN]", '{"a":1 "b":2}', "[1..2]", "[1-2]", "[01]", '"\\ud800"'),
        *('{"a":1,"a":1}', '[{"a":1,"a":1}]', "\ufeff{}", "[" * 5000 + "]" * 5000),
    ],
)
def test_what_is_no_json_or_ambiguous_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        locate(text, 2)


def test_a_list_of_numbers_is_not_read() -> None:
    [numbers, empty, mixed, text] = locate('[[1, -2.5e-3 ],[ ],[1,"a"],"[1]"]', 1).items

    assert (True, None) == (numbers.numbers, numbers.value)
    assert (False, []) == (empty.numbers, empty.value)
    assert (False, [1, "a"]) == (mixed.numbers, mixed.value)
    assert (False, "[1]") == (text.numbers, text.value)


def test_parts_are_replaced_and_all_else_stays() -> None:
    text = '{ "a" : 1.0 ,"b":[ 2,3 ] }'
    top = locate(text, 2)
    a, b = top.members["a"], top.members["b"]

    assert '{ "a" : x ,"b":[] }' == replaced(text, [(b, "[]"), (a, "x")])
    assert "[ 2,y ]" == replaced(text, [(b.items[1], "y")], b.start, b.end)
    assert text == replaced(text, [])
