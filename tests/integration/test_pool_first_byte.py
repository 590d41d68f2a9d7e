"""What had not begun to answer is not lost: whenever a replica fails before the first byte of an
answer, another one answers; and nothing is answered twice once it is there.
"""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from gateway.lab.engine_faults import Mishap
from gateway.lab.engine_server import ENGINES
from tests.helpers.engine_pool import chat, pool, until, words

SLOW = 200.0
"""Prompt tokens a second: the prompts here take seconds."""
USUAL = 1e6


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("engine", ENGINES)
async def test_an_engine_that_dies_while_it_computes_the_prompt_loses_no_request(
    engine: str, streamed: bool
) -> None:
    """vLLM and llama.cpp have sent the head of a stream by then; that is no answer yet."""
    async with pool(2, engine=engine, prefill_rate=SLOW) as here:
        asked = asyncio.ensure_future(here.ask(chat(words("lost", 1000), stream=streamed)))
        await until(lambda: any(each.work.running for each in here.engines))
        dying = here.busy()
        [other] = [each for each in here.engines if each is not dying]
        other.work.rate = USUAL
        dying.die()
        answer = await asked

    assert answer.engine == other.name


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("engine", ENGINES)
async def test_an_engine_that_hangs_while_it_computes_the_prompt_keeps_no_request(
    engine: str, streamed: bool
) -> None:
    health = {"timeout_s": 0.1, "unhealthy_after": 2}
    async with pool(2, engine=engine, prefill_rate=SLOW, health=health) as here:
        asked = asyncio.ensure_future(here.ask(chat(words("lost", 1000), stream=streamed)))
        await until(lambda: any(each.work.running for each in here.engines))
        hanging = here.busy()
        [other] = [each for each in here.engines if each is not hanging]
        other.work.rate = USUAL
        hanging.faults.hang()
        answer = await asked

    assert answer.engine == other.name


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("mishap", [Mishap.FAIL, Mishap.DROP])
async def test_what_one_engine_refuses_or_drops_another_one_answers(
    mishap: Mishap, streamed: bool
) -> None:
    async with pool(2) as here:
        first = await here.ask(chat("One?"))
        home = next(each for each in here.engines if each.name == first.engine)
        # (Who breaks a kept connection is asked again on a new one, a few times.)
        home.faults.expect(mishap, 8)
        answer = await here.ask(chat("One?", first.text, "Two?", stream=streamed))

    assert answer.engine != home.name
    assert answer.branch == "moved-health"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_an_answer_that_broke_off_is_not_begun_anew(streamed: bool) -> None:
    async with pool(2) as here:
        for each in here.engines:
            each.faults.expect(Mishap.CUT)
        with pytest.raises(aiohttp.ClientError):
            await here.ask(chat("One?", max_tokens=64, stream=streamed))
        asked = [each.calls["/v1/chat/completions"] for each in here.engines]

    assert sorted(asked) == [0, 1]


async def test_a_pool_whose_engines_are_all_gone_says_so_and_is_used_again_when_one_is_back() -> (
    None
):
    health = {"healthy_after": 1, "eject_after": 0}
    async with pool(2, health=health) as here:
        for each in here.engines:
            each.die()
        with pytest.raises(AssertionError, match="upstream"):
            await here.ask(chat("One?"))
        await here.engines[0].restart()
        answer = await here.ask(chat("Two?"))

    assert answer.engine == here.engines[0].name
