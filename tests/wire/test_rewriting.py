"""Requests rewritten: what is sent, byte for byte, and what is left as it came."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.core.rewrites import Hindrance, Rewrite
from gateway.core.volatile_traffic import VolatileTraffic
from gateway.wire.rewriting import Asker, Rewriter
from gateway.wire.system_text import read_lead, thinks
from tests.helpers.rewriting import MODEL, case, rewrite

MOVE = {Rewrite.MOVE_VOLATILE}
STRIP = {Rewrite.STRIP_BILLING}
BILLING = "x-anthropic-billing-header: cc_version=2.1.37.f3c; cc_entrypoint=cli; cch=a1b2c;"
NOTE = (
    "<context-values>\\nWhat the instructions above name, as of now. Not written by the user.\\n"
    "timestamp-1: 2026-11-22T10:00:59Z\\n</context-values>"
)
CLOCK = "Current time: 2026-11-22T10:00:59Z"
NAMED = "Current time: (timestamp-1, see context-values at the end)"


def told(body: str, api: str = "anthropic_messages", **more: Any) -> str:
    return rewrite(body.encode(), case(api=api, **more), api).body.decode()


# --- what is moved ------------------------------------------------------------------------------


def test_a_value_moves_to_a_part_of_its_own_where_markers_are_taken() -> None:
    body = '{ "system" : "%s\\u00e9\\/",\n "max_tokens":1.0e1, "messages":[{"role":"user","content": "hi"}]}'
    assert told(body % f"{CLOCK}\\n", provider="openrouter", wanted=MOVE) == (
        body % f"{NAMED}\\n"
    ).replace('"hi"', f'[{{"type":"text","text":"hi"}},{{"type":"text","text":"{NOTE}"}}]')


def test_on_an_engine_it_follows_in_the_same_text() -> None:
    body = '{"system":"%s","messages":[{"role":"user","content":"hi \\u00e9"}]}'
    assert told(body % CLOCK, wanted=MOVE) == (body % NAMED).replace(
        "\\u00e9", f"\\u00e9\\n\\n{NOTE}"
    )


def test_it_goes_behind_a_tools_result_and_the_clients_own_marker() -> None:
    content = '[{"type":"tool_result","tool_use_id":"t","content":"x","cache_control":{"type":"ephemeral"}}%s]'
    body = '{"system":[{"type":"text","text":"%s"}],"messages":[{"role":"user","content":%s}]}'
    assert told(body % (CLOCK, content % ""), provider="openrouter", wanted=MOVE) == body % (
        NAMED,
        content % f',{{"type":"text","text":"{NOTE}"}}',
    )


def test_it_never_stands_behind_an_answer_that_was_begun_for_the_model() -> None:
    body = (
        '{"system":"%s","messages":[{"role":"user","content":"%s"},'
        '{"role":"assistant","content":"Sure"}]}'
    )
    assert told(body % (CLOCK, "hi"), wanted=MOVE) == body % (NAMED, f"hi\\n\\n{NOTE}")


def test_responses_and_chat_have_their_own_places() -> None:
    body = '{"instructions":"%s","input":"%s"}'
    assert told(body % (CLOCK, "hi"), "openai_responses", wanted=MOVE) == body % (
        NAMED,
        f"hi\\n\\n{NOTE}",
    )
    result = '{"instructions":"%s","input":[{"type":"function_call_output","output":"%s"}]}'
    assert told(result % (CLOCK, "7"), "openai_responses", wanted=MOVE) == result % (
        NAMED,
        f"7\\n\\n{NOTE}",
    )
    chat = (
        '{"messages":[{"role":"developer","content":"%s"},{"role":"user","content":"a"},'
        '{"role":"assistant","content":null,"tool_calls":[]},{"role":"tool","content":"%s"}]}'
    )
    assert told(chat % (CLOCK, "7"), "openai_chat", wanted=MOVE) == chat % (
        NAMED,
        f"7\\n\\n{NOTE}",
    )


def test_nothing_moves_where_nobody_but_the_model_speaks() -> None:
    body = f'{{"system":"{CLOCK}","messages":[{{"role":"assistant","content":"hi"}}]}}'
    assert told(body, wanted=MOVE) == body


# --- the billing header -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "left"),
    [
        (f'[{{"type":"text","text":"{BILLING}"}}, {{"type":"text","text":"Be brief."}}]',
         '[{"type":"text","text":"Be brief."}]'),
        (f'"{BILLING}\\nBe brief."', '"Be brief."'),
        (f'[{{"type":"text","text":"{BILLING}\\n\\nBe brief."}}]',
         '[{"type":"text","text":"\\nBe brief."}]'),
    ],
)  # fmt: skip
def test_the_billing_header_is_left_out_and_its_block_with_it(system: str, left: str) -> None:
    body = '{"model":"m","system": %s ,"messages":[]}'
    assert told(body % system, wanted=STRIP) == body % left


def test_a_system_prompt_of_nothing_else_goes_as_a_whole() -> None:
    body = '{"model":"m",%s "messages":[]}'
    for system in (f'"{BILLING}"', f'[{{"type":"text","text":"{BILLING}"}}]'):
        assert told(body % f'"system":{system},', wanted=STRIP) == '{"model":"m", "messages":[]}'
    chat = '{"messages":[%s{"role":"user","content":"hi"}]}'
    asked = chat % f'{{"role":"system","content":[{{"type":"text","text":"{BILLING}"}}]}}, '
    assert told(asked, "openai_chat", wanted=STRIP) == chat % ""


def test_anthropic_gets_its_header() -> None:
    body = f'{{"system":"{BILLING}\\nBe brief.","messages":[]}}'
    assert told(body, provider="anthropic", wanted=STRIP) == body


# --- what is left alone -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"thinking": {"type": "adaptive"}},
        {"messages": [{"role": "assistant", "content": [{"type": "thinking", "signature": "s"}]}]},
        {"messages": [{"role": "assistant", "content": [{"type": "redacted_thinking"}]}]},
    ],
)
def test_a_request_that_thinks_is_left_alone(more: dict[str, Any]) -> None:
    plain: dict[str, Any] = {"model": MODEL, "system": f"{BILLING}\n{CLOCK}", "messages": []}
    user = {"role": "user", "content": "hi"}
    body = {**plain, **more, "messages": [*more.get("messages", ()), user]}
    raw = orjson.dumps(body)
    done = rewrite(raw, case(provider="openrouter"))
    assert done.body is raw
    assert done.hindrance is Hindrance.THINKS
    on_an_engine = rewrite(raw, case(provider="vllm"))
    assert on_an_engine.made == STRIP
    assert orjson.loads(on_an_engine.body)["system"] == CLOCK


@pytest.mark.parametrize(
    ("api", "body", "does"),
    [
        ("anthropic_messages", {"thinking": {"type": "disabled"}}, False),
        ("openai_responses", {"reasoning": {"effort": "high"}}, True),
        ("openai_responses", {"reasoning": {"effort": "none"}}, False),
        ("openai_responses", {"include": ["reasoning.encrypted_content"]}, True),
        ("openai_responses", {"input": [{"type": "reasoning", "encrypted_content": "x"}]}, True),
        ("openai_chat", {"reasoning_effort": "low"}, True),
        ("openai_chat", {"messages": [{"role": "assistant", "reasoning_content": "hm"}]}, True),
        ("openai_chat", {"messages": [{"role": "assistant", "reasoning_content": None}]}, False),
        (
            "openai_chat",
            {"messages": [{"role": "assistant", "tool_calls": [{"thought_signature": "s"}]}]},
            True,
        ),
        (
            "anthropic_messages",
            {"tools": [{"input_schema": {"properties": {"reasoning": {}, "thought": {}}}}]},
            False,
        ),
    ],
)
def test_thinking_is_known_by_what_asks_for_it_and_what_carries_it(
    api: str, body: dict[str, Any], does: bool
) -> None:
    assert thinks(api, body) is does


def test_a_text_that_names_a_member_twice_is_left_alone() -> None:
    body = b'{"system":"%s","system":"%s","messages":[{"role":"user","content":"hi"}]}' % (
        (CLOCK.encode(),) * 2
    )
    asker = Asker("anthropic_messages", b"", "u", "/v1/messages")
    rewriter = Rewriter(VolatileTraffic())
    done = rewriter.rewrite(body, orjson.loads(body), case(wanted=MOVE), asker, 0.0)
    assert done.body is body
    assert done.hindrance is Hindrance.NOT_UNDERSTOOD


def test_other_apis_have_no_system_text() -> None:
    body = orjson.dumps({"model": "m", "prompt": CLOCK})
    assert rewrite(body, case(api="openai_completions"), "openai_completions").body is body


# --- what traffic confirms ----------------------------------------------------------------------


def asked(minute: int, *more: str) -> dict[str, Any]:
    said = [
        {"role": role, "content": text}
        for role, text in zip(
            ("user", "assistant") * (1 + len(more)), ("hello", *more), strict=False
        )
    ]
    return {"system": f"You are helpful.\n2026-11-22 10:{minute}:00\nBe brief.", "messages": said}


def test_what_is_likely_moves_in_conversations_that_begin_after_it_was_confirmed() -> None:
    traffic = VolatileTraffic()
    rewriter = Rewriter(traffic)
    asker = Asker("anthropic_messages", b"d", "u", "/v1/messages")

    def made(body: dict[str, Any], now: float) -> frozenset[Rewrite]:
        raw = orjson.dumps(body)
        return rewriter.rewrite(raw, body, case(wanted=MOVE), asker, now).made

    assert made(asked(10), 0.0) == frozenset()
    for minute in range(10, 16):
        lead = read_lead("anthropic_messages", asked(minute))
        traffic.count(rewriter.seen(lead, asker), 0.0)
    # Begun before; its first message is the same as that of the next.
    assert made(asked(17, "answer", "and?"), 1.0) == frozenset()
    assert made(asked(18), 1000.0) == MOVE
    assert made(asked(19, "answer", "and then?"), 1010.0) == MOVE
    # Another replica, or this one after a restart.
    alone = Rewriter(VolatileTraffic())
    body = asked(20, "answer", "and then?", "more", "so?")
    raw = orjson.dumps(body)
    assert alone.rewrite(raw, body, case(wanted=MOVE), asker, 0.0).body is raw


def test_texts_are_searched_up_to_the_longest_that_one_may_be() -> None:
    stamp = "Current time: 2026-11-22T10:00:00Z\n"
    texts = [stamp + "Be brief. " * 10_000 for _ in range(4)]
    body = orjson.dumps(
        {
            "model": MODEL,
            "system": [{"type": "text", "text": each} for each in texts],
            "messages": [{"role": "user", "content": "Hi"}],
        }
    )
    made = rewrite(body, case({Rewrite.ROUND_TIME}))
    left = [each["text"] for each in orjson.loads(made.body)["system"]]
    assert [stamp in each for each in left] == [False, False, False, True]
