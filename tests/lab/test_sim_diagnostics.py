"""Cache diagnostics of the simulated providers, as their documents and SDKs have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest

from gateway.core.miss import MissCause
from gateway.lab.provider_sim import ProviderSim

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CLAUDE, GPT = "claude-sonnet-5-5", "gpt-5.6-sol"
LONG = "The house rules, word by word. " * 200
MARK: Any = {"type": "ephemeral"}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def sim(clock: Clock) -> AsyncIterator[ProviderSim]:
    async with ProviderSim(clock=clock, judges=True) as running:
        yield running


@pytest.fixture
async def claude(sim: ProviderSim) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=sim.url, api_key="a", max_retries=0) as made:
        yield made


@pytest.fixture
async def gpt(sim: ProviderSim) -> AsyncIterator[openai.AsyncOpenAI]:
    base = f"{sim.url}/v1"
    async with openai.AsyncOpenAI(base_url=base, api_key="a", max_retries=0) as made:
        yield made


def tool(name: str) -> Any:
    return {"name": name, "input_schema": {"type": "object"}}


def turn(**more: Any) -> dict[str, Any]:
    return {
        "model": CLAUDE,
        "max_tokens": 50,
        "tools": [tool("one"), tool("two")],
        "system": [{"type": "text", "text": LONG, "cache_control": MARK}],
        "messages": [{"role": "user", "content": "Hello?"}],
        **more,
    }


async def told(client: anthropic.AsyncAnthropic, named: str | None, **more: Any) -> tuple[Any, str]:
    asked: Any = turn(**more)
    answer: Any = await client.messages.create(
        **asked, extra_body={"diagnostics": {"previous_message_id": named}}
    )
    return answer.model_dump()["diagnostics"], answer.id


async def test_nothing_is_said_of_a_first_turn_and_of_one_that_goes_on(
    claude: anthropic.AsyncAnthropic, clock: Clock
) -> None:
    first, named = await told(claude, None)
    clock.now += 1000
    more = [{"role": "assistant", "content": "Hi."}, {"role": "user", "content": "And?"}]
    # It has expired; but nothing was changed.
    second, _ = await told(claude, named, messages=[*turn()["messages"], *more])
    assert first is second is None


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({"model": "claude-opus-5-5"}, "model_changed"),
        ({"tools": [tool("two"), tool("one")]}, "tools_changed"),
        ({"system": [{"type": "text", "text": "Now: " + LONG}]}, "system_changed"),
        ({"messages": [{"role": "user", "content": "Other?"}]}, "messages_changed"),
    ],
)
async def test_the_first_difference_is_named_with_what_would_have_been_read(
    more: dict[str, Any], kind: str, claude: anthropic.AsyncAnthropic
) -> None:
    _, named = await told(claude, None)
    said, _ = await told(claude, named, **more)
    reason = said["cache_miss_reason"]
    assert reason["type"] == kind
    assert 0 < reason["cache_missed_input_tokens"] < 2000


async def test_what_is_not_in_the_prompt_is_not_diagnosed(
    claude: anthropic.AsyncAnthropic,
) -> None:
    _, named = await told(claude, None)
    said, _ = await told(claude, named, tool_choice={"type": "any"})
    assert said == {"cache_miss_reason": {"type": "unavailable"}}


async def test_who_did_not_ask_is_not_remembered(claude: anthropic.AsyncAnthropic) -> None:
    asked: Any = turn()
    silent = await claude.messages.create(**asked)
    said, _ = await told(claude, silent.id)
    assert said == {"cache_miss_reason": {"type": "previous_message_not_found"}}


async def test_a_stream_says_it_in_its_first_event(claude: anthropic.AsyncAnthropic) -> None:
    _, named = await told(claude, None)
    asked: Any = turn(model="claude-opus-5-5", stream=True)
    events: Any = await claude.messages.create(
        **asked, extra_body={"diagnostics": {"previous_message_id": named}}
    )
    first, *_ = [each async for each in events]
    assert (
        first.model_dump()["message"]["diagnostics"]["cache_miss_reason"]["type"] == "model_changed"
    )


async def compare(client: openai.AsyncOpenAI, named: str | None, **more: Any) -> tuple[Any, str]:
    options = {} if named is None else {"comparison_response_id": named}
    asked: dict[str, Any] = {"model": GPT, "instructions": LONG, "input": "Hello?", **more}
    extra = {"prompt_cache_options": options, **asked.pop("extra", {})}
    answer: Any = await client.responses.create(**asked, extra_body=extra)
    return answer.model_dump().get("prompt_cache_diagnostics"), answer.id


async def test_openai_names_what_differs_from_the_response_that_is_named(
    gpt: openai.AsyncOpenAI,
) -> None:
    silent, named = await compare(gpt, None)
    assert silent is None
    assert (await compare(gpt, named))[0] == {"type": "cache_hit"}
    for more, reason in (
        ({"model": "gpt-6-sol"}, "model_changed"),
        ({"prompt_cache_key": "k"}, "prompt_cache_key_changed"),
        ({"tools": [{"type": "function", "name": "f", "parameters": {}}]}, "tools_changed"),
        ({"reasoning": {"effort": "low"}}, "reasoning_effort_changed"),
        ({"text": {"verbosity": "low"}}, "verbosity_changed"),
        ({"input": "Other?"}, "input_changed"),
    ):
        said, _ = await compare(gpt, named, **more)
        assert (said["type"], said["reason"]) == ("cache_miss", reason)
        assert said["cache_missed_tokens"] >= 0


async def test_openai_has_no_diagnosis_for_what_expired_or_isnt_known(
    gpt: openai.AsyncOpenAI, clock: Clock, sim: ProviderSim
) -> None:
    _, named = await compare(gpt, None)
    clock.now += 3600
    assert (await compare(gpt, named))[0] == {"type": "unavailable"}
    assert (await compare(gpt, "resp_other"))[0] == {"type": "comparison_response_not_found"}
    causes = [None if miss is None else miss.cause for miss in sim.misses]
    assert causes == [MissCause.COLD, MissCause.TTL_EXPIRED, None]
