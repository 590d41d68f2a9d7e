"""Items 1 to 11 of the peer survey, what users report: hits that were somebody else's or wrong."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gateway.config.catalogue import catalogue
from gateway.lab.stub_provider import StubProvider
from tests.helpers.doorway import (
    CHAT,
    COMPLETIONS,
    MESSAGES,
    RESPONSES,
    Canned,
    chat,
    doorway,
)
from tests.helpers.scripted_upstream import serve_app

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.redis_servers import RedisServer


def said(told: Any) -> str:
    text: str = told.document["choices"][0]["message"]["content"]
    return text


async def test_item_01_nobody_learns_from_the_cache_what_another_team_asked() -> None:
    """1, litellm#29955: one exact cache for all teams, and an oracle for what was asked before."""
    async with doorway() as door:
        await door.ask(CHAT, chat(), "sk-team-a")
        assert (await door.ask(CHAT, chat(), "sk-team-b")).cache == "miss"
        probe = {"cache_control": "only-if-cached"}
        known = await door.ask(CHAT, chat(), "sk-team-c", **probe)
        unknown = await door.ask(CHAT, chat("never asked"), "sk-team-c", **probe)
        assert known.status == unknown.status == 504
        assert known.raw == unknown.raw


@pytest.mark.timeout(120)
async def test_item_02_concurrent_clients_with_one_key_on_one_redis_get_their_own_answers(
    redis_server: RedisServer,
) -> None:
    """2, litellm#25447: answers went to the wrong client on Redis with a shared key."""
    store = {"url": redis_server.url, "deadline_ms": 2000, "memory_bytes": 0}
    async with doorway(store=store) as door:

        async def client(number: int) -> None:
            for turn in range(6):
                mine = f"question-{(number + turn) % 24}"
                assert f'"{mine}"' in said(await door.ask(CHAT, chat(mine)))

        await asyncio.gather(*(client(number) for number in range(24)))
        assert (await door.ask(CHAT, chat("question-3"))).cache == "hit"


async def test_item_03_nothing_is_served_for_being_similar() -> None:
    """3, semantic-router#2134: another user's answer at similarity 0.9085. There is no such cache:
    no setting speaks of one, and a question one character away is another question.
    """
    words = ("semantic", "similar", "threshold", "vector")
    paths = " ".join(setting.path for setting in catalogue())
    assert not [word for word in words if word in paths]
    near = [
        "What is the balance of account 17?",
        "What is the balance of account 18?",
        "what is the balance of account 17?",
        "What is the balance of account 17? ",
        "What is the balance of account 17",
        "What is  the balance of account 17?",
        "What is the bal\u0430nce of account 17?",
    ]
    async with doorway() as door:
        assert await door.caches(CHAT, *map(chat, near)) == ["miss"] * len(near)
        for text in near:
            told = await door.ask(CHAT, chat(text))
            assert told.cache == "hit"
        assert len({said(await door.ask(CHAT, chat(text))) for text in near}) == len(near)


async def test_item_04_who_was_chosen_to_answer_is_part_of_the_key() -> None:
    """4, apisix#13578: the key missed the picked instance, another model's answer was replayed."""
    other = StubProvider()
    async with serve_app(other.app()) as there:
        second = {"base_url": f"{there}/v1", "provider": "openai"}
        async with doorway(upstreams={"second": second}) as door:
            assert (await door.ask(CHAT, chat())).cache == "miss"
            assert (await door.ask(f"/u/second{CHAT}", chat())).cache == "miss"
            assert (await door.ask(f"/u/openai{CHAT}", chat())).cache == "hit"
            assert (await door.ask(f"/u/second{CHAT}", chat())).cache == "hit"
            assert (door.calls, other.total_calls) == (1, 1)


async def test_item_05_identical_bytes_always_hit_and_after_a_restart_too(tmp_path: Path) -> None:
    """5, bifrost#3190: the hash of the parameters was not deterministic."""
    options: dict[str, Any] = {f"option_{n}": {"b": [n, 1.5], "a": None} for n in range(40)}
    body = chat(logit_bias={str(n): n % 7 for n in range(50)}, **options)
    store = {"url": f"sqlite:///{tmp_path}/cache.db", "deadline_ms": 2000}
    async with doorway("unknown", store=store) as door:
        assert await door.caches(CHAT, *[body] * 30) == ["miss"] + ["hit"] * 29
    # The hashing itself under other hash seeds: tests/properties/test_every_api_properties.py.
    async with doorway(store=store, cache={"door_entries": 0}) as door:
        assert await door.caches(CHAT, *[body] * 5) == ["miss"] + ["hit"] * 4


async def test_item_06_serving_an_entry_does_not_change_it_and_apis_never_collide() -> None:
    """6, bifrost#7233, #7560: a stored object was changed later; chat and Responses collided."""
    async with doorway() as door:
        first = await door.ask(CHAT, chat())
        told = [await door.ask(CHAT, chat(stream=n % 2 == 1)) for n in range(6)]
        assert {each.cache for each in told} == {"hit"}
        for each in told[::2]:
            kept = first.document | {"id": "", "created": 0}
            assert each.document | {"id": "", "created": 0} == kept
        assert len({each.raw.count(b"\n\n") for each in told[1::2]}) == 1
    # The same bytes to two routes that both understand them.
    text = "What is a cache?"
    for other, more in (
        (RESPONSES, {"input": text}),
        (COMPLETIONS, {"prompt": text}),
        (MESSAGES, {}),
    ):
        body = chat(text, max_tokens=64, **more)
        async with doorway() as door:
            version = {"anthropic_version": "2023-06-01"}
            for path in (CHAT, other):
                assert (await door.ask(path, body, **version)).cache == "miss"
            for path in (CHAT, other):
                assert (await door.ask(path, body, **version)).cache == "hit"
            assert door.calls == 2


async def test_item_07_another_order_of_members_is_the_same_request() -> None:
    """7, openai-caching-proxy-worker#1: a mobile client's order of JSON members defeated the key."""
    async with doorway() as door:
        one = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}],"temperature":0.5}'
        two = b'{ "temperature":0.5, "messages":[{"content":"hi","role":"user"}],"model":"gpt-4o"}'
        assert (await door.ask(CHAT, one)).cache == "miss"
        assert (await door.ask(CHAT, two)).cache == "hit"


@pytest.mark.parametrize("stream", [False, True])
async def test_item_08_an_answer_that_was_cut_at_its_limit_is_not_kept(stream: bool) -> None:
    """8, LightRAG#3446: `finish_reason: length` was replayed for ever."""
    body = chat("[long 300]", max_tokens=40, stream=stream)
    async with doorway() as door:
        assert await door.caches(CHAT, body, body) == ["miss", "miss"]
    async with doorway(cache={"store": {"truncated": True}}) as door:
        assert await door.caches(CHAT, body, body) == ["miss", "hit"]


ANSWER = {
    "id": "chatcmpl-Ab3dEf9h",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o",
    "choices": [],
    "usage": {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3},
}
NOTHING: list[Any] = [
    ANSWER,
    {**ANSWER, "choices": None},
    {**ANSWER, "choices": [{"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}]},
    b'data: {"id":"c","object":"chat.completion.chunk","choices":[]}\n\ndata: [DONE]\n\n',
    b"data: [DONE]\n\n",
]  # fmt: skip


@pytest.mark.parametrize("answer", NOTHING)
async def test_item_09_an_answer_without_choices_is_passed_on_and_not_kept(answer: Any) -> None:
    """9, litellm#40294: an empty answer was cached and replayed as a 500."""
    body = chat(stream=isinstance(answer, bytes))
    async with doorway(stub=Canned(answer)) as door:
        told = [await door.ask(CHAT, body) for _ in range(2)]
        assert [each.cache for each in told] == ["miss", "miss"]
        assert told[0].raw == told[1].raw
        assert told[0].status == 200


FAILED: list[Any] = [
    chat("[error 500]"),
    chat("[error 429]"),
    chat("[error 503]", stream=True),
    chat("[error in stream]", stream=True),
    chat("[cut]"),
    chat("[cut]", stream=True),
]


@pytest.mark.parametrize("body", FAILED, ids=lambda b: str(b["messages"][0]["content"]))
async def test_item_10_a_failure_is_not_kept_and_does_not_outlive_the_outage(body: Any) -> None:
    """10, Devwhisper#293: the message of a failure was cached."""
    async with doorway() as door:
        assert await door.caches(CHAT, body, body) == ["miss", "miss"]
        assert door.calls == 2


async def test_item_10_an_error_with_status_200_is_not_kept() -> None:
    """10: gateways and self-hosted servers say 200 and put the error into the body."""
    failed = {"error": {"message": "overloaded", "type": "server_error", "code": 503}}
    good = {
        **ANSWER,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "yes"},
                "finish_reason": "stop",
            }
        ],
    }
    async with doorway(stub=Canned(failed, good)) as door:
        assert await door.caches(CHAT, chat(), chat(), chat()) == ["miss", "miss", "hit"]
        assert said(await door.ask(CHAT, chat())) == "yes"


async def test_item_11_a_conversation_that_is_run_again_hits_at_every_turn() -> None:
    """11, zeph#1372, litellm#21906: a growing history was said to make an exact cache dead code."""
    history: list[dict[str, Any]] = [{"role": "system", "content": "You are an agent."}]
    bodies: list[dict[str, Any]] = []
    async with doorway() as door:
        for turn in range(12):
            history.append({"role": "user", "content": f"step {turn}"})
            bodies.append({"model": "gpt-4o", "messages": list(history)})
            told = await door.ask(CHAT, bodies[-1])
            assert told.cache == "miss"
            history.append({"role": "assistant", "content": said(told)})
        assert await door.caches(CHAT, *bodies) == ["hit"] * 12
        # One word another in the first turn, and nothing of it is known.
        history[1]["content"] = "step zero"
        assert (await door.ask(CHAT, {"model": "gpt-4o", "messages": history})).cache == "miss"
