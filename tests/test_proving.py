"""What was sent is compared with the turn before: nothing drifts, and what would is found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
import structlog

from gateway.core.rewrites import Rewrite
from gateway.core.volatile_traffic import VolatileTraffic
from gateway.lab.trace import Times
from gateway.lab.trace_read import Wanted, read
from gateway.wire.rewriting import Rewriter, Rewritten
from tests.helpers.proved import proved

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.core.canonical import Json
    from gateway.core.rewrites import Case
    from gateway.wire.rewriting import Asker

DATA = Path(__file__).parent / "data"
RECORDED = {
    "pi-mono": ("traces/pi_mono_first_120_rows.jsonl.gz", 60),
    "SWE-agent": ("traces/swe_agent_3_trajectories.jsonl.gz", 60),
    "tau-bench": ("taubench_airline_gpt4o.json.gz", 200),
}
MODELS = {"anthropic_messages": "claude-sonnet-4-5", "openai_chat": "gpt-5.6-sol"}
RULES = "".join(f"Rule {n}: the harbour's book says what to do.\n" for n in range(300))
WHEN = "Current time: 2026-11-22T10:00:{:02d}Z\n"
MESSAGES = "anthropic_messages"


def talk(turns: int, system: str = RULES, **more: Any) -> list[dict[str, Any]]:
    """The turns of a conversation with Claude, whose client only adds to it."""
    said: list[dict[str, str]] = []
    bodies = []
    for turn in range(turns):
        said = [*said, {"role": "user", "content": f"Question {turn}? " + "More of it. " * 40}]
        body = {"model": "claude-sonnet-4-5", "max_tokens": 9, "system": system, "messages": said}
        bodies.append({**body, **more})
        said = [*said, {"role": "assistant", "content": f"Answer {turn}."}]
    return bodies


class Broken(Rewriter):
    """Says in the system text how long the conversation is."""

    def __init__(self, from_turn: int) -> None:
        super().__init__(VolatileTraffic())
        self._from = from_turn

    def rewrite(
        self, body: bytes, document: Json, case: Case, asker: Asker, now: float
    ) -> Rewritten:
        assert isinstance(document, dict)
        said = document["messages"]
        assert isinstance(said, list)
        turn = (len(said) + 1) // 2
        if turn < self._from:
            return Rewritten(body)
        changed = {**document, "system": f"{document['system']}This is turn {turn}."}
        return Rewritten(orjson.dumps(changed), frozenset({Rewrite.ROUND_TIME}))


async def test_a_rewriter_that_is_another_on_each_turn_is_found_and_told() -> None:
    with structlog.testing.capture_logs() as logged:
        async with proved(Broken(3), prompt_cache={"rewrites": ["round-time"]}) as there:
            for body in talk(5):
                await there.send(body, MESSAGES)
            assert there.compared() == {"new": 1, "steady": 1, "drifted": 3}
            assert [drift[0] for drift in there.drifts] == ["rewrite"] * 3
            assert {drift[2] for drift in there.drifts} == {0}
            assert there.drifts[0][1].startswith("$.system")
            page = there.telemetry.metrics.render().decode()
    line = 'gateway_prompt_cache_drift_total{change="rewrite",provider="anthropic"} 3'
    assert line in page.replace(
        'provider="anthropic",change="rewrite"', 'change="rewrite",provider="anthropic"'
    )
    # Once a minute is enough, and nothing of the prompt is in it.
    (said,) = [each for each in logged if each["log_level"] == "error"]
    assert (said["block"], said["change"]) == (0, "rewrite")
    assert "Rule" not in repr(logged)


@pytest.mark.parametrize("rewrites", [[], ["move-volatile"], ["round-time", "sort-tools"]])
@pytest.mark.parametrize("markers", ["auto", "strip"])
async def test_what_we_do_ourselves_is_steady(rewrites: list[str], markers: str) -> None:
    tools = [{"name": name, "input_schema": {"type": "object"}} for name in ("zoo", "ant")]
    async with proved(prompt_cache={"rewrites": rewrites, "markers": markers}) as there:
        for number in range(4):
            for body in talk(
                4, WHEN.format(number) + RULES + f"You are number {number}.", tools=tools
            ):
                there.now += 5.0
                await there.send(body, MESSAGES)
        assert there.drifts == []
        assert there.compared() == {"new": 4, "steady": 12}


async def test_a_marker_that_moves_on_is_no_drift() -> None:
    async with proved() as there:
        sent = [(await there.send(body, MESSAGES)).body for body in talk(6)]
        assert any(b"cache_control" in body for body in sent)
        assert there.compared() == {"new": 1, "steady": 5}


async def test_a_conversation_that_goes_on_without_what_it_was_begun_with_has_drifted() -> None:
    """As where planning fails of a sudden: then it goes as it came."""
    async with proved() as there:
        for number in range(8):
            for body in talk(2, f"{RULES}You speak to number {number}. " + f"{number} " * 300):
                there.now += 5.0
                await there.send(body, MESSAGES)
        first, second = talk(2, RULES + "You speak to another. " + "another " * 80)
        planned = await there.send(first, MESSAGES)
        assert len(orjson.loads(planned.body)["system"]) == 2, "it was split"
        assert there.drifts == []
        there.planning._beginnings = None  # type: ignore[assignment]
        await there.send(second, MESSAGES)
        assert [drift[0] for drift in there.drifts] == ["split"]


async def test_what_the_client_forbids_is_not_compared() -> None:
    async with proved() as there:
        for body in talk(3):
            await there.send(body, MESSAGES, headers={"x-gateway-markers": "off"})
        assert there.compared() == {}


async def test_where_nothing_is_ever_changed_nothing_is_read() -> None:
    async with proved() as there:
        await there.send(
            {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}, "openai_chat"
        )
        assert there.compared() == {}


async def test_it_takes_its_share_of_the_time_and_counts_what_it_leaves() -> None:
    async with proved() as there:
        bodies = talk(40)
        # Each look at the clock finds it later: comparing takes a fifth of the time.
        there.took_s = 0.05
        for body in bodies:
            await there.send(body, MESSAGES)
        compared = there.compared()
        assert compared["skipped"] > 20
        assert sum(compared.values()) == 40
        there.took_s, there.now = 0.0, there.now + 1000
        await there.send(bodies[-1], MESSAGES)
        assert sum(there.compared().values()) == 41
        assert there.compared()["skipped"] == compared["skipped"]


async def test_a_long_prompt_is_read_beside_the_loop_and_a_huge_one_not_at_all() -> None:
    async with proved() as there:
        long = talk(3, RULES * 12)
        assert len(orjson.dumps(long[0])) > 128 * 1024
        for body in long:
            await there.send(body, MESSAGES)
        assert there.compared() == {"new": 1, "steady": 2}
        huge = talk(1, RULES * 360)
        assert len(orjson.dumps(huge[0])) > 4 * 1024 * 1024
        await there.send(huge[0], MESSAGES)
        assert there.compared() == {"new": 1, "steady": 2, "skipped": 1}


def recorded(name: str, api: str) -> Iterator[dict[str, Any]]:
    file, most = RECORDED[name]
    wanted = Wanted(api, MODELS[api], Times(1, 120.0), limit=6 if name == "tau-bench" else None)
    for call in read(str(DATA / file), wanted).calls[:most]:
        assert call.body is not None
        yield call.body


@pytest.mark.parametrize("rewrites", [[], ["move-volatile", "sort-tools", "sort-schemas"]])
@pytest.mark.parametrize("api", MODELS)
@pytest.mark.parametrize("name", RECORDED)
async def test_recorded_conversations_raise_no_alarm(
    name: str, api: str, rewrites: list[str]
) -> None:
    async with proved(prompt_cache={"rewrites": rewrites}) as there:
        changed = 0
        for body in recorded(name, api):
            there.now += 7.0
            planned = await there.send(body, api)
            changed += planned.body != orjson.dumps(body)
        compared = there.compared()
        assert there.drifts == []
        assert compared.keys() <= {"new", "steady"}
        assert compared["steady"] >= 10
        assert changed >= 5
