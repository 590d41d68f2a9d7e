"""An upstream whose every answer tells which credential asked for it, and a client that reads that.

The stub answers; only the question it sees begins with a mark of the credential, so that an answer
that crosses from one credential to another is seen wherever it comes from.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web
from blake3 import blake3

from gateway.core import sse
from gateway.lab import stub_anthropic, stub_openai, stub_openai_other, stub_responses
from tests.helpers.scripted_upstream import serve_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    import aiohttp

    from gateway.lab.stub_answers import Reply

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"

_ANSWERS: dict[str, Callable[[dict[str, Any]], Reply]] = {
    CHAT: stub_openai.chat,
    MESSAGES: lambda body: stub_anthropic.messages(body, stub_anthropic.fresh_id("req_")),
    COMPLETIONS: stub_openai_other.completions,
    RESPONSES: stub_responses.responses,
    EMBEDDINGS: stub_openai_other.embeddings,
}
_MARK = re.compile(r"by-[0-9a-f]{16}")


def mark(credential: str) -> str:
    """What stands for a credential (`sk-...`; empty for none) in the answers that it asked for."""
    return f"by-{blake3(credential.encode()).hexdigest()[:16]}"


def credential_headers(path: str, credential: str) -> dict[str, str]:
    """Where the API of this path has its credential."""
    if path == MESSAGES:
        return {"x-api-key": credential, "anthropic-version": "2023-06-01"}
    return {"authorization": f"Bearer {credential}"}


def marked(path: str, body: dict[str, Any], who: str) -> dict[str, Any]:
    """The question as the stub gets it."""
    if path == EMBEDDINGS:
        return {**body, "input": [f"{who} {each}" for each in body["input"]]}
    name = {COMPLETIONS: "prompt", RESPONSES: "input"}.get(path, "messages")
    if name != "messages":
        return {**body, name: f"{who} {body[name]}"}
    *before, last = body["messages"]
    return {**body, "messages": [*before, {**last, "content": f"{who} {last['content']}"}]}


class TellTale:
    """`refused` credentials get 401. `asked` counts what came, by path and mark."""

    def __init__(self, refused: Collection[str] = ()) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()
        self._refused = {mark(each) for each in refused}

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Serve on a free port; yields `http://127.0.0.1:PORT`."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        async with serve_app(app) as url:
            yield url

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        who = mark(request.headers.get("x-api-key", bearer))
        self.asked[request.path, who] += 1
        if who in self._refused:
            return web.json_response({"error": {"message": "no such key"}}, status=401)
        if request.method != "POST":
            return web.json_response({"object": "list", "data": []})
        body = orjson.loads(await request.read())
        reply = _ANSWERS[request.path](marked(request.path, body, who))
        payload = b"".join(reply.events) or reply.body
        headers = {"content-type": reply.content_type}
        return web.Response(body=payload, status=reply.status, headers=headers)


async def ask(
    session: aiohttp.ClientSession,
    api_url: str,
    path: str,
    body: dict[str, Any],
    credential: str,
    **headers: str,
) -> tuple[int, str, bytes]:
    """Status, what `x-gateway-cache` says, and the answer's bytes."""
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    told |= credential_headers(path, credential)
    async with session.post(f"{api_url}{path}", json=body, headers=told) as response:
        raw = await response.read()
        return response.status, response.headers.get("x-gateway-cache", ""), raw


def tellers(path: str, body: dict[str, Any], raw: bytes, known: Collection[str]) -> set[str]:
    """The marks that an answer carries. Embeddings carry none in words: theirs is found among the
    marks of the `known` credentials, by computing what each would have been told.
    """
    if path != EMBEDDINGS:
        return set(_MARK.findall(_text(path, raw)))
    vectors = [each["embedding"] for each in orjson.loads(raw)["data"]]
    assert len(vectors) == len(body["input"])
    found: set[str] = set()
    for who in map(mark, known):
        own = _vectors(who, orjson.dumps(body))
        if any(one == other for one, other in zip(vectors, own, strict=True)):
            found.add(who)
    return found


@cache
def _vectors(who: str, body: bytes) -> list[list[float]]:
    """What a credential is told when it asks itself."""
    answer = stub_openai_other.embeddings(marked(EMBEDDINGS, orjson.loads(body), who))
    return [each["embedding"] for each in orjson.loads(answer.body)["data"]]


def _text(path: str, raw: bytes) -> str:
    """All that is said in an answer, in either form."""
    if raw.startswith(b"{"):
        return raw.decode()
    said: list[str] = []
    for event in sse.parse(raw):
        if event.data == "[DONE]":
            continue
        chunk = orjson.loads(event.data)
        if path == CHAT:
            said += [each["delta"].get("content") or "" for each in chunk["choices"]]
        elif path == COMPLETIONS:
            said += [each["text"] for each in chunk["choices"]]
        elif path == MESSAGES and chunk["type"] == "content_block_delta":
            said.append(chunk["delta"]["text"])
        elif path == RESPONSES and chunk["type"] == "response.output_text.delta":
            said.append(chunk["delta"])
    return "".join(said)
