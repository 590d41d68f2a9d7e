"""The fake engine, asked as its users ask it: its cache, its queue, its answers, its faults."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import openai
import pytest

from gateway.core.engine_metrics import engine_state
from gateway.lab.engine_cache import BlockCache, Slots
from gateway.lab.engine_prompt import BLOCK_TOKENS, Prompt
from gateway.lab.engine_server import ENGINES, NAME_HEADER, EngineServer
from gateway.providers.engine_metrics import ENGINE_METRICS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LONG = "The house rules, word by word. " * 100
"""775 tokens."""
FAST: dict[str, Any] = {"prefill_rate": 1e6, "decode_s": 0.0}
DEADLINE_S = 10.0


def chat(*said: str, **more: Any) -> dict[str, Any]:
    """A conversation: user, assistant, user, ... behind a long system prompt."""
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)]
    messages = [{"role": "system", "content": LONG}, *turns]
    return {"model": "simulated", "messages": messages, **more}


class Asking:
    """A client of one engine."""

    def __init__(self, engine: EngineServer, session: aiohttp.ClientSession) -> None:
        self._engine = engine
        self._session = session

    async def post(
        self, path: str, body: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        async with self._session.post(self._engine.url + path, json=body or {}) as response:
            return response.status, await response.json(content_type=None)

    async def get(self, path: str) -> Any:
        async with self._session.get(self._engine.url + path) as response:
            return await response.json(content_type=None)

    async def text(self, path: str) -> str:
        async with self._session.get(self._engine.url + path) as response:
            return await response.text()

    async def ask(self, body: dict[str, Any]) -> dict[str, Any]:
        status, answer = await self.post("/v1/chat/completions", body)
        assert status == 200, answer
        return answer


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[tuple[EngineServer, Asking]]:
    async with (
        asyncio.timeout(30),
        EngineServer(**{**FAST, **settings}) as engine,
        aiohttp.ClientSession() as session,
    ):
        yield engine, Asking(engine, session)


def cached(answer: dict[str, Any]) -> int:
    return int((answer["usage"].get("prompt_tokens_details") or {}).get("cached_tokens", 0))


def content(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"])


# --- the caches -----------------------------------------------------------------------------------


def prompt(*blocks: int, tail: bytes = b"") -> Prompt:
    return Prompt(b"".join(bytes([b]) * BLOCK_TOKENS * 4 for b in blocks) + tail)


def test_only_full_blocks_are_kept_and_the_last_token_is_always_computed() -> None:
    cache = BlockCache(100 * BLOCK_TOKENS)
    cache.keep(prompt(1, 2, tail=b"and a half"))

    assert cache.tokens == 2 * BLOCK_TOKENS
    assert cache.held(prompt(1, 2)) == BLOCK_TOKENS
    assert cache.held(prompt(1, 2, tail=b"x")) == 2 * BLOCK_TOKENS
    assert cache.held(prompt(2, 1, tail=b"x")) == 0


def test_a_full_cache_forgets_the_oldest_prompt_from_its_tail_on() -> None:
    cache = BlockCache(4 * BLOCK_TOKENS)
    cache.keep(prompt(1, 2, 3))
    cache.keep(prompt(7, 8))

    assert cache.held(prompt(1, 2, 3, tail=b"x")) == 2 * BLOCK_TOKENS
    assert cache.held(prompt(7, 8, tail=b"x")) == 2 * BLOCK_TOKENS


def test_another_model_or_salt_shares_nothing() -> None:
    cache = BlockCache(1000)
    cache.keep(prompt(1, 2))

    assert cache.held(prompt(1, 2, tail=b"x")._replace(seed=5)) == 0


def test_eleven_prompts_in_turn_never_meet_their_slot_of_ten() -> None:
    slots = Slots(10, 10_000)
    prompts = [prompt(i, i, i) for i in range(11)]
    held = []
    for each in prompts * 3:
        slot = slots.take(each)
        assert slot is not None
        held.append(slot.held(each))
        slot.text, slot.busy = each.text, False

    assert sum(held) == 0


def test_a_slot_is_taken_by_what_it_holds_or_by_its_number() -> None:
    slots = Slots(3, 3000)
    for i in range(3):
        slot = slots.take(prompt(i, i))
        assert slot is not None
        slot.text, slot.busy = prompt(i, i).text, False

    similar, wanted = slots.take(prompt(1, 1, 9)), slots.take(prompt(1, 1), wanted=2)

    assert similar is not None
    assert wanted is not None
    assert (similar.number, wanted.number) == (1, 2)
    assert slots.take(prompt(5), wanted=2) is None


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
async def test_the_next_turn_finds_prompt_and_answer_cached(engine: str) -> None:
    async with running(engine=engine, tells_cached=True) as (_, asking):
        first = await asking.ask(chat("One?"))
        second = await asking.ask(chat("One?", content(first), "Two?"))

    assert cached(first) == 0
    spent = first["usage"]["prompt_tokens"] + first["usage"]["completion_tokens"]
    assert cached(second) >= spent - 2 * BLOCK_TOKENS
    assert cached(second) < second["usage"]["prompt_tokens"]


async def test_vllm_says_nothing_of_nothing_and_sglang_only_where_it_is_told_to() -> None:
    told = {}
    for engine, flag in (("vllm", None), ("vllm", False), ("sglang", None), ("sglang", True)):
        async with running(engine=engine, tells_cached=flag) as (_, asking):
            answers = [await asking.ask(chat("One?")) for _ in range(2)]
        told[engine, flag] = [a["usage"].get("prompt_tokens_details") for a in answers]

    assert told["vllm", None][0] is None
    assert told["vllm", None][1]["cached_tokens"] > 700
    assert told["vllm", False] == [None, None]
    assert told["sglang", None] == [None, None]
    assert told["sglang", True][0] == {"cached_tokens": 0}


async def test_llamacpps_timings_say_what_was_cached_whole_and_streamed() -> None:
    async with (
        running(engine="llamacpp") as (engine, asking),
        openai.AsyncOpenAI(base_url=engine.v1_url, api_key="none", max_retries=0) as client,
    ):
        first = await asking.ask(chat("One?"))
        body: Any = chat("One?", content(first), "Two?")
        chunks = [c async for c in await client.chat.completions.create(**body, stream=True)]

    assert first["timings"]["cache_n"] == 0
    assert first["timings"]["prompt_n"] == first["usage"]["prompt_tokens"]
    timings = chunks[-1].model_extra["timings"]
    assert timings["cache_n"] > 750
    assert timings["cache_n"] + timings["prompt_n"] > first["usage"]["prompt_tokens"]


async def test_answers_are_as_long_as_allowed_and_the_same_from_every_replica_of_a_seed() -> None:
    said = []
    for seed in (0, 0, 1):
        async with running(seed=seed, name=f"replica-{seed}") as (_, asking):
            answer = await asking.ask(chat("One?", max_tokens=50))
        assert answer["usage"]["completion_tokens"] == 50
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["system_fingerprint"] == f"replica-{seed}"
        said.append(content(answer))

    assert said[0] == said[1] != said[2]


@pytest.mark.parametrize("path", ["chat", "completions", "responses"])
async def test_the_official_sdk_reads_the_same_answer_streamed_and_whole(path: str) -> None:
    async with (
        running() as (engine, _),
        openai.AsyncOpenAI(base_url=engine.v1_url, api_key="none", max_retries=0) as client,
    ):
        asked: dict[str, Any] = {"model": "simulated"}
        whole: Any
        if path == "chat":
            told = {**chat("One?"), "max_tokens": 9, "temperature": 0}
            whole = await client.chat.completions.create(**told)
            options: Any = {"include_usage": True}
            chunks: list[Any] = [
                c
                async for c in await client.chat.completions.create(
                    **told, stream=True, stream_options=options
                )
            ]
            texts = [c.choices[0].delta.content or "" for c in chunks if c.choices]
            text, usage = whole.choices[0].message.content, chunks[-1].usage
            assert usage.prompt_tokens_details.cached_tokens > 700
        elif path == "completions":
            told = {**asked, "prompt": LONG, "max_tokens": 9}
            whole = await client.completions.create(**told)
            chunks = [c async for c in await client.completions.create(**told, stream=True)]
            texts, text = [c.choices[0].text for c in chunks], whole.choices[0].text
        else:
            told = {**asked, "input": LONG, "max_output_tokens": 9}
            whole = await client.responses.create(**told)
            events: list[Any] = [
                e async for e in await client.responses.create(**told, stream=True)
            ]
            texts = [e.delta for e in events if e.type == "response.output_text.delta"]
            text = whole.output_text
            assert events[-1].response.usage.input_tokens_details.cached_tokens > 700

    assert "".join(texts) == text
    assert text


async def test_what_is_no_request_is_refused() -> None:
    async with running() as (_, asking):
        refused = [
            await asking.post(path, body)
            for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses")
            for body in ({}, {"messages": "x", "prompt": 5, "input": {"a": 1}})
        ]

    assert {status for status, _ in refused} == {400}
    assert all(body["error"]["message"] for _, body in refused)


async def test_a_prompt_longer_than_a_slot_is_refused_in_llamacpps_words() -> None:
    async with running(engine="llamacpp", cache_tokens=2000, slots=4) as (_, asking):
        status, body = await asking.post("/v1/chat/completions", chat("One?"))

    assert status == 400
    assert body["error"]["type"] == "exceed_context_size_error"


# --- time -----------------------------------------------------------------------------------------


async def test_prompts_wait_for_each_other_at_the_prefill_rate_and_cached_ones_hardly() -> None:
    async with running(prefill_rate=8000.0) as (engine, asking):
        began = time.perf_counter()
        await asyncio.gather(*(asking.ask(chat("One?", cache_salt=str(i))) for i in range(4)))
        cold_s = time.perf_counter() - began
        began = time.perf_counter()
        await asking.ask(chat("One?", cache_salt="0"))
        warm_s = time.perf_counter() - began
        tokens = engine.work.prompt_tokens / 5

    # Never faster than its rate; how much slower is the machine's business.
    assert cold_s >= 4 * tokens / 8000
    assert warm_s < cold_s / 3


async def test_who_hangs_up_while_waiting_costs_nothing() -> None:
    async with running(prefill_rate=400.0) as (engine, asking):
        waiting = [
            asyncio.ensure_future(asking.ask(chat("One?", cache_salt=str(i)))) for i in range(3)
        ]
        await until(lambda: engine.work.waiting == 2 and engine.work.running == 1)
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await until(lambda: engine.work.waiting == 0 and engine.work.running == 0)
        engine.work.rate = 1e6
        answer = await asking.ask(chat("One?"))

    assert cached(answer) == 0
    assert engine.work.requests == 1
    assert engine.work.running_tokens == 0


async def test_a_request_waits_for_its_slot() -> None:
    async with running(engine="llamacpp", slots=1, decode_s=0.002) as (engine, asking):
        first = asyncio.ensure_future(asking.ask(chat("One?")))
        await until(lambda: engine.work.running == 1)
        second = asyncio.ensure_future(asking.ask(chat("Two?")))
        await until(lambda: engine.work.waiting == 1)
        answers = await asyncio.gather(first, second)

    assert cached(answers[1]) > 700


# --- what it tells --------------------------------------------------------------------------------


@pytest.mark.parametrize("old_names", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
async def test_the_gateway_reads_its_metrics_by_new_names_and_old_ones(
    engine: str, old_names: bool
) -> None:
    async with running(engine=engine, old_names=old_names, decode_s=0.01) as (served, asking):
        await asking.ask(chat("One?"))
        going = asyncio.ensure_future(asking.ask(chat("One?", max_tokens=400)))
        await until(lambda: served.work.running == 1 and served.work.requests == 2)
        state = engine_state(await asking.text("/metrics"), ENGINE_METRICS[engine])
        going.cancel()

    assert state is not None
    assert (state.running, state.waiting) == (1, 0)
    assert state.kv_usage is None if engine == "llamacpp" and not old_names else state.kv_usage
    if engine == "llamacpp" and old_names:
        assert state.queried_tokens is None
    else:
        assert state.queried_tokens == served.work.prompt_tokens
        assert state.hit_tokens == served.work.cached_tokens > 700


async def test_llamacpp_tells_its_slots() -> None:
    async with running(engine="llamacpp", slots=2, cache_tokens=8000) as (_, asking):
        await asking.ask(chat("One?"))
        slots, props = await asking.get("/slots"), await asking.get("/props")

    assert [slot["n_ctx"] for slot in slots] == [4000, 4000]
    assert [slot["is_processing"] for slot in slots] == [False, False]
    assert props["total_slots"] == 2
    assert props["default_generation_settings"]["n_ctx"] == 4000


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
async def test_it_is_well_and_lists_its_model_and_resets_its_cache(engine: str) -> None:
    async with running(engine=engine, tells_cached=True) as (_, asking):
        assert await asking.text("/health") == ""
        assert (await asking.get("/v1/models"))["data"][0]["id"] == "simulated"
        await asking.ask(chat("One?"))
        await asking.post("/reset_prefix_cache" if engine == "vllm" else "/flush_cache")
        again = await asking.ask(chat("One?"))

    assert cached(again) == 0


# --- faults ---------------------------------------------------------------------------------------


async def test_it_fails_drops_and_cuts_as_often_as_it_is_told() -> None:
    async with running() as (_, asking):
        await asking.post("/sim/fail?times=2&status=529")
        await asking.post("/sim/drop")
        await asking.post("/sim/cut?times=2")
        statuses = [(await asking.post("/v1/chat/completions", chat("One?")))[0] for _ in range(2)]
        for streamed in (False, False, True):
            with pytest.raises(aiohttp.ClientError):
                await asking.post("/v1/chat/completions", chat("One?", stream=streamed))
        answer = await asking.ask(chat("One?"))

    assert statuses == [529, 529]
    assert cached(answer) > 700


async def test_a_hung_engine_says_nothing_until_it_goes_on() -> None:
    async with running() as (engine, asking):
        await asking.post("/sim/hang?probes=answer")
        assert await asking.text("/health") == ""
        await asking.post("/sim/hang")
        asked = [
            asyncio.ensure_future(asking.text("/health")),
            asyncio.ensure_future(asking.ask(chat("One?"))),
        ]
        state = await asking.get("/sim/state")
        assert state["hangs"]
        assert not any(each.done() for each in asked)
        await asking.post("/sim/go")
        await asyncio.gather(*asked)

    assert not engine.faults.is_hung


async def test_a_slow_engine_takes_so_many_times_longer() -> None:
    async with running(prefill_rate=1e5) as (engine, asking):
        await asking.post("/sim/slow?factor=20")
        began = time.perf_counter()
        await asking.ask(chat("One?"))
        took_s = time.perf_counter() - began

    assert took_s >= 20 * engine.work.prompt_tokens / 1e5


async def test_it_refuses_connections_for_a_while() -> None:
    async with running() as (_, asking):
        await asking.post("/sim/refuse?seconds=0.2")
        with pytest.raises(aiohttp.ClientConnectionError):
            await fresh(asking)
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    await fresh(asking)
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.02)
                else:
                    break


async def test_a_wrong_command_is_said_to_be() -> None:
    async with running() as (_, asking):
        answers = [await asking.post(f"/sim/{each}") for each in ("slow", "fail?times=x")]

    assert [status for status, _ in answers] == [400, 400]


async def test_it_dies_in_the_middle_and_comes_back_on_its_port_with_nothing() -> None:
    async with running(decode_s=0.01) as (engine, asking):
        await asking.ask(chat("One?", max_tokens=1))
        port = engine.port
        going = asyncio.ensure_future(asking.ask(chat("One?", max_tokens=1000)))
        await until(lambda: engine.work.running == 1)
        with pytest.raises(aiohttp.ClientError):
            await asking.post("/sim/die")
        with pytest.raises(aiohttp.ClientError):
            await going
        with pytest.raises(aiohttp.ClientConnectionError):
            await fresh(asking)
        assert engine.is_dead
        await engine.restart()
        answer = await asking.ask(chat("One?", max_tokens=1))

    assert engine.port == port
    assert cached(answer) == 0


@pytest.mark.parametrize("engine", ENGINES)
async def test_vllm_and_llamacpp_send_the_head_of_a_stream_before_its_prompt_is_computed(
    engine: str,
) -> None:
    async with running(engine=engine) as (served, asking):
        served.faults.hang()
        asked = asking._session.post(f"{served.v1_url}/chat/completions", json=chat(stream=True))
        sent = asyncio.ensure_future(asked.__aenter__())
        served.work.rate = 1e-3
        served.faults.go()
        await until(lambda: served.work.running == 1)
        if engine != "sglang":
            response = await sent
            assert response.status == 200
            response.close()
        assert sent.done() is (engine != "sglang")
        sent.cancel()
        await asyncio.gather(sent, return_exceptions=True)


async def test_it_names_itself_in_every_answer() -> None:
    async with running(name="blue") as (engine, _), aiohttp.ClientSession() as session:
        names = []
        for body in (chat("One?"), chat("One?", stream=True), {}):
            async with session.post(f"{engine.v1_url}/chat/completions", json=body) as response:
                names.append(response.headers[NAME_HEADER])

    assert names == ["blue"] * 3


async def until(met: Any) -> None:
    """Wait for what another task does."""
    async with asyncio.timeout(DEADLINE_S):
        while not met():  # noqa: ASYNC110 - the engine has no condition to wait on
            await asyncio.sleep(0.002)


async def fresh(asking: Asking) -> str:
    """A probe over a connection of its own."""
    async with aiohttp.ClientSession() as session:
        return await Asking(asking._engine, session).text("/health")
