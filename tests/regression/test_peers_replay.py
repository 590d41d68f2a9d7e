"""Items 12 to 20 of the peer survey, what users report: replay; and the traps of tool-call ids."""

from __future__ import annotations

import re
from typing import Any

import pytest
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from gateway.core.mint import Mint
from gateway.providers.registry import PROVIDERS, rules
from gateway.wire.table import OPENAI_CHAT
from tests.helpers.answers import accumulated, said
from tests.helpers.doorway import (
    CHAT,
    COMPLETIONS,
    MESSAGES,
    RESPONSES,
    Canned,
    chat,
    doorway,
)
from tests.helpers.openai_chat import choice, chunk, document
from tests.helpers.openai_chat import stream as stream_of

WORDS = "What is a cache?"
ASKED: dict[str, dict[str, Any]] = {
    CHAT: chat(WORDS, stream_options={"include_usage": True}),
    MESSAGES: {**chat(WORDS, max_tokens=300), "model": "claude-haiku-5-5"},
    COMPLETIONS: {
        "model": "gpt-3.5-turbo-instruct",
        "prompt": WORDS,
        "max_tokens": 300,
        "stream_options": {"include_usage": True},
    },
    RESPONSES: {"model": "gpt-4o", "input": WORDS, "store": False},
}
NAMES = {
    CHAT: "openai_chat",
    MESSAGES: "anthropic_messages",
    COMPLETIONS: "openai_completions",
    RESPONSES: "openai_responses",
}


def streamed(path: str) -> dict[str, Any]:
    return {**ASKED[path], "stream": True}


def whole(path: str) -> dict[str, Any]:
    return {n: v for n, v in ASKED[path].items() if n != "stream_options"}


async def test_item_12_streams_of_responses_are_kept_and_replayed() -> None:
    """12, litellm#24579: streams of `/v1/responses` were never persisted or replayed."""
    async with doorway() as door:
        first = await door.ask(RESPONSES, streamed(RESPONSES))
        again = await door.ask(RESPONSES, streamed(RESPONSES))
        assert [first.cache, again.cache] == ["miss", "hit"]
        assert accumulated("openai_responses", first.raw) == accumulated(
            "openai_responses", again.raw
        )
        assert [event["type"] for event in first.events] == [
            event["type"] for event in again.events
        ]


USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 50,
    "total_tokens": 1050,
    "prompt_tokens_details": {"cached_tokens": 900, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 30},
}
THOUGHT = [
    chunk({"role": "assistant", "content": "", "reasoning_content": "First I "}),
    chunk({"reasoning_content": "think."}),
    chunk({"content": "Yes."}),
    chunk({}, "stop"),
    chunk(None, usage=USAGE),
]


@pytest.mark.parametrize("first", ["stream", "body"])
async def test_item_13_hits_keep_reasoning_and_the_details_of_usage(first: str) -> None:
    """13, litellm#42244, #32068, #32096: stream hits dropped reasoning and usage details."""
    answers: dict[str, Any] = {
        "stream": stream_of(*THOUGHT, usage=False),
        "body": document(choice({"content": "Yes.", "reasoning_content": "First I think."}), usage=USAGE),
    }  # fmt: skip
    asked = {"stream": streamed(CHAT), "body": whole(CHAT)}
    other = "body" if first == "stream" else "stream"
    async with doorway(stub=Canned(answers[first])) as door:
        assert (await door.ask(CHAT, asked[first])).cache == "miss"
        for form in (first, other):
            told = await door.ask(CHAT, asked[form])
            assert told.cache == "hit"
            got = accumulated("openai_chat", told.raw) if form == "stream" else said("openai_chat", told.document)  # fmt: skip
            [(texts, _, finish)], usage, *_ = got
            assert (texts, finish, usage) == (["Yes.", "", "First I think."], "stop", USAGE)


SSE_LINE = re.compile(rb"(data: (\{.*\}|\[DONE\])|event: [a-z_.]+|)")


@pytest.mark.parametrize("path", ASKED)
async def test_item_14_a_replayed_stream_is_well_formed_line_by_line(path: str) -> None:
    """14, semantic-router#913: a hit broke the event stream (`!!!!`)."""
    odd = "!!!! \r\n\ndata: x\u2028é😀"
    body = {**streamed(path)}
    body = (
        {**body, "messages": [{"role": "user", "content": odd}]}
        if "messages" in body
        else {**body, "prompt" if path == COMPLETIONS else "input": odd}
    )
    async with doorway() as door:
        first = await door.ask(path, body)
        again = await door.ask(path, body)
        assert again.cache == "hit"
        assert again.headers["content-type"].startswith("text/event-stream")
        assert again.raw.endswith(b"\n\n")
        assert all(SSE_LINE.fullmatch(line) for line in again.raw.split(b"\n"))
        assert accumulated(NAMES[path], again.raw) == accumulated(NAMES[path], first.raw)


@pytest.mark.parametrize("path", ASKED)
async def test_item_15_every_hit_has_an_id_of_its_own(path: str) -> None:
    """15, semantic-router#940: hits reused the id, and were taken for duplicates."""
    async with doorway() as door:
        told = [await door.ask(path, whole(path)) for _ in range(4)]
        assert [each.cache for each in told] == ["miss", "hit", "hit", "hit"]
        ids = [each.document["id"] for each in told]
        assert len(set(ids)) == 4
        assert len({len(each) for each in ids}) == 1
        requests = [each.headers["x-gateway-request-id"] for each in told]
        assert len(set(requests)) == 4


async def test_item_16_a_hit_of_responses_is_the_answer_but_for_its_own_id_and_time() -> None:
    """16, llmgateway#3899: hits rewrote metadata, dropped cache controls and rebuilt item ids."""
    body = {**whole(RESPONSES), "metadata": {"run": "7"}, "prompt_cache_key": "k"}
    async with doorway() as door:
        first = (await door.ask(RESPONSES, body)).document
        hit = await door.ask(RESPONSES, body)
        assert hit.cache == "hit"
        again = hit.document
        changing = ("id", "created_at", "output")
        assert {n: v for n, v in first.items() if n not in changing} == {
            n: v for n, v in again.items() if n not in changing
        }
        assert [item["content"] for item in first["output"]] == [
            item["content"] for item in again["output"]
        ]
        assert again["metadata"] == {"run": "7"}
        # What arrived upstream is what the client sent.
        assert door.stub.received[-1].json() == body
        assert (await door.ask(RESPONSES, body, cache_control="no-cache")).cache == "miss"
        # What the provider keeps is the very record: all of its ids stay.
        kept = {**body, "store": True}
        record = (await door.ask(RESPONSES, kept)).document
        assert (await door.ask(RESPONSES, kept)).document == record


async def test_item_17_agents_that_stream_are_cached_but_nothing_cut_or_aborted_is() -> None:
    """17, freellmapi#1098: all streams bypassed the cache; wanted: no `length`, no aborted ones."""
    async with doorway() as door:
        assert await door.caches(CHAT, chat(stream=True), chat(stream=True)) == ["miss", "hit"]
        for text, more in (("[cut]", {}), ("[long 300]", {"max_tokens": 40})):
            body = chat(text, stream=True, **more)
            assert await door.caches(CHAT, body, body) == ["miss", "miss"]


async def test_item_18_a_framework_that_streams_uses_the_same_cache_as_one_that_does_not() -> None:
    """18, langchain#23701, #13119, autogen#6953: `.stream` ignored the cache."""
    async with doorway() as door:
        model = ChatOpenAI(
            model="gpt-4o",
            api_key=SecretStr("sk-1"),
            base_url=f"{door.gateway.api_url}/v1",
            max_retries=0,
        )
        invoked = (await model.ainvoke(WORDS)).content
        await door.gateway.background.idle()
        pieces = [str(piece.content) async for piece in model.astream(WORDS)]
        assert "".join(pieces) == invoked
        assert len(pieces) > 2
        assert door.calls == 1


@pytest.mark.parametrize("path", ASKED)
async def test_item_19_every_api_that_streams_is_cached_in_both_forms(path: str) -> None:
    """19, higress#1624: streaming requests were not cached."""
    for one, other in ((streamed(path), whole(path)), (whole(path), streamed(path))):
        async with doorway() as door:
            assert await door.caches(path, one, one, other) == ["miss", "hit", "hit"]
            assert door.calls == 1


TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}},
}


def called(*ids: str) -> dict[str, Any]:
    calls = [
        {"id": each, "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
        for each in ids
    ]
    return document(choice({"tool_calls": calls}, "tool_calls"))


def after(*ids: str, **more: Any) -> dict[str, Any]:
    """A conversation that has made these calls."""
    history: list[dict[str, Any]] = [{"role": "user", "content": "weather?"}]
    for each in ids:
        history += [
            called(each)["choices"][0]["message"] | {"content": None},
            {"role": "tool", "tool_call_id": each, "content": "sunny"},
        ]
    return {"model": "gpt-4o", "messages": history, "tools": [TOOL], **more}


def ids_of(told: Any) -> list[str]:
    if told.raw.startswith(b"{"):
        calls = told.document["choices"][0]["message"]["tool_calls"]
    else:
        calls = [
            call
            for event in told.events
            for piece in event["choices"]
            for call in piece["delta"].get("tool_calls") or ()
            if call.get("id")
        ]
    return [call["id"] for call in calls]


@pytest.mark.parametrize("stream", [False, True])
async def test_item_20_a_tool_call_id_of_a_hit_never_repeats_one_of_the_conversation(
    stream: bool,
) -> None:
    """20, jcode#884, qwen-code#9436: agents take repeated tool-call ids for replays."""
    async with doorway(stub=Canned(called("call_Ab3dEf9h", "call_Zz9dEf9h"))) as door:
        await door.ask(CHAT, after("call_Other111"))
        # The same conversation as another run has it: its ids are the ones that the answer gave.
        told = await door.ask(CHAT, after("call_Ab3dEf9h", stream=stream))
        assert told.cache == "hit"
        fresh, other = ids_of(told)
        assert fresh != "call_Ab3dEf9h"
        assert re.fullmatch(r"call_[A-Za-z0-9]{8}", fresh)
        assert other == "call_Zz9dEf9h"


SELF_HOSTED = ["vllm", "sglang", "llamacpp", "unknown"]


@pytest.mark.parametrize("provider", SELF_HOSTED)
@pytest.mark.parametrize(
    "ids", [("functions.f:0", "functions.f:1"), ("abcdef123", "abcdef124")], ids=["kimi", "mistral"]
)
async def test_trap_tool_ids_that_a_template_may_render_are_keyed_as_they_are(
    provider: str, ids: tuple[str, str]
) -> None:
    """Kimi's template renders `functions.NAME:N` into the prompt, Mistral's the nine characters:
    another id is another prompt there, and only hosted APIs document ids as handles.
    """
    one, other = ids
    async with doorway(
        provider, stub=Canned(document(choice({"content": "Take a coat."})))
    ) as door:
        assert await door.caches(CHAT, after(one), after(other)) == ["miss", "miss"]
        assert await door.caches(CHAT, after(one), after(other)) == ["hit", "hit"]


@pytest.mark.parametrize(
    ("given", "form"),
    [
        ("functions.get_weather:0", r"functions\.get_weather:[0-9]+"),
        ("functions.get_weather:12", r"functions\.get_weather:[0-9]+"),
        ("bXZ3Fq9aP", r"[a-zA-Z0-9]{9}"),
        ("000000000", r"[a-zA-Z0-9]{9}"),
    ],
)
async def test_trap_a_fresh_tool_id_keeps_the_form_that_kimi_and_mistral_read(
    given: str, form: str
) -> None:
    """Kimi's servers read the function's name out of the id, Mistral's template refuses an id that
    has not nine letters and digits.
    """
    for _ in range(20):
        async with doorway("vllm", stub=Canned(called(given))) as door:
            # The server itself gave an id that the conversation has already.
            await door.ask(CHAT, after(given))
            told = await door.ask(CHAT, after(given))
            assert told.cache == "hit"
            [fresh] = ids_of(told)
            assert fresh != given
            assert re.fullmatch(form, fresh)


def test_trap_no_id_of_kimi_is_taken_for_a_new_one_though_all_of_one_digit_are_taken() -> None:
    """Ten calls and more in one conversation: the number grows, the name stays."""
    taken = {f"functions.f:{n}" for n in range(10)}
    for seed in range(50):
        fresh = Mint(1, bytes([seed])).unlike("functions.f:3", taken)
        assert fresh not in taken
        assert re.fullmatch(r"functions\.f:[0-9]+", fresh)


def test_trap_ids_of_hosted_openai_are_handles_and_of_nobody_else_unasked() -> None:
    """Which tables rename: only where the provider documents ids as opaque."""
    renaming = {
        name
        for name, provider in PROVIDERS.items()
        if rules(provider, OPENAI_CHAT.name).rename_tool_ids is not None
    }
    assert renaming <= {"openai", "azure"}
    assert not renaming & {*SELF_HOSTED, "openrouter"}
