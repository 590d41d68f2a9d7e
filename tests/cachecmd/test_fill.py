"""Recorded requests, asked through a running gateway until they are cached."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from gateway.answering import not_in_cache
from gateway.cachecmd import fill as filling
from gateway.cli import main
from gateway.core.model import Reason
from tests.helpers.gateway_here import gateway_here
from tests.helpers.scripted_upstream import ScriptedUpstream, response

if TYPE_CHECKING:
    from pathlib import Path

ANSWER = orjson.dumps(
    {
        "id": "chatcmpl-123456789",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-4o",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello."},
                "finish_reason": "stop",
            }
        ],
    }
)
MESSAGE = orjson.dumps(
    {
        "id": "msg_123456789",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [{"type": "text", "text": "Hello."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
)


def question(number: int, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"question {number}"}]
    return {"model": "gpt-4o", "messages": messages, **more}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "recorded.jsonl"


def write(file: Path, *lines: Any) -> None:
    file.write_bytes(
        b"\n".join(line if isinstance(line, bytes) else orjson.dumps(line) for line in lines)
    )


async def fill(file: Path, url: str, *arguments: str) -> int:
    return await asyncio.to_thread(
        main, ["cache", "fill", "--url", url, "--json", *arguments, str(file)]
    )


def counts(capture: pytest.CaptureFixture[bytes]) -> dict[str, Any]:
    told: dict[str, Any] = orjson.loads(capture.readouterr().out.splitlines()[-1])
    return told


async def test_it_counts_first_then_fetches_what_is_missing_and_the_next_time_nothing(
    file: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-mine")
    hosted = question(9, web_search_options={})
    write(
        file,
        question(0),
        {"body": question(1), "route": "/v1/chat/completions"},
        {"body": orjson.dumps(question(2)).decode(), "url": "/v1/chat/completions"},
        {"custom_id": "x", "params": question(3, temperature=0.50)},
        b"",
        hosted,
    )
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        upstream.otherwise(response(ANSWER))
        assert await fill(file, gateway.api_url) == 0
        told = counts(capfdbinary)
        assert (told["missing"], told["uncacheable"], told["dry_run"]) == (4, 1, True)
        assert told["why"] == {"hosted-tool": 1}
        assert await fill(file, gateway.api_url, "--yes", "--tag", "warm") == 0
        await gateway.background.idle()
        told = counts(capfdbinary)
        assert (told["fetched"], told["failed"]) == (4, 0)
        # What the cache has no say in was never sent.
        sent = [await upstream.request(n) for n in range(4)]
        assert {dict(seen.headers())["authorization"] for seen in sent} == {"Bearer sk-of-mine"}
        assert b"web_search_options" not in b"".join(seen.body for seen in sent)
        assert await fill(file, gateway.api_url, "--yes") == 0
        told = counts(capfdbinary)
        assert (told["cached"], told["fetched"]) == (4, 0)
        await gateway._generations.purge(["tag:warm"])
        assert await fill(file, gateway.api_url) == 0
        assert counts(capfdbinary)["missing"] == 4


async def test_messages_go_out_with_the_credential_of_their_provider(
    file: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-mine")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-of-mine")
    write(file, {**question(0), "max_tokens": 5})
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        upstream.otherwise(response(MESSAGE))
        assert await fill(file, gateway.api_url, "--yes", "--route", "/v1/messages") == 0
        headers = dict((await upstream.request(0)).headers())
    assert headers["x-api-key"] == "sk-ant-of-mine"
    assert "authorization" not in headers
    assert counts(capfdbinary)["fetched"] == 1


async def test_what_fails_is_counted_and_can_be_repeated(
    file: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    write(file, question(0), b"no json", b"[1]", question(1))
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        upstream.answer(response(b"{}", status="429 Too Many Requests"))
        upstream.otherwise(response(ANSWER))
        assert await fill(file, gateway.api_url, "--yes", "--concurrency", "1") == 1
        told = counts(capfdbinary)
        assert (told["fetched"], told["failed"]) == (1, 3)
        assert told["why"]["status 429"] == 1
        await gateway.background.idle()
        assert await fill(file, gateway.api_url, "--yes") == 1
        told = counts(capfdbinary)
        assert (told["cached"], told["fetched"], told["failed"]) == (1, 1, 2)


async def test_a_gateway_that_is_not_there_is_a_failure_of_each(
    file: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    write(file, question(0), question(1))
    assert await fill(file, "http://127.0.0.1:1", "--yes") == 1
    assert counts(capfdbinary)["failed"] == 2
    assert await fill(file, "127.0.0.1:1", "--yes") == 2
    assert await fill(file.with_name("nowhere"), "http://127.0.0.1:1") == 2


def test_every_reason_is_read_out_of_the_answer_that_gives_it() -> None:
    for reason in Reason:
        body = orjson.dumps({"error": {"message": not_in_cache(reason).message}})
        assert filling._reason(body) == reason.value
    for body in (b"", b"[]", b'{"error": {}}', b'{"error": {"message": "a timeout"}}'):
        assert filling._reason(body) is None
