"""For each cause of a prompt-cache miss a story through a whole gateway, before a simulated provider
that knows the truth: the gateway names it, with the place, on every surface.
"""

from __future__ import annotations

import re
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import pytest
from structlog.testing import capture_logs

from gateway.app import start
from gateway.cache import Clock
from gateway.config import Config
from gateway.core.miss import Miss, MissCause
from gateway.lab.provider_sim import ProviderSim
from gateway.lab.sim_losses import Losses
from tests.helpers import engine_pool as engines
from tests.helpers.doorway import CHAT, MESSAGES, Doorway, Told
from tests.helpers.gateway_here import settings
from tests.helpers.otlp_collector import Collector, Span, otlp_collector
from tests.helpers.scripted_upstream import serve_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

CLAUDE, GPT, OLD_GPT = "claude-sonnet-4-5", "gpt-5.6-sol", "gpt-4.1"
RULES = "".join(
    f"Rule {n}: ships of class {n} pay {n} crowns at pier {n % 7}.\n" for n in range(200)
)
"""About 2,600 tokens, no line like another."""
STAMPS = ("2026-11-22T10:15:07Z", "2026-11-22T10:16:41Z")
UUIDS = ("0f8fad5b-d9cb-469f-a165-70867728950e", "7c9e6679-7425-40de-944b-e07fc1f90ae7")
MARK = {"type": "ephemeral"}


class Time:
    """A clock that both sides are told."""

    now = 1_763_800_000.0

    def __call__(self) -> float:
        return self.now


class Asked(NamedTuple):
    """One request: what it missed, and what was told of it."""

    true: Miss | None
    span: dict[str, Any]
    """What its trace says of the provider's prompt cache, by the ends of the names."""
    counted: dict[str, float]
    """Misses by cause and kind, since the start."""
    line: Mapping[str, Any]
    """Of the log."""
    answer: Told


class Scene:
    """A gateway before a simulated provider that judges."""

    def __init__(self, door: Doorway, sim: ProviderSim, time: Time, traces: Collector) -> None:
        self.door = door
        self.sim = sim
        self.time = time
        self._traces = traces
        self._asked = 0

    async def ask(
        self, body: dict[str, Any], path: str = MESSAGES, after: float = 10.0, **headers: str
    ) -> Asked:
        self.time.now += after
        with capture_logs() as lines:
            told = await self.door.ask(path, body, **headers)
        assert told.status == 200, told.raw
        (line,) = [each for each in lines if each["event"] == "request"]
        self._asked += 1
        await self._traces.wait_for(lambda c: len(_servers(c)) == self._asked)
        span = _servers(self._traces)[-1].attributes
        said = {
            name.removeprefix(_PREFIX): value
            for name, value in span.items()
            if name.startswith(_PREFIX)
        }
        page = await self.door.metrics()
        return Asked(self.sim.misses[-1], said, _counted(page), line, told)


_PREFIX = "gateway.prompt_cache."


def _servers(traces: Collector) -> list[Span]:
    return [each for each in traces.spans if each.kind == "SERVER"]


def _counted(page: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for line in page.splitlines():
        if line.startswith("gateway_prompt_cache_misses_total{"):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
            name = " ".join(filter(None, (labels["cause"], labels.get("kind"))))
            found[name] = found.get(name, 0.0) + float(line.rpartition(" ")[2])
    return found


@asynccontextmanager
async def scene(
    losses: Callable[[], Losses] | None = None, **sections: Any
) -> AsyncIterator[Scene]:
    time = Time()
    sim = ProviderSim(clock=time, judges=True, remember=300, losses=losses)
    async with before(sim, time, **sections) as here:
        yield here


@asynccontextmanager
async def before(sim: ProviderSim, time: Time, **sections: Any) -> AsyncIterator[Scene]:
    """A gateway that has seen nothing yet, before this provider."""
    async with otlp_collector() as traces, AsyncExitStack() as stack:
        base = await stack.enter_async_context(serve_app(sim.app()))
        given = {"cache": {"when": "off"}, "telemetry": {"traces": "on"}, **sections}
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": traces.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "5",
        }
        clock = Clock(now=time, monotonic=time)
        gateway = await start(Config.model_validate(settings(base, **given)), environ, clock)
        stack.push_async_callback(gateway.stop)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Scene(Doorway(sim, gateway, session), sim, time, traces)


def tool(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "description": f"Looks something up in the book of {name}. " * 20,
        "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}},
    }


TOOLS = [tool(name) for name in ("berths", "cranes", "tides")]


def said(*texts: str) -> list[dict[str, Any]]:
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]


def turn(*texts: str, system: str = RULES, **more: Any) -> dict[str, Any]:
    """A request of a conversation with an agent at Anthropic's."""
    messages = said(*(texts or ("Which ship leaves first?",)))
    return {"model": CLAUDE, "max_tokens": 64, "system": system, "messages": messages, **more}


def chat(*texts: str, model: str = GPT, system: str = RULES, **more: Any) -> dict[str, Any]:
    """The same at OpenAI's."""
    lead = {"role": "system", "content": system}
    return {"model": model, "messages": [lead, *said(*texts)], **more}


def expect(asked: Asked, cause: MissCause, path: str = "", kind: str = "") -> None:
    """The truth is as the story has it, and is told: on the span, in the metrics and the log; in the
    header, too, where it can be known before the answer.
    """
    assert asked.true is not None
    assert asked.true.cause is cause
    _expect_told(asked, cause, path, kind)
    header = asked.answer.headers.get("x-gateway-prompt-cache", "")
    if cause not in {MissCause.EVICTED, MissCause.OTHER_BACKEND}:
        words = [f"cause={cause.value}"]
        words += [f"path={path}", f"kind={kind}"] if path else []
        assert header.split("; ")[1:] == words


def _expect_told(asked: Asked, cause: MissCause, path: str, kind: str) -> None:
    told, line = asked.span, asked.line
    assert told["miss_cause"] == line["cache_miss"] == cause.value
    assert (told.get("miss.path", ""), told.get("miss.kind", "")) == (path, kind)
    assert (line.get("cache_miss_path", ""), line.get("cache_miss_kind", "")) == (path, kind)
    assert asked.counted[" ".join(filter(None, (cause.value, kind)))] == 1.0


def expect_none(asked: Asked) -> None:
    """Nothing was missed, and nothing is told."""
    assert asked.true is None
    assert "miss_cause" not in asked.span
    assert "cache_miss" not in asked.line
    assert "cause" not in asked.answer.headers.get("x-gateway-prompt-cache", "")


# --- nothing to read ----------------------------------------------------------------------------


async def test_a_prompt_that_nobody_has_sent_is_cold_and_its_next_turn_misses_nothing() -> None:
    async with scene() as here:
        expect(await here.ask(turn()), MissCause.COLD)
        goes_on = await here.ask(turn("Which ship leaves first?", "The Ada.", "And then?"))
        expect_none(goes_on)


async def test_a_prompt_that_is_too_short_for_the_model_is_below_the_minimum() -> None:
    async with scene() as here:
        expect(await here.ask(turn(system="Be brief.")), MissCause.BELOW_MINIMUM)


@pytest.mark.parametrize(("path", "ttl_s"), [(MESSAGES, 300), (CHAT, 1800)])
async def test_what_was_used_longer_ago_than_it_lives_has_expired(path: str, ttl_s: int) -> None:
    made = turn if path == MESSAGES else chat
    async with scene() as here:
        await here.ask(made("Which ship?"), path)
        await here.ask(made("Which ship?", "The Ada.", "And then?"), path)
        late = await here.ask(
            made("Which ship?", "The Ada.", "And then?", "The Bee.", "And?"), path, ttl_s + 1.0
        )
        expect(late, MissCause.TTL_EXPIRED)


# --- what was changed ---------------------------------------------------------------------------

MARKED_TOOLS = [*TOOLS[:-1], {**TOOLS[-1], "cache_control": MARK}]
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "a timestamp": (
        turn(system=f"Current time: {STAMPS[0]}\n{RULES}"),
        turn(system=f"Current time: {STAMPS[1]}\n{RULES}"),
        "$.system",
        "timestamp",
    ),
    "a request's id": (
        turn(system=f"Request id: {UUIDS[0]}\n{RULES}"),
        turn(system=f"Request id: {UUIDS[1]}\n{RULES}"),
        "$.system",
        "uuid",
    ),
    "the order of the tools": (
        turn(tools=TOOLS),
        turn(tools=[TOOLS[1], TOOLS[0], TOOLS[2]]),
        "$.tools[0]",
        "tool_order",
    ),
    "another tool": (
        turn(tools=TOOLS),
        turn(tools=[TOOLS[0], tool("pilots"), TOOLS[2]]),
        "$.tools[1]",
        "tools",
    ),
    "another model": (turn(), turn(model="claude-opus-4-1"), "$.model", "model"),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_what_was_changed_is_named_with_its_place(change: str) -> None:
    before, after, path, kind = CHANGES[change]
    async with scene() as here:
        await here.ask(before)
        expect(await here.ask(after), MissCause.PREFIX_CHANGED, path, kind)


LONG_TALK = [f"Question {n}: " + f"what of pier {n}, and why? " * 60 for n in range(6)]


async def test_a_tool_that_must_be_used_parts_the_conversation_but_not_the_system_prompt() -> None:
    talk = LONG_TALK[:5]
    async with scene() as here:
        for turns in (1, 3, 5):
            await here.ask(turn(*talk[:turns], tools=TOOLS))
        forced = await here.ask(turn(*talk, tools=TOOLS, tool_choice={"type": "any"}))
        expect(forced, MissCause.PREFIX_CHANGED, "$.tool_choice", "tool_choice")


async def test_an_earlier_turn_that_was_edited_is_named() -> None:
    talk = LONG_TALK[:5]
    async with scene() as here:
        for turns in (1, 3, 5):
            await here.ask(turn(*talk[:turns]))
        edited = ["Question 0 in other words. " * 30, *talk[1:], "Noted.", "And then?"]
        expect(
            await here.ask(turn(*edited)),
            MissCause.PREFIX_CHANGED,
            "$.messages[0].content",
            "history",
        )


# --- what was there and not read ----------------------------------------------------------------


def many(blocks: int) -> list[dict[str, Any]]:
    return [
        {"type": "text", "text": f"Note {n}: the tide at pier {n} is high."} for n in range(blocks)
    ]


async def test_what_lies_further_back_than_is_looked_from_the_clients_marks_is_named() -> None:
    def marked(blocks: int) -> dict[str, Any]:
        parts = many(blocks)
        parts[-1]["cache_control"] = MARK
        return {**turn(), "messages": [{"role": "user", "content": parts}]}

    async with scene(prompt_cache={"markers": "respect"}) as here:
        await here.ask(marked(2))
        expect(await here.ask(marked(40)), MissCause.LOOKBACK_EXCEEDED)


async def test_what_the_provider_dropped_is_called_evicted() -> None:
    async with scene(losses=lambda: Losses(capacity=1)) as here:
        await here.ask(turn("Which ship leaves first?"))
        await here.ask(turn(system="Another harbour. " + RULES[::-1]))
        expect(
            await here.ask(turn("Which ship leaves first?", "The Ada.", "And then?")),
            MissCause.EVICTED,
        )


async def test_a_prefix_that_is_asked_for_too_often_goes_to_another_machine() -> None:
    async with scene(prompt_cache={"hints": False}) as here:
        asked = [
            await here.ask(chat(f"Question {n}?", model=OLD_GPT), CHAT, after=1.0)
            for n in range(17)
        ]
        for each in asked[1:15]:
            expect_none(each)
        expect(asked[15], MissCause.OTHER_BACKEND)


# --- what only the provider knows ----------------------------------------------------------------


async def test_a_change_that_only_the_provider_can_know_of_is_told_in_its_words() -> None:
    async with scene() as here:
        first = await here.ask(turn(diagnostics={"previous_message_id": None}))
        named = first.answer.document["id"]
        assert first.span["miss_cause"] == "cold"
        # A gateway that has seen nothing of the turn before.
        async with before(here.sim, here.time) as after:
            changed = turn(system="Now: " + RULES, diagnostics={"previous_message_id": named})
            told = await after.ask(changed)
            assert told.answer.document["diagnostics"]["cache_miss_reason"]["type"] == (
                "system_changed"
            )
            _expect_told(told, MissCause.PROVIDER, "", "system_changed")


async def test_a_provider_that_names_the_change_we_know_of_changes_nothing() -> None:
    async with scene() as here:
        first = await here.ask(turn(tools=TOOLS, diagnostics={"previous_message_id": None}))
        turned = turn(
            tools=TOOLS[::-1],
            diagnostics={"previous_message_id": first.answer.document["id"]},
        )
        expect(await here.ask(turned), MissCause.PREFIX_CHANGED, "$.tools[0]", "tool_order")


async def test_who_shares_a_cache_is_told_of_changes_to_its_own_prompts_alone() -> None:
    sim = ProviderSim()
    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(serve_app(sim.app()))
        ours = {"provider": "anthropic", "base_url": f"{base}/v1", "api_key": "sk-ours"}
        given = settings(base, upstreams={"anthropic": ours}, cache={"when": "off"})
        gateway = await start(Config.model_validate(given), {})
        stack.push_async_callback(gateway.stop)
        door = Doorway(sim, gateway, await stack.enter_async_context(aiohttp.ClientSession()))
        await door.ask(MESSAGES, turn("A name.", "Yes.", RULES, system="Be brief."), key="sk-ada")
        told = [
            await door.ask(MESSAGES, turn(f"As {key}.", "Yes.", RULES, system="Be kind."), key=key)
            for key in ("sk-bob", "sk-ada")
        ]
    causes = [each.headers["x-gateway-prompt-cache"] for each in told]
    assert "prefix_changed" not in causes[0]
    assert "prefix_changed" in causes[1]


# --- replicas of one's own ----------------------------------------------------------------------


async def test_what_another_replica_holds_is_told_where_a_request_had_to_leave_it() -> None:
    system = " ".join(f"pier{n}" for n in range(1500))
    body = engines.chat("Which ship leaves first?", system=system)
    async with engines.pool(2, tells_cached=True) as here:
        first = await here.ask(body)
        again = await here.ask(engines.chat("Which ship?", "The Ada.", "And then?", system=system))
        assert again.engine == first.engine
        assert again.cached > 1000
        holder = next(each for each in here.engines if each.name == first.engine)
        holder.refuse()
        with capture_logs() as lines:
            moved = await here.ask(engines.chat("Which?", "Ada.", "Next?", system=system))
        assert (moved.engine == first.engine, moved.cached) == (False, 0)
        (line,) = [each for each in lines if each["event"] == "request"]
    assert line["cache_miss"] == "other_backend"
    assert line["cache_lost"] > 1000
