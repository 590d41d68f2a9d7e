"""A plan performed on raw bodies: each kind of change, spelled out."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from gateway.core.plan import Mark, Plan, PlanReason
from gateway.wire.marking import Unmarkable, marked
from gateway.wire.prompt_blocks import cache_prompt
from tests.helpers.prompt_dice import known_rules

if TYPE_CHECKING:
    from gateway.core.prefix import CachePrompt
    from gateway.providers.prompt_cache import CacheRules

RULES = known_rules()
CLAUDE = RULES["anthropic_messages"][0]
CHAT, ROUTED = RULES["openai_chat"]
RESPONSES = RULES["openai_responses"][0]
CONVERSE = RULES["bedrock_converse"][0]

FIVE = '"cache_control":{"type":"ephemeral"}'
HOUR = '"cache_control":{"type":"ephemeral","ttl":"1h"}'
POINT = '"prompt_cache_breakpoint":{"mode":"explicit"}'


def prompt_of(api: str, body: str, rules: CacheRules) -> CachePrompt:
    return cache_prompt(api, orjson.loads(body), rules)


def plan(*marks: tuple[int, int], **more: Any) -> Plan:
    return Plan(PlanReason.PLACED, tuple(Mark(*mark) for mark in marks), **more)


def claude(body: str, *marks: tuple[int, int], **more: Any) -> str:
    prompt = prompt_of("anthropic_messages", body, CLAUDE)
    return marked(body.encode(), prompt, plan(*marks, **more), CLAUDE).decode()


def chat(body: str, *marks: tuple[int, int], rules: CacheRules = CHAT, **more: Any) -> str:
    prompt = prompt_of("openai_chat", body, rules)
    return marked(body.encode(), prompt, plan(*marks, **more), rules).decode()


def responses(body: str, *marks: tuple[int, int], **more: Any) -> str:
    prompt = prompt_of("openai_responses", body, RESPONSES)
    return marked(body.encode(), prompt, plan(*marks, **more), RESPONSES).decode()


def converse(body: str, *marks: tuple[int, int], **more: Any) -> str:
    prompt = prompt_of("bedrock_converse", body, CONVERSE)
    return marked(body.encode(), prompt, plan(*marks, **more), CONVERSE).decode()


# --- markers -----------------------------------------------------------------------------------------------


def test_markers_go_into_tools_system_and_messages_in_whatever_order_they_stand() -> None:
    body = """ {"messages" : [ {"content":[{"text":"a"  , "type":"text"} ] ,"role":"user"}],
      "temperature":1.00, "max_tokens":1e3,
      "system":[{"type":"text","text":"b\\u00e9"}],"tools":[{"name":"f"},{"name":"g" }] }"""

    assert f""" {{"messages" : [ {{"content":[{{"text":"a"  , "type":"text",{FIVE}}} ] ,"role":"user"}}],
      "temperature":1.00, "max_tokens":1e3,
      "system":[{{"type":"text","text":"b\\u00e9",{HOUR}}}],"tools":[{{"name":"f"}},{{"name":"g",{HOUR} }}] }}""" == claude(
        body, (1, 3600), (2, 3600), (3, 300)
    )


def test_a_bare_string_becomes_a_list_of_one_text_with_its_own_spelling() -> None:
    body = r'{"system":"\u0062e \/ \ud83d\ude00","messages":[{"role":"user","content": "h\"i" }]}'

    assert (
        rf'{{"system":[{{"type":"text","text":"\u0062e \/ \ud83d\ude00",{HOUR}}}],'
        rf'"messages":[{{"role":"user","content": [{{"type":"text","text":"h\"i",{FIVE}}}] }}]}}'
    ) == claude(body, (0, 3600), (1, 300))


def test_a_marker_that_is_null_is_replaced() -> None:
    body = '{"messages":[{"role":"user","content":[{"cache_control": null,"type":"text","text":"a"}]}]}'

    assert body.replace("null", '{"type":"ephemeral"}') == claude(body, (0, 300))


def test_calls_results_and_media_carry_markers() -> None:
    blocks = [
        '{"type":"tool_use","id":"t","name":"f","input":{"x":[1.0,{"y":"]"}]}}',
        '{"type":"tool_result","tool_use_id":"t","content":[]}',
        '{"type":"image","source":{"type":"url","url":"https://a"}}',
    ]
    for block in blocks:
        body = '{"messages":[{"role":"user","content":[%s]}]}'
        assert body % f"{block[:-1]},{FIVE}}}" == claude(body % block, (0, 300))


def test_openai_has_breakpoints_in_parts() -> None:
    body = (
        '{"messages":[{"role":"developer","content":"be"},'
        '{"role":"user","content":[{"type":"text","text":"hi"},{"type":"image_url","image_url":{"url":"u"}}]},'
        '{"role":"tool","tool_call_id":"c","content":"done"}]}'
    )

    assert (
        f'{{"messages":[{{"role":"developer","content":[{{"type":"text","text":"be",{POINT}}}]}},'
        '{"role":"user","content":[{"type":"text","text":"hi"},'
        f'{{"type":"image_url","image_url":{{"url":"u"}},{POINT}}}]}},'
        f'{{"role":"tool","tool_call_id":"c","content":[{{"type":"text","text":"done",{POINT}}}]}}]}}'
    ) == chat(body, (0, 1800), (2, 1800), (3, 1800))


def test_responses_have_input_text() -> None:
    body = (
        '{"input":[{"role":"user","content":"hi"},'
        '{"type":"function_call_output","call_id":"c","output":[{"type":"input_text","text":"x"}]}]}'
    )

    assert (
        f'{{"input":[{{"role":"user","content":[{{"type":"input_text","text":"hi",{POINT}}}]}},'
        '{"type":"function_call_output","call_id":"c",'
        f'"output":[{{"type":"input_text","text":"x",{POINT}}}]}}]}}'
    ) == responses(body, (0, 1800), (1, 1800))


def test_bedrock_has_elements_of_their_own() -> None:
    body = (
        '{"toolConfig":{"tools":[{"toolSpec":{}} ]},"system":[{"text":"be"}],'
        '"messages":[{"role":"user","content":[{"text":"hi"},{"text":"ho"}]}]}'
    )

    assert (
        '{"toolConfig":{"tools":[{"toolSpec":{}},{"cachePoint":{"type":"default","ttl":"1h"}} ]},'
        '"system":[{"text":"be"},{"cachePoint":{"type":"default"}}],'
        '"messages":[{"role":"user","content":[{"text":"hi"},{"cachePoint":{"type":"default"}},{"text":"ho"}]}]}'
    ) == converse(body, (0, 3600), (1, 300), (2, 300))


# --- splits ------------------------------------------------------------------------------------------------

LONG = "".join(f"Rule {n}: say \\u00e9 or \\ud83d\\ude00.\\n" for n in range(120))


def piece_ends(body: str, api: str = "anthropic_messages", rules: CacheRules = CLAUDE) -> list[int]:
    return [block.until for block in prompt_of(api, body, rules).blocks]


def test_a_bare_text_is_split_between_its_escapes() -> None:
    body = '{"messages":[],"system":"%s"}'

    found = claude(body % LONG, (2, 3600), (5, 300))

    texts = [part["text"] for part in orjson.loads(found)["system"]]
    ends = piece_ends(body % LONG)
    assert [ends[2], ends[5]] == [len(texts[0]), len(texts[0]) + len(texts[1])]
    assert f'.\\n",{HOUR}}},{{"type":"text","text":"Rule ' in found
    for inserted in ('[{"type":"text","text":"', f'",{HOUR}}},{{"type":"text","text":"'):
        found = found.replace(inserted, '"' if inserted[0] == "[" else "", 1)
    found = found.replace(f'",{FIVE}}},{{"type":"text","text":"', "").replace('"}]}', '"}')
    assert body % LONG == found


def test_a_split_block_keeps_its_other_members_on_its_last_part() -> None:
    block = '{"cache_control":{"type":"ephemeral"}, "text" :"%s","citations":null,"type":"text"}'
    body = '{"messages":[],"system":[%s]}'
    cut = piece_ends(body % (block % LONG))[3]
    said = orjson.loads(f'"{LONG}"')

    found = claude(body % (block % LONG), splits=(3,))

    first, last = orjson.loads(found)["system"]
    assert {"type": "text", "text": said[:cut]} == first
    assert {**orjson.loads(block % "x"), "text": said[cut:]} == last
    # Both parts have the client's own escapes.
    head, between, tail = found.partition('"},')
    head = head.removeprefix('{"messages":[],"system":[{"type":"text","text":"')
    before, _, rest = block.partition("%s")
    assert tail.startswith(before)
    assert between
    assert LONG + rest + "]}" == head + tail.removeprefix(before)


def test_a_split_and_a_marker_behind_it_go_together() -> None:
    body = f'{{"messages":[],"system":"{LONG}"}}'
    whole = len(piece_ends(body)) - 1

    parts = orjson.loads(claude(body, (4, 3600), (whole, 300), splits=(1, 4)))["system"]

    assert [None, "1h", None] == [p.get("cache_control", {}).get("ttl") for p in parts]
    assert ["cache_control" in part for part in parts] == [False, True, True]
    assert "".join(part["text"] for part in parts) == orjson.loads(body)["system"]


def test_openai_and_bedrock_split_in_their_own_form() -> None:
    said = f'{{"messages":[{{"role":"system","content":"{LONG}"}}]}}'
    first, second = orjson.loads(chat(said, (0, 1800)))["messages"][0]["content"]
    assert ["type", "text", "prompt_cache_breakpoint"] == list(first)
    assert {"type", "text"} == set(second)

    part = f'{{"type":"input_text","text":"{LONG}"}}'
    asked = f'{{"input":[{{"role":"developer","content":[{part}]}}]}}'
    first, second = orjson.loads(responses(asked, splits=(0,)))["input"][0]["content"]
    assert "input_text" == first["type"] == second["type"]

    told = f'{{"system":[{{"text":"{LONG}"}}],"messages":[]}}'
    first, point, second = orjson.loads(converse(told, (0, 300)))["system"]
    assert {"cachePoint": {"type": "default"}} == point
    assert orjson.loads(told)["system"][0]["text"] == first["text"] + second["text"]


# --- the client's own markers ------------------------------------------------------------------------------


def test_the_clients_markers_are_taken_out_on_all_levels() -> None:
    body = (
        '{%s, "tools":[{%s,"name":"f","input_schema":{"properties":{"cache_control":{"x":1}}}}],'
        '"system":[{"type":"text","text":"be", %s }],"messages":[{"role":"user","content":['
        '{"type":"tool_result","tool_use_id":"t",%s,"content":[{"type":"text",%s,"text":"x"}]},'
        '{"type":"tool_use","id":"t","name":"f","input":{"cache_control":{"a":1}},%s}]}]}'
    )
    plain = (
        '{"tools":[{"name":"f","input_schema":{"properties":{"cache_control":{"x":1}}}}],'
        '"system":[{"type":"text","text":"be" }],"messages":[{"role":"user","content":['
        '{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"x"}]},'
        '{"type":"tool_use","id":"t","name":"f","input":{"cache_control":{"a":1}}}]}]}'
    )

    assert plain == claude(body % ((HOUR,) * 6), strips=True)


def test_our_marker_takes_the_place_of_the_clients() -> None:
    body = '{"messages":[{"role":"user","content":[{"type":"text",%s,"text":"hi"}]}]}'

    assert body % FIVE == claude(body % HOUR, (0, 300), strips=True)


def test_a_routers_markers_on_messages_and_functions_are_taken_out() -> None:
    body = (
        '{"tools":[{"type":"function","function":{"name":"f",%s}}],'
        '"messages":[{"role":"user",%s,"content":"hi"}]}'
    )
    plain = body.replace(",%s", "")

    assert plain == chat(body % (FIVE, FIVE), strips=True, rules=ROUTED)


def test_bedrocks_points_are_taken_out_with_their_commas() -> None:
    point = '{"cachePoint":{"type":"default"}}'
    body = (
        '{"system":[%s, {"text":"be"} , %s,%s],"messages":[{"role":"user","content":['
        '{"text":"hi"},%s,{"text":"cachePoint"}]}]}'
    )
    result = converse(body % ((point,) * 4), (0, 3600), strips=True)

    assert (
        '{"system":[{"text":"be"},{"cachePoint":{"type":"default","ttl":"1h"}}],"messages":['
        '{"role":"user","content":[{"text":"hi"},{"text":"cachePoint"}]}]}'
    ) == result


# --- OpenAI's envelope ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "strips", "result"),
    [
        ("", False, ',"prompt_cache_options":{"mode":"explicit"}'),
        (',"prompt_cache_options":null', False, ',"prompt_cache_options":{"mode":"explicit"}'),
        (',"prompt_cache_options":{}', False, ',"prompt_cache_options":{"mode":"explicit"}'),
        (
            ',"prompt_cache_options":{ "ttl":"30m" }',
            False,
            ',"prompt_cache_options":{ "ttl":"30m","mode":"explicit" }',
        ),
        (
            ',"prompt_cache_options":{"mode":"implicit","ttl":"30m"}',
            True,
            ',"prompt_cache_options":{"mode":"explicit","ttl":"30m"}',
        ),
    ],
)
def test_the_mode_is_set_in_the_clients_options(options: str, strips: bool, result: str) -> None:
    body = '{"input":"hi"%s}'

    assert body % result == responses(body % options, mode="explicit", strips=strips)


def test_stripping_takes_only_the_mode_out_of_the_clients_options() -> None:
    body = '{"input":"hi","prompt_cache_options":{%s"ttl":"30m"},"prompt_cache_key":"k"}'

    assert body % "" == responses(body % '"mode":"explicit",', strips=True)


def test_the_key_is_set_or_replaced() -> None:
    body = '{"messages":[{"role":"user","content":"hi"}]%s}'

    assert body % ',"prompt_cache_key":"a\\"b"' == chat(body % "", cache_key='a"b')
    assert body % ',"prompt_cache_key":"n"' == chat(
        body % ',"prompt_cache_key":"old"', cache_key="n"
    )


# --- what does not fit ---------------------------------------------------------------------------------------


def test_nothing_to_do_is_the_very_same_body() -> None:
    body = b'{"messages":[]}'
    prompt = cache_prompt("anthropic_messages", orjson.loads(body), CLAUDE)

    assert marked(body, prompt, Plan(PlanReason.TOO_SHORT), CLAUDE) is body


PLANNED = '{"system":"be","messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}]}'


@pytest.mark.parametrize(
    "other",
    [
        '{"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}]}',
        '{"system":"be","messages":[{"role":"user","content":[]}]}',
        '{"system":"be","messages":[]}',
        '{"system":"be","messages":{}}',
        '{"system":"be","messages":[{"role":"user"}]}',
        '{"system":"be","messages":[{"role":"user","content":[7]}]}',
        '{"system":7,"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}]}',
        '{"system":"be","system":"be","messages":[{"role":"user","content":[{"text":"hi"}]}]}',
        '{"system":"be","messages":[{"role":"user","content":[{"cache_control":null,"cache_control":null}]}]}',
        f'{{"system":"be","messages":[{{"role":"user","content":[{{{FIVE},"text":"hi"}}]}}]}}',
        '{"system":"be","messages":[{"role":"user","content":[{"type":"text","text":"hi',
        "[]",
        "",
        "7",
    ],
)
def test_another_body_than_was_planned_for_is_not_touched(other: str) -> None:
    prompt = prompt_of("anthropic_messages", PLANNED, CLAUDE)

    with pytest.raises(Unmarkable):
        marked(other.encode(), prompt, plan((0, 300), (1, 300)), CLAUDE)


@pytest.mark.parametrize("system", ['"too short"', '[{"type":"text"}]', '[{"text":7}]', "[7]"])
def test_a_text_that_cannot_be_split_is_not_touched(system: str) -> None:
    listed = system[0] == "["
    text = f'[{{"type":"text","text":"{LONG}"}}]' if listed else f'"{LONG}"'
    prompt = prompt_of("anthropic_messages", f'{{"messages":[],"system":{text}}}', CLAUDE)

    with pytest.raises(Unmarkable):
        marked(f'{{"messages":[],"system":{system}}}'.encode(), prompt, plan((0, 300)), CLAUDE)


def test_a_plan_that_breaks_the_rules_is_not_performed() -> None:
    body = '{"messages":[{"role":"user","content":[{"type":"thinking","thinking":"x"},{"type":"text","text":"a",%s}]}]}'
    body %= FIVE
    for wrong in (
        plan((0, 300)),  # thinking
        plan((1, 300)),  # the client's own marker stays
        plan((9, 300)),  # no such block
        plan((1, 77), strips=True),  # no such lifetime
        plan(splits=(1,)),  # no piece
    ):
        with pytest.raises(Unmarkable):
            marked(body.encode(), prompt_of("anthropic_messages", body, CLAUDE), wrong, CLAUDE)


def test_other_lifetimes_are_spelled_as_the_rules_say() -> None:
    only_long = dataclasses.replace(CLAUDE, lifetimes=CLAUDE.lifetimes[::-1])
    body = '{"messages":[],"system":"be"}'
    prompt = prompt_of("anthropic_messages", body, only_long)

    assert b'"ttl":"5m"' in marked(body.encode(), prompt, plan((0, 300)), only_long)
