"""OpenAI's other endpoints, as far as a program that lists, embeds or completes needs them."""

from __future__ import annotations

import array
import base64
import math
import re
import sys
import time
from dataclasses import replace
from typing import Any

import orjson
from blake3 import blake3

from gateway.lab.stub_answers import Ending, Query, Reply, compose, count, meaning, pieces, tokens
from gateway.lab.stub_openai import FINGERPRINT, error, fresh_id, steered, usage

MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-4.1", "text-embedding-3-small")
_CREATED = 1715367049
_DIMENSIONS = 1536


def models() -> Reply:
    """Answer `GET /v1/models`."""
    return _body({"object": "list", "data": [_model(name) for name in MODELS]})


def model(name: str) -> Reply:
    """Answer `GET /v1/models/{name}`."""
    if name not in MODELS:
        return error(404, f"The model '{name}' does not exist", param="model")
    return _body(_model(name))


def embeddings(body: dict[str, Any]) -> Reply:
    """Answer one `POST /v1/embeddings`: unit vectors that depend on text and model alone."""
    given = body.get("input")
    if given in (None, "", []):
        return error(400, "'$.input' is invalid.", param="input")
    texts: list[Any] = given if isinstance(given, list) and not _is_tokens(given) else [given]
    for text in texts:
        if isinstance(text, str) and (asked := re.search(r"\[error (\d{3})\]", text)):
            return error(int(asked[1]), "asked for by an input")
    size = int(body.get("dimensions") or _DIMENSIONS)
    data = []
    for i, text in enumerate(texts):
        vector = _vector(orjson.dumps([body.get("model"), text]), size)
        value: Any = vector.tolist()
        if body.get("encoding_format") == "base64":
            value = base64.b64encode(vector.tobytes()).decode()
        data.append({"object": "embedding", "index": i, "embedding": value})
    spent = sum(len(t) if isinstance(t, list) else count(t) for t in texts)
    return _body(
        {
            "object": "list",
            "data": data,
            "model": body.get("model"),
            "usage": {"prompt_tokens": spent, "total_tokens": spent},
        }
    )


def completions(body: dict[str, Any]) -> Reply:
    """Answer one `POST /v1/completions` (the old, prompt-in text-out endpoint)."""
    streaming = body.get("stream") is True
    if not isinstance(body.get("model"), str):
        return error(400, "you must provide a model parameter")
    if streaming and (body.get("best_of") or 1) > 1:
        return error(400, "You requested that the server stream results with best_of > 1.")
    given = body.get("prompt") or ""
    prompts = given if isinstance(given, list) and not _is_tokens(given) else [given]
    stop = body.get("stop")
    choices: list[dict[str, Any]] = []
    spent = made = 0
    asked: frozenset[str] = frozenset()
    for prompt in prompts:
        query = Query(
            digest=meaning({**body, "prompt": prompt}),
            question=str(prompt),
            prompt_tokens=count(prompt),
            max_tokens=body.get("max_tokens", 16),
            stops=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        )
        refused = steered(query, streaming=streaming)
        if refused is not None:
            return refused
        asked |= query.directives
        spent += query.prompt_tokens
        for number in range(max(1, body.get("n") or 1)):
            outcome = compose(query, number)
            made += len(tokens(outcome.text))
            echoed = str(prompt) if body.get("echo") else ""
            finish = _COMPLETION_FINISH.get(outcome.ending, "stop")
            choices.append(_choice(echoed + outcome.text, len(choices), finish, body))
    head = {
        "id": fresh_id("cmpl-", 29),
        "object": "text_completion",
        "created": int(time.time()),
        "model": body["model"],
        "system_fingerprint": FINGERPRINT,
    }
    cost = usage(spent, made)
    if not streaming:
        whole = _body({**head, "choices": choices, "usage": cost})
        return replace(whole, cut="cut" in asked)
    with_usage = (body.get("stream_options") or {}).get("include_usage") is True
    none_yet: dict[str, Any] = {"usage": None} if with_usage else {}
    parts = [part for choice in choices for part in _completion_pieces(choice)]
    chunks = [{**head, "choices": [part], **none_yet} for part in parts]
    if with_usage:
        chunks.append({**head, "choices": [], "usage": cost})
    events = [*(b"data: " + orjson.dumps(c) + b"\n\n" for c in chunks), b"data: [DONE]\n\n"]
    if "error in stream" in asked:
        failed = {"error": {"message": "The server had an error.", "type": "server_error"}}
        events = [*events[: len(events) // 2], b"data: " + orjson.dumps(failed) + b"\n\n"]
    return Reply(
        events=tuple(events), content_type="text/event-stream; charset=utf-8", cut="cut" in asked
    )


_COMPLETION_FINISH = {Ending.LENGTH: "length", Ending.FILTERED: "content_filter"}


def _choice(text: str, index: int, finish: str, body: dict[str, Any]) -> dict[str, Any]:
    logprobs = None
    if body.get("logprobs") is not None:
        logprobs = _logprobs(text, body["logprobs"])
    return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish}


def _logprobs(text: str, top: int, offset: int = 0) -> dict[str, Any]:
    """One item for each token, as the old endpoint lists them; offsets count characters."""
    parts = tokens(text)
    offsets = [offset + sum(map(len, parts[:i])) for i in range(len(parts))]
    values = [-(len(part) % 7) / 8 for part in parts]
    return {
        "tokens": parts,
        "token_logprobs": values,
        "top_logprobs": [{p: v} for p, v in zip(parts, values, strict=True)] if top else None,
        "text_offset": offsets,
    }


def _completion_pieces(choice: dict[str, Any]) -> list[dict[str, Any]]:
    """The choice as its stream has it: some tokens at a time, then the end."""
    out: list[dict[str, Any]] = []
    offset = 0
    for text in pieces(choice["text"]):
        logprobs = None
        if choice["logprobs"] is not None:
            top = choice["logprobs"]["top_logprobs"] is not None
            logprobs = _logprobs(text, int(top), offset)
        out.append({**choice, "text": text, "logprobs": logprobs, "finish_reason": None})
        offset += len(text)
    return [*out, {**choice, "text": "", "logprobs": None}]


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "system"}


def _is_tokens(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(v, int) for v in value)


def _vector(text: bytes, size: int) -> array.array[float]:
    raw = blake3(text).digest(size)
    length = math.sqrt(sum((b - 127.5) ** 2 for b in raw))
    vector = array.array("f", ((b - 127.5) / length for b in raw))
    if sys.byteorder == "big":
        vector.byteswap()
    return vector


def _body(document: dict[str, Any]) -> Reply:
    return Reply(body=orjson.dumps(document, option=orjson.OPT_INDENT_2))
