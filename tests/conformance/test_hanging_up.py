"""SDKs that close the connection before the response has ended: with the answer, or without."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2
import orjson
import pytest

from tests.helpers.scripted_upstream import LAST_CHUNK, ScriptedUpstream, chunk, stream_head

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conformance.conftest import Elsewhere, OpenWorld, Sdk
    from tests.helpers.scripted_upstream import Piece

HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
CHUNKS: list[dict[str, Any]] = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "A store"}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}},
]
SAID = [chunk(b"data: " + orjson.dumps({**HEAD, **each}) + b"\n\n") for each in CHUNKS]
DONE = chunk(b"data: [DONE]\n\n")
QUESTION = {"model": "gpt-4o", "messages": [{"role": "user", "content": "What?"}]}


class Slow:
    """A gateway whose upstream says a part of an answer, and then no more."""

    def __init__(self, elsewhere: Elsewhere, open_world: OpenWorld) -> None:
        self._elsewhere = elsewhere
        self.upstream: ScriptedUpstream = elsewhere.run(self._opened())
        there = {"base_url": f"{self.upstream.url}/v1", "provider": "openai"}
        self.world = open_world(upstreams={"openai": there})

    async def _opened(self) -> ScriptedUpstream:
        return await ScriptedUpstream().__aenter__()

    def says(self, *pieces: Piece) -> None:
        self.upstream.answer(stream_head(), *pieces, (asyncio.Event(), LAST_CHUNK))

    def hung_up(self, number: int) -> None:
        """Wait until the gateway has hung up on a request, because its client had."""
        seen = self._elsewhere.run(self.upstream.request(number))
        self._elsewhere.run(asyncio.wait_for(seen.hung_up.wait(), 10))

    def aborted(self) -> list[str]:
        """What the metrics tell of streams that ended early."""
        with httpx2.Client(trust_env=False) as client:
            told = client.get(f"{self.world.gateway.probe_url}/metrics").text
        lines = [line for line in told.splitlines() if line.startswith("gateway_stream_aborted")]
        return [line for line in lines if "_created" not in line]

    def close(self) -> None:
        self._elsewhere.run(self.upstream.__aexit__(None, None, None))


@pytest.fixture
def slow(elsewhere: Elsewhere, open_world: OpenWorld) -> Iterator[Slow]:
    made = Slow(elsewhere, open_world)
    yield made
    made.close()


def test_an_answer_is_kept_though_the_sdk_hangs_up_at_done(slow: Slow, sdk: Sdk) -> None:
    """OpenAI's SDK closes the connection at `[DONE]`, before the response has ended."""
    slow.says(*SAID, DONE)
    client = sdk.openai(f"{slow.world.url}/v1")
    stream = client.items(lambda c: c.chat.completions.create(**QUESTION, stream=True))
    assert [c["choices"] for c in CHUNKS[:2]] == [
        [choice.model_dump(exclude_unset=True) for choice in c.choices] for c in stream
    ]
    slow.hung_up(0)
    answer = client.call(lambda c: c.chat.completions.create(**QUESTION))
    assert client.last["x-gateway-cache"] == "hit"
    assert answer.choices[0].message.content == "A store"
    assert answer.usage.total_tokens == 5
    assert [] == slow.aborted()
    assert len(slow.upstream.seen) == 1


def test_an_answer_that_the_client_left_early_is_not_kept(slow: Slow, sdk: Sdk) -> None:
    client = sdk.openai(f"{slow.world.url}/v1")
    for number in (0, 1):
        slow.says(*SAID)
        client.within(lambda c: c.chat.completions.stream(**QUESTION), lambda stream: None)
        assert client.last["x-gateway-cache"] == "miss"
        slow.hung_up(number)
    assert ['gateway_stream_aborted_total{side="client"} 2.0'] == slow.aborted()
