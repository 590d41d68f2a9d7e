"""Real engines: llama.cpp servers behind the gateway as a process, with round robin beside it.

Each server keeps as many prompts as there are slots, three; there are six conversations. Whoever sends
a conversation to another server each turn computes its 4k tokens again and again.
"""

from __future__ import annotations

import random
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import pytest
from multidict import CIMultiDict

from gateway.benchcmd.asker import Asker
from gateway.benchcmd.dialect import Message, OpenAIChat
from gateway.config import Config
from gateway.telemetry.spans import NULL_ATTEMPT
from gateway.upstream.choice import Choice
from gateway.upstream.client import Call, UpstreamClient
from gateway.upstream.engines import Engines
from tests.helpers.gateway_process import GatewayProcess
from tests.helpers.gguf_model import WORDS, write_model
from tests.helpers.llamacpp import LlamaCpp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.benchcmd.asker import Timed
    from gateway.upstream.choice import Endpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

SLOTS = 3
SLOT_TOKENS = 8192
PROMPTS = 6
PREFIX_TOKENS = 4096
TURNS = 3
ANSWER_TOKENS = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "random.gguf"
    write_model(path)
    return path


class Measured(NamedTuple):
    """Seconds to first tokens."""

    first: list[Timed]
    later: list[Timed]

    @property
    def speed_up(self) -> float:
        """How many times sooner a later one begins; of means: who is slow now and then is slow."""
        return fmean(t.ttft_s for t in self.first) / fmean(t.ttft_s for t in self.later)

    @property
    def cached(self) -> float:
        """Part of the later prompts that was cached."""
        cached = sum(each.cached_tokens or 0 for each in self.later)
        return cached / sum(each.prompt_tokens or 0 for each in self.later)

    def line(self, name: str) -> str:
        first, later = ([each.ttft_s for each in of] for of in (self.first, self.later))
        return (
            f"{name}: first {fmean(first):.3f} s (median {median(first):.3f}), later "
            f"{fmean(later):.3f} s (median {median(later):.3f}), speed-up {self.speed_up:.2f}, "
            f"{self.cached:.1%} of later prompts cached"
        )


class Texts:
    """Prompts of words that are one token each, none like another."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def words(self, number: int) -> str:
        return " ".join(self.random.choice(WORDS) for _ in range(number))

    def shuffled(self) -> Iterator[int]:
        """All prompts, in an order of its own each time."""
        return iter(self.random.sample(range(PROMPTS), PROMPTS))


async def conversations(asker: Asker, texts: Texts, turns: int = TURNS) -> Measured:
    """All of them a turn, then all the next."""
    measured = Measured([], [])
    histories = [
        [Message("system", texts.words(PREFIX_TOKENS)), Message("user", texts.words(16))]
        for _ in range(PROMPTS)
    ]
    for turn in range(turns):
        for number in texts.shuffled():
            timed = await asker.ask(histories[number], ANSWER_TOKENS)
            (measured.later if turn else measured.first).append(timed)
            histories[number] += [
                Message("assistant", timed.text),
                Message("user", texts.words(16)),
            ]
    return measured


async def questions(asker: Asker, texts: Texts, turns: int = TURNS) -> Measured:
    """About the same long texts, each by itself."""
    measured = Measured([], [])
    heads = [Message("system", texts.words(PREFIX_TOKENS)) for _ in range(PROMPTS)]
    for turn in range(turns):
        for number in texts.shuffled():
            asked = [heads[number], Message("user", texts.words(16))]
            timed = await asker.ask(asked, ANSWER_TOKENS)
            (measured.later if turn else measured.first).append(timed)
    return measured


def asker(gateway: GatewayProcess, upstream: str) -> Asker:
    asker = Asker(f"{gateway.api_url}/u/{upstream}/v1", OpenAIChat(), key=None, timeout_s=60)
    asker.model = "random"
    return asker


async def metrics(gateway: GatewayProcess) -> str:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{gateway.probe_url}/metrics") as answer,
    ):
        assert answer.status == 200
        return await answer.text()


def total(page: str, name: str) -> float:
    """Of all series of this metric that are our pool's."""
    lines = [line for line in page.splitlines() if line.startswith(f"{name}{{")]
    values = [float(line.split()[-1]) for line in lines if 'upstream="ours"' in line]
    assert values, f"no {name}"
    return sum(values)


def pool(engines: list[LlamaCpp], **routing: Any) -> dict[str, Any]:
    backends = [{"url": f"{e.url}/v1", "name": f"e{n}"} for n, e in enumerate(engines)]
    return {"engine": "llamacpp", "backends": backends, "routing": routing}


async def test_conversations_and_prefixes_begin_sooner_than_with_round_robin(model: Path) -> None:
    async with (
        LlamaCpp(model, slots=SLOTS) as one,
        LlamaCpp(model, slots=SLOTS) as other,
        GatewayProcess(
            {
                "upstreams": {
                    "ours": pool([one, other]),
                    "turns": pool([one, other], policy="round_robin"),
                }
            }
        ) as gateway,
    ):
        async with asker(gateway, "ours") as ours:
            talked = await conversations(ours, Texts(1))
            asked = await questions(ours, Texts(2))
            after = await metrics(gateway)
        async with asker(gateway, "turns") as turns:
            talked_in_turn = await conversations(turns, Texts(3), turns=2)
            asked_in_turn = await questions(turns, Texts(4), turns=2)

    expected, reported = (
        total(after, name)
        for name in ("gateway_route_expected_total", "gateway_route_reported_total")
    )
    print()
    print(talked.line("conversations"))
    print(talked_in_turn.line("conversations, round robin"))
    print(asked.line("prefixes"))
    print(asked_in_turn.line("prefixes, round robin"))
    print(f"cached tokens: {expected:,.0f} expected, {reported:,.0f} reported")
    assert talked.speed_up >= 2.0
    assert asked.speed_up >= 2.5
    assert talked.speed_up > talked_in_turn.speed_up
    assert asked.speed_up > asked_in_turn.speed_up
    assert expected == pytest.approx(reported, rel=0.1)
    assert total(after, "gateway_engine_kv_capacity") == 2 * SLOTS * SLOT_TOKENS


@pytest.mark.parametrize("tells_slots", [True, False])
async def test_the_slots_of_a_real_server_are_read(model: Path, tells_slots: bool) -> None:
    client = UpstreamClient()
    await client.start()

    def ask(endpoint: Endpoint, url: str) -> Call:
        return client.call("GET", url, CIMultiDict(), None, endpoint, lambda _: NULL_ATTEMPT)

    try:
        async with LlamaCpp(model, slots=SLOTS, tells_slots=tells_slots) as server:
            gpu = {"base_url": f"{server.url}/v1", "engine": "llamacpp", "metrics_interval_s": 60}
            config = Config.model_validate({"upstreams": {"gpu": gpu}})
            engines = Engines(Choice(config).endpoints.values(), ask, lambda: 0.0)
            await engines.read(engines["gpu"])
            (told,) = engines.told().values()
            await engines.close(0.0)
    finally:
        await client.close()

    assert (told["slots"], told["capacity_tokens"]) == (SLOTS, SLOTS * SLOT_TOKENS)
    assert (told["running"], told["waiting"], told["failure"]) == (0, 0, None)
