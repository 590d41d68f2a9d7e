"""An upstream that answers Chat Completions from recordings, by what a request means."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from gateway.lab.stub_answers import count, meaning
from gateway.lab.stub_openai import completion, headers, reply, usage
from tests.helpers.scripted_upstream import serve_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable


class RecordedStub:
    """Recorded assistant messages behind `/v1/chat/completions`, in either form, with usage.

    Of two recordings with the same meaning the first one is the answer. A question that was not
    recorded gets 404. `calls` counts by status.
    """

    def __init__(self, recordings: Iterable[tuple[dict[str, Any], dict[str, Any]]]) -> None:
        """`recordings`: request bodies, each with its assistant message."""
        self.calls: Counter[int] = Counter()
        self._answers: dict[bytes, dict[str, Any]] = {}
        for body, message in recordings:
            self._answers.setdefault(meaning(body), message)

    def __len__(self) -> int:
        """How many different meanings were recorded."""
        return len(self._answers)

    @property
    def total_calls(self) -> int:
        """All calls, whatever became of them."""
        return self.calls.total()

    def answer(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """The recorded assistant message for this request, or None."""
        return self._answers.get(meaning(body))

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Serve on a free port; yields the base URL with its `/v1`."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._chat)
        async with serve_app(app) as url:
            yield f"{url}/v1"

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        message = self.answer(body)
        if message is None:
            self.calls[404] += 1
            return web.json_response({"error": {"message": "not recorded"}}, status=404)
        self.calls[200] += 1
        sent = reply(self._completion(body, message), body)
        lines = {**headers(f"req_{self.total_calls:032x}"), "content-type": sent.content_type}
        if not sent.events:
            return web.Response(body=sent.body, headers=lines)
        response = web.StreamResponse(headers=lines)
        await response.prepare(request)
        for event in sent.events:
            await response.write(event)
        await response.write_eof()
        return response

    @staticmethod
    def _completion(body: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
        whole = {"role": "assistant", "content": message.get("content")}
        if message.get("tool_calls"):
            whole["tool_calls"] = message["tool_calls"]
        whole |= {"refusal": None, "annotations": []}
        choice = {
            "index": 0,
            "message": whole,
            "logprobs": None,
            "finish_reason": "tool_calls" if message.get("tool_calls") else "stop",
        }
        prompt = count(body["messages"]) + count(body.get("tools"))
        return completion(body["model"], [choice], usage(prompt, max(1, count(message))))
