"""A fake engine's answers: OpenAI's shapes, with what each engine tells of its cache.

What is said follows from the prompt, the sampling parameters and the engine's seed alone, so that
every replica of a pool says the same. With `max_tokens` it speaks exactly so many, else 32.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from blake3 import blake3

from gateway.lab import engine_prompt, stub_openai, stub_responses
from gateway.lab.stub_answers import Ending, Query, Reply, compose, pieces, tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.lab.engine_prompt import Prompt
    from gateway.lab.engine_work import Computed

Json = dict[str, Any]
USUAL_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Said(Query):
    """A request that is answered with as many tokens as it allows."""

    @property
    def length(self) -> int | None:
        """Of the answer, in tokens."""
        return Query.length.fget(self) or self.max_tokens or USUAL_TOKENS  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Voice:
    """Who answers, and what it tells beside the answer."""

    name: str
    engine: str
    seed: int
    tells_cached: bool

    def usage(self, computed: Computed, answer_tokens: int) -> Json:
        """The usage of a completion, as this engine spells it."""
        told: Json = {
            "prompt_tokens": computed.prompt.tokens,
            "completion_tokens": answer_tokens,
            "total_tokens": computed.prompt.tokens + answer_tokens,
        }
        if self.engine == "vllm":
            # "Omitted when 0": vLLM tells null there, and without its flag.
            told["prompt_tokens_details"] = None
        if self.tells_cached and (self.engine != "vllm" or computed.cached):
            told["prompt_tokens_details"] = {"cached_tokens": computed.cached}
        return told

    def timings(self, computed: Computed, answer_tokens: int, decode_s: float) -> Json:
        """llama.cpp's own member beside the usage; empty for the others."""
        if self.engine != "llamacpp":
            return {}
        ms = 1000.0 * computed.prefill_s
        spoken_ms = 1000.0 * decode_s * answer_tokens
        told = {
            "cache_n": computed.cached,
            "prompt_n": computed.uncached,
            "prompt_ms": ms,
            "prompt_per_token_ms": ms / max(1, computed.uncached),
            "prompt_per_second": 1000.0 * computed.uncached / ms if ms else 0.0,
            "predicted_n": answer_tokens,
            "predicted_ms": spoken_ms,
            "predicted_per_token_ms": spoken_ms / max(1, answer_tokens),
            "predicted_per_second": 1000.0 * answer_tokens / spoken_ms if spoken_ms else 0.0,
        }
        return {"timings": told}


class Answer(NamedTuple):
    """An answer that is about to be sent."""

    reply: Reply
    text: str
    """As the next turn's prompt will have it."""
    tokens: int


class Asked(NamedTuple):
    """A request that was understood."""

    prompt: Prompt
    refused: Reply | None
    answer: Callable[[Computed, Voice, float], Answer]
    """Given what it cost, who answers, and the seconds of a token."""


def chat(body: Json, seed: int) -> Asked | Reply:
    """Read one `POST /v1/chat/completions`; a reply where it is none."""
    if not isinstance(body.get("messages"), list) or not body["messages"]:
        return stub_openai.error(400, "messages: Field required")
    prompt = engine_prompt.of_chat(body)
    query = _seeded(stub_openai.read(body), prompt, body, seed)

    def answer(computed: Computed, voice: Voice, decode_s: float) -> Answer:
        document = stub_openai.document(body, query)
        made = document["usage"]["completion_tokens"]
        document |= {
            "usage": voice.usage(computed, made),
            "system_fingerprint": voice.name,
            "model": body.get("model"),
        }
        message = document["choices"][0]["message"]
        text = (message["content"] or "") + _calls(message)
        timings = voice.timings(computed, made, decode_s)
        reply = _finished(stub_openai.answer(document, body, query), body, timings)
        return Answer(reply, text, made)

    refused = stub_openai.steered(query, streaming=body.get("stream") is True)
    return Asked(prompt, refused, answer)


def response(body: Json, seed: int) -> Asked | Reply:
    """Read one `POST /v1/responses`."""
    if not body.get("input"):
        return stub_openai.error(400, "input: Field required")
    prompt = engine_prompt.of_response(body)
    query = _seeded(stub_responses.read(body), prompt, body, seed)

    def answer(computed: Computed, voice: Voice, decode_s: float) -> Answer:
        del decode_s
        document = stub_responses.document(body, query)
        spent = document["usage"]
        spent["input_tokens"] = computed.prompt.tokens
        spent["total_tokens"] = computed.prompt.tokens + spent["output_tokens"]
        cached = computed.cached if voice.tells_cached else 0
        spent["input_tokens_details"] = {"cached_tokens": cached}
        texts = [part.get("text") or "" for item in document["output"] for part in _parts(item)]
        reply = stub_responses.reply(document, body, query)
        return Answer(reply, "".join(texts), spent["output_tokens"])

    refused = stub_openai.steered(query, streaming=body.get("stream") is True)
    return Asked(prompt, refused, answer)


def completion(body: Json, seed: int) -> Asked | Reply:
    """Read one `POST /v1/completions`."""
    if not body.get("prompt"):
        return stub_openai.error(400, "prompt: Field required")
    prompt = engine_prompt.of_completion(body)
    question = prompt.text.decode("utf-8", "replace")
    limit = body.get("max_tokens", 16)
    bare = Query(b"", question[-200:], prompt.tokens, max_tokens=limit)
    query = _seeded(bare, prompt, body, seed)

    def answer(computed: Computed, voice: Voice, decode_s: float) -> Answer:
        outcome = compose(query)
        made = len(tokens(outcome.text))
        head = {
            "id": stub_openai.fresh_id("cmpl-", 29),
            "object": "text_completion",
            "created": int(time.time()),
            "model": body.get("model"),
            "system_fingerprint": voice.name,
        }
        finish = "length" if outcome.ending is Ending.LENGTH else "stop"
        usage = voice.usage(computed, made)
        timings = voice.timings(computed, made, decode_s)
        if body.get("stream") is True:
            with_usage = (body.get("stream_options") or {}).get("include_usage") is True
            last = [{"choices": [], "usage": usage}] if with_usage else []
            reply = _text_stream(head, outcome.text, finish, last, timings)
        else:
            choice = {"text": outcome.text, "index": 0, "logprobs": None, "finish_reason": finish}
            document = {**head, "choices": [choice], "usage": usage, **timings}
            reply = Reply(body=orjson.dumps(document))
        return Answer(reply, outcome.text, made)

    return Asked(prompt, stub_openai.steered(query, streaming=body.get("stream") is True), answer)


def too_long(engine: str, size: int, limit: int) -> Reply:
    """The refusal of a prompt that is longer than the cache, or than a slot of llama.cpp."""
    if engine != "llamacpp":
        said = f"This model's maximum context length is {limit} tokens; your prompt has {size}."
        return stub_openai.error(400, said)
    told = {
        "code": 400,
        "message": f"request ({size} tokens) exceeds the available context size ({limit} tokens)",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": size,
        "n_ctx": limit,
    }
    return Reply(body=orjson.dumps({"error": told}), status=400)


def _seeded(query: Query, prompt: Prompt, body: Json, seed: int) -> Said:
    sampling = {k: body.get(k) for k in ("temperature", "top_p", "seed", "n")}
    meant = prompt.text + orjson.dumps([prompt.seed, seed, sampling])
    taken = {name: getattr(query, name) for name in Query.__dataclass_fields__}
    return Said(**{**taken, "digest": blake3(meant).digest(), "prompt_tokens": prompt.tokens})


def _calls(message: Json) -> str:
    calls = message.get("tool_calls")
    return orjson.dumps(calls).decode() if calls else ""


def _parts(item: Json) -> list[Json]:
    return item.get("content") or []


def _finished(reply: Reply, body: Json, timings: Json) -> Reply:
    """With llama.cpp's timings: in the document, or in the last chunk of a stream."""
    if not timings:
        return reply
    if body.get("stream") is not True:
        return replace(reply, body=orjson.dumps({**orjson.loads(reply.body), **timings}))
    *events, last, done = reply.events
    chunk = orjson.loads(last.removeprefix(b"data: "))
    return replace(reply, events=(*events, _event({**chunk, **timings}), done))


def _text_stream(head: Json, text: str, finish: str, last: list[Json], timings: Json) -> Reply:
    chunks = [
        {**head, "choices": [{"text": each, "index": 0, "logprobs": None, "finish_reason": None}]}
        for each in pieces(text)
    ]
    end = {"text": "", "index": 0, "logprobs": None, "finish_reason": finish}
    chunks.append({**head, "choices": [end]})
    chunks += [{**head, **each} for each in last]
    chunks[-1] |= timings
    events = (*map(_event, chunks), b"data: [DONE]\n\n")
    return Reply(events=events, content_type="text/event-stream; charset=utf-8")


def _event(data: Json) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"
