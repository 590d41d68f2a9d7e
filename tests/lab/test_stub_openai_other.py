from __future__ import annotations

import base64
import struct
from typing import Any

import orjson
import pytest
from openai.types import Completion, CreateEmbeddingResponse

from gateway.core import sse
from gateway.lab.stub_openai_other import completions, embeddings
from gateway.providers.openai_other import COMPLETIONS
from gateway.wire.openai_completions import OpenAICompletions


def ask(**changes: Any) -> dict[str, Any]:
    return {"model": "gpt-3.5-turbo-instruct", "prompt": "hello there", **changes}


def bare(completion: dict[str, Any]) -> dict[str, Any]:
    dumped = Completion.model_validate(completion).model_dump(exclude_none=True)
    return {name: value for name, value in dumped.items() if name not in {"id", "created"}}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n": 3},
        {"max_tokens": 300},
        {"echo": True},
        {"logprobs": 0},
        {"logprobs": 2, "echo": True, "max_tokens": 40},
        {"prompt": ["one", "two"], "n": 2},
        {"prompt": [1, 2, 3]},
        {"prompt": [[1, 2], [3]]},
        {"prompt": "[filter]"},
    ],
)
def test_a_stream_of_a_completion_adds_up_to_its_body(changes: dict[str, Any]) -> None:
    whole = orjson.loads(completions(ask(**changes)).body)
    streamed = completions(ask(**changes, stream=True, stream_options={"include_usage": True}))
    answer = OpenAICompletions().read_stream(b"".join(streamed.events), COMPLETIONS)

    pieces: dict[int, str] = {}
    for event in sse.parse(b"".join(streamed.events))[:-1]:
        for piece in orjson.loads(event.data)["choices"]:
            pieces[piece["index"]] = pieces.get(piece["index"], "") + piece["text"]
    assert {c["index"]: c["text"] for c in whole["choices"]} == pieces
    assert 2 == len(answer.forms)
    assert tuple(c["finish_reason"] for c in whole["choices"]) == answer.finish_reasons
    assert answer.usage is not None
    assert whole["usage"]["prompt_tokens"] == answer.usage.input


def test_prompts_are_counted_and_numbered_one_by_one() -> None:
    answer = orjson.loads(completions(ask(prompt=[[1, 2], [3]], n=2)).body)

    assert [0, 1, 2, 3] == [choice["index"] for choice in answer["choices"]]
    assert 3 == answer["usage"]["prompt_tokens"]
    assert bare(answer) == bare(orjson.loads(completions(ask(prompt=[[1, 2], [3]], n=2)).body))


def test_an_echo_begins_with_the_prompt_and_its_logprobs_with_the_prompts() -> None:
    [choice] = orjson.loads(completions(ask(echo=True, logprobs=1)).body)["choices"]

    assert choice["text"].startswith("hello there")
    assert choice["text"] == "".join(choice["logprobs"]["tokens"])
    assert 1 == len({len(values) for values in choice["logprobs"].values()})


def test_what_the_real_one_refuses_is_refused() -> None:
    assert 400 == completions(ask(best_of=2, stream=True)).status
    assert 400 == completions({"prompt": "x"}).status
    assert 429 == completions(ask(prompt="[error 429]")).status
    assert 200 == completions(ask(best_of=2)).status
    assert 400 == embeddings({"model": "m", "input": ""}).status


def test_a_stream_can_end_in_an_error() -> None:
    events = completions(ask(prompt="[error in stream]", stream=True)).events

    assert b'"error"' in events[-1]
    assert not any(b"[DONE]" in event for event in events)


def test_an_embedding_depends_on_its_input_alone() -> None:
    def embedded(given: Any, **more: Any) -> CreateEmbeddingResponse:
        reply = embeddings({"model": "text-embedding-3-small", "input": given, **more})
        return CreateEmbeddingResponse.model_validate_json(reply.body)

    together, alone = embedded(["a", "bcdefgh"]), embedded("bcdefgh")
    assert together.data[1].embedding == alone.data[0].embedding
    assert together.data[0].embedding != alone.data[0].embedding
    assert embedded([1, 2]).data[0].embedding == embedded([[1, 2], [3]]).data[0].embedding
    assert (1536, 3) == (len(alone.data[0].embedding), len(embedded("a", dimensions=3).data[0].embedding))  # fmt: skip
    assert 3 == embedded([[1, 2], [3]]).usage.prompt_tokens
    assert together.usage.prompt_tokens == sum(
        embedded(each).usage.total_tokens for each in ("a", "bcdefgh")
    )
    packed = orjson.loads(
        embeddings(
            {"model": "text-embedding-3-small", "input": "a", "encoding_format": "base64"}
        ).body
    )["data"][0]["embedding"]
    unpacked = struct.unpack("<1536f", base64.b64decode(packed))
    assert list(unpacked) == together.data[0].embedding
