"""Requests and answers of OpenAI's Completions, as small as a test wants them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gateway.core import sse
from gateway.core.mint import Mint
from gateway.core.model import Answer, Ask, Entry, Form
from gateway.providers.openai_other import COMPLETIONS
from gateway.providers.unknown import UNKNOWN
from gateway.wire.openai_completions import OpenAICompletions

if TYPE_CHECKING:
    from gateway.providers.base import ApiRules

API = OpenAICompletions()
UNKNOWN_COMPLETIONS: ApiRules = UNKNOWN.apis["openai_completions"]
USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
NOW_S = 1_800_000_000


def request(**changes: Any) -> dict[str, Any]:
    """A plain request with members added or replaced."""
    return {"model": "gpt-3.5-turbo-instruct", "prompt": "Say hi", **changes}


def canonical_of(body: bytes | dict[str, Any], rules: ApiRules = COMPLETIONS) -> bytes:
    """The canonical bytes of a request."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return API.understand(raw, rules).canonical


def choice(text: Any, finish: Any = "stop", **more: Any) -> dict[str, Any]:
    """One choice of a document, or of a chunk."""
    return {"text": text, "index": 0, "logprobs": None, "finish_reason": finish} | more


def document(*choices: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A whole answer."""
    numbered = [{**each, "index": index} for index, each in enumerate(choices)]
    return {
        "id": "cmpl-Ck2Zq9aAbB7x",
        "object": "text_completion",
        "created": 1_760_000_000,
        "model": "gpt-3.5-turbo-instruct:20230824-v2",
        "choices": numbered,
        "usage": USAGE,
        "system_fingerprint": "fp_1",
        **changes,
    }


def chunk(*choices: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """One chunk of a stream."""
    head = document(**changes)
    head.pop("usage") if "usage" not in changes else None
    return {**head, "choices": list(choices)}


def stream(*chunks: dict[str, Any], usage: bool = True, done: bool = True) -> bytes:
    """The SSE text of a whole stream."""
    sent = [*chunks, chunk(usage=USAGE)] if usage else list(chunks)
    written = b"".join(sse.write(json.dumps(each).encode()) for each in sent)
    return written + (sse.write(b"[DONE]") if done else b"")


def read_document(value: dict[str, Any]) -> Answer:
    """Judge a document."""
    return API.read_body(json.dumps(value).encode(), COMPLETIONS)


def served(answer: Answer, form: Form, *, usage: bool = False) -> bytes:
    """The answer as a client gets it from the cache."""
    wanted = Ask(form=form, model="gpt-3.5-turbo-instruct", include_usage=usage)
    entry = Entry(
        api=API.name,
        recorded=answer.recorded,
        forms=answer.forms,
        payload=answer.payload,
        stored_at=0.0,
        ttl_s=1.0,
        model=answer.model,
        response_id=answer.response_id,
        usage=answer.usage,
        has_stream_usage=answer.has_stream_usage,
    )
    assert API.can_serve(entry, wanted)
    return API.serve(entry, wanted, Mint(NOW_S, b"seed"), COMPLETIONS)


def served_document(answer: Answer) -> dict[str, Any]:
    """The served document, parsed."""
    value: dict[str, Any] = json.loads(served(answer, Form.BODY))
    return value


def served_chunks(answer: Answer, *, usage: bool = False) -> list[dict[str, Any]]:
    """The served chunks, parsed; the closing `[DONE]` is checked and left out."""
    *events, done = sse.parse(served(answer, Form.STREAM, usage=usage))
    assert done.data == "[DONE]"
    return [json.loads(event.data) for event in events]
