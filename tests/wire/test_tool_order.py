"""Tools by name and schemas in the usual order, on the text: parts change places, markers don't."""

from __future__ import annotations

import pytest

from gateway.core.rewrites import Rewrite
from tests.helpers.rewriting import case, rewrite

MARK = ', "cache_control": {"type":"ephemeral","ttl":"1h"}'


def tool(name: str, more: str = "") -> str:
    return f'{{ "name":"{name}", "input_schema":{{}}{more} }}'


def sorted_tools(*tools: str) -> list[str]:
    """The names in the new order, marked ones with a star."""
    body = f'{{"tools" : [ {" , ".join(tools)} ]}}'
    told = rewrite(body.encode(), case(wanted={Rewrite.SORT_TOOLS})).body.decode()
    assert len(told.split('"cache_control"')) == len(body.split('"cache_control"'))
    assert told.startswith('{"tools" : [ {')
    names = []
    for part in told.split("{ ")[1:]:
        name = part.split('"')[3] if part.startswith('"name"') else "-"
        names.append(f"{name}*" if "ephemeral" in part else name)
    return names


@pytest.mark.parametrize(
    ("tools", "order"),
    [
        ([tool("b"), tool("a")], ["a", "b"]),
        # A marker stays at the end of what it stands behind.
        ([tool("b"), tool("a", MARK)], ["a", "b*"]),
        ([tool("c"), tool("b", MARK), tool("a")], ["b", "c*", "a"]),
        ([tool("d", MARK), tool("c"), tool("b"), tool("a", MARK)], ["d*", "a", "b", "c*"]),
        # Without a name: behind those that have one.
        (['{ "type":"web_search"}', tool("b"), tool("a")], ["a", "b", "-"]),
        # Deferred ones stand behind all others, and never get the marker.
        (
            [tool("a", ', "defer_loading":true'), tool("c"), tool("b", MARK)],
            ["b", "c*", "a"],
        ),
        ([tool("c"), tool("b", ', "cache_control":null'), tool("a", MARK)], ["a", "b", "c*"]),
    ],
)
def test_tools_are_sorted_between_the_clients_markers(tools: list[str], order: list[str]) -> None:
    assert sorted_tools(*tools) == order


@pytest.mark.parametrize(
    "tools",
    [
        [tool("b", ', "defer_loading":true' + MARK), tool("a")],
        [tool("a"), tool("b")],
        ['{"type":"function","function":{"name":"b","cache_control":{}}}', tool("a")],
        ['"odd"', tool("a")],
    ],
)
def test_tools_in_order_or_with_markers_that_mean_nothing_known_stay(tools: list[str]) -> None:
    body = f'{{"tools":[{",".join(tools)}]}}'.encode()
    assert rewrite(body, case(wanted={Rewrite.SORT_TOOLS})).body is body


def test_the_marker_keeps_its_spelling() -> None:
    body = f'{{"tools":[{tool("b")},{tool("a", MARK)}]}}'
    moved = MARK.replace(', "cache_control": ', ',"cache_control":')
    told = rewrite(body.encode(), case(wanted={Rewrite.SORT_TOOLS})).body.decode()
    assert told == f'{{"tools":[{tool("a")},{tool("b")[:-2]}{moved} }}]}}'


SCHEMA = (
    '{"required":["z","a"],\n "properties":{"z":{"enum":[{"b":1,"a":2}],"type":"string"},'
    ' "a":{"x-ours":{"b":1,"a":2},"items":{"description":"d","type":"number"}}},"type":"object"}'
)
SORTED = (
    '{"type":"object",\n "properties":{"z":{"type":"string","enum":[{"b":1,"a":2}]},'
    ' "a":{"items":{"type":"number","description":"d"},"x-ours":{"b":1,"a":2}}},"required":["z","a"]}'
)


@pytest.mark.parametrize(
    ("api", "body"),
    [
        ("anthropic_messages", '{"tools":[{"name":"a","input_schema": %s}]}'),
        ("anthropic_messages", '{"output_config":{"format":{"type":"json_schema","schema":%s}}}'),
        ("openai_chat", '{"tools":[{"type":"function","function":{"parameters":%s,"name":"a"}}]}'),
        ("openai_chat", '{"response_format":{"json_schema":{"strict":true,"schema":%s}}}'),
        ("openai_responses", '{"tools":[{"type":"function","name":"a","parameters":%s}]}'),
        ("openai_responses", '{"text":{"format":{"schema":%s,"type":"json_schema"}}}'),
    ],
)
def test_keywords_of_schemas_are_sorted_and_nothing_else(api: str, body: str) -> None:
    wanted = case(wanted={Rewrite.SORT_SCHEMAS}, api=api)
    once = rewrite((body % SCHEMA).encode(), wanted, api)
    assert once.body.decode() == body % SORTED
    assert rewrite(once.body, wanted, api).body is once.body
