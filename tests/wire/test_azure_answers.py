"""Azure's answers: filter results are kept, in the form they came in."""

from __future__ import annotations

import json
from typing import Any

from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gateway.core import sse
from gateway.core.mint import Mint
from gateway.core.model import Ask, Entry, Finish, Form
from gateway.providers.azure import AZURE
from gateway.wire.openai_chat import OpenAIChat

API = OpenAIChat()
RULES = AZURE.apis["openai_chat"]
SAFE = {"hate": {"filtered": False, "severity": "safe"}}
PROMPT = [{"prompt_index": 0, "content_filter_results": SAFE}]
USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
TOP = {"id": "chatcmpl-Ab3", "object": "chat.completion.chunk", "created": 1763000000, "model": "gpt-4o-2024-11-20"}  # fmt: skip


def piece(text: str | None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None, **more}
    return {**TOP, "choices": [choice]}


# The first chunk judges the prompt, before there is an answer, and so has neither id nor model.
CHUNKS = [
    {"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": PROMPT},
    piece("Hi", content_filter_results=SAFE),
    piece("!", content_filter_results=SAFE),
    piece(None, "stop", content_filter_results={}),
    {**TOP, "choices": [], "usage": USAGE},
]  # fmt: skip
DOCUMENT = {
    **TOP,
    "object": "chat.completion",
    "prompt_filter_results": PROMPT,
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi!", "refusal": None, "annotations": []},
            "finish_reason": "stop",
            "logprobs": None,
            "content_filter_results": SAFE,
        }
    ],
    "usage": USAGE,
}


def replayed(answer: Any) -> bytes:
    entry = Entry(
        api=API.name,
        recorded=answer.recorded,
        forms=answer.forms,
        payload=answer.payload,
        stored_at=1763000000.0,
        ttl_s=60.0,
        model=answer.model,
        response_id=answer.response_id,
        usage=answer.usage,
        has_stream_usage=answer.has_stream_usage,
    )
    ask = Ask(form=answer.recorded, model="deployment", include_usage=True)
    return API.serve(entry, ask, Mint(1763000900, b"s"), RULES)


def test_a_stream_is_replayed_with_its_filter_results() -> None:
    text = b"".join(sse.write(json.dumps(chunk).encode()) for chunk in CHUNKS)
    answer = API.read_stream(text + sse.write(b"[DONE]"), RULES)

    assert (Finish.COMPLETE, "gpt-4o-2024-11-20") == (answer.finish, answer.model)
    # Results differ from piece to piece, so neither form can be made of the other.
    assert frozenset({Form.STREAM}) == answer.forms
    lines = [line[6:] for line in replayed(answer).splitlines() if line.startswith(b"data: {")]
    chunks = [json.loads(line) for line in lines]
    assert PROMPT == chunks[0]["prompt_filter_results"]
    assert "" == chunks[0]["id"]
    assert all(chunk["id"] not in {"", TOP["id"]} for chunk in chunks[1:])
    for chunk, recorded in zip(chunks, CHUNKS, strict=True):
        # Asked for usage, every chunk states it; the others state null.
        stamped = {"id": chunk["id"], "created": chunk["created"]}
        assert {**recorded, **stamped, "usage": recorded.get("usage")} == chunk
    assert all(ChatCompletionChunk.model_validate(chunk) for chunk in chunks[1:])


def test_a_document_is_replayed_with_its_filter_results() -> None:
    answer = API.read_body(json.dumps(DOCUMENT).encode(), RULES)

    assert (Finish.COMPLETE, frozenset({Form.BODY})) == (answer.finish, answer.forms)
    given = json.loads(replayed(answer))
    assert given["id"] not in {"", TOP["id"]}
    assert {**given, "id": TOP["id"], "created": TOP["created"]} == DOCUMENT
    assert ChatCompletion.model_validate(given).choices[0].message.content == "Hi!"


def test_an_answer_that_the_filter_ended_is_not_complete() -> None:
    filtered = json.loads(json.dumps(DOCUMENT))
    filtered["choices"][0]["finish_reason"] = "content_filter"

    assert Finish.COMPLETE is not API.read_body(json.dumps(filtered).encode(), RULES).finish
