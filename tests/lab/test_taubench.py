"""The recorded conversations, their guises, and the stub that answers from them."""

from __future__ import annotations

import random
from typing import Any

import openai
import orjson

from gateway.lab.stub_answers import meaning
from tests.helpers.recorded_stub import RecordedStub
from tests.helpers.taubench import calls, flipped, renamed, shuffled, tool_list


def some(step: int) -> list[Any]:
    return calls()[::step]


def test_every_llm_call_of_the_trace_is_there() -> None:
    assert len(calls()) == 2454
    assert len({call.conversation for call in calls()}) == 200
    assert sum("tool_calls" in call.answer for call in calls()) == 1164


def test_tools_are_derived_from_the_calls_seen() -> None:
    by_name = {t["function"]["name"]: t["function"]["parameters"] for t in tool_list()}
    assert len(by_name) == 14
    assert by_name["get_user_details"]["properties"] == {"user_id": {"type": "string"}}
    assert by_name["book_reservation"]["properties"]["flights"]["items"]["type"] == "object"


def test_guises_keep_the_meaning_and_change_the_bytes() -> None:
    rng = random.Random(1)
    for call in some(37):
        with_calls = any(m.get("tool_calls") for m in call.body["messages"])
        other_order = shuffled(call.body, rng)
        assert other_order == call.body
        other_names = renamed(call.body, rng)
        assert (other_names != call.body) == with_calls
        guise = flipped(shuffled(other_names, rng))
        assert orjson.dumps(guise) != call.raw()
        assert meaning(guise) == meaning(call.body)
        assert flipped(flipped(call.body)) == call.body


def test_shuffling_leaves_parameter_schemas_and_arguments_alone() -> None:
    rng = random.Random(2)
    body = calls()[-1].body
    mixed = shuffled(body, rng)
    for before, after in zip(body["tools"], mixed["tools"], strict=True):
        schema = before["function"]["parameters"]
        assert orjson.dumps(schema) == orjson.dumps(after["function"]["parameters"])
    assert list(mixed) != list(body)


async def test_recorded_answers_come_back_in_both_forms() -> None:
    picked = some(61)
    stub = RecordedStub((call.body, call.answer) for call in calls())
    async with (
        stub.serve() as url,
        openai.AsyncOpenAI(base_url=url, api_key="sk-a", max_retries=0) as client,
    ):
        for call in picked:
            expected = stub.answer(call.body)
            assert expected is not None
            whole = await client.chat.completions.create(**call.body)
            message = whole.choices[0].message
            async with client.chat.completions.stream(
                **call.body, stream_options={"include_usage": True}
            ) as stream:
                streamed = await stream.get_final_completion()
            again = streamed.choices[0].message
            assert message.content == again.content == expected["content"]
            recorded = [c["function"] for c in expected.get("tool_calls") or ()]
            for found in (message, again):
                functions = [c.function for c in found.tool_calls or () if c.type == "function"]
                assert [{"arguments": f.arguments, "name": f.name} for f in functions] == recorded
            assert whole.usage == streamed.usage
    assert stub.total_calls == 2 * len(picked)
    assert stub.calls[404] == 0
