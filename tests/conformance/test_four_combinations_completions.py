"""As `test_four_combinations`, of OpenAI's older APIs: completions, and embeddings of batches."""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.sdk_programs import FORMS, TEXT, Program, programs, without_ids

if TYPE_CHECKING:
    from tests.conformance.conftest import Client, Sdk, World


def prompt(given: Any, /, **more: Any) -> dict[str, Any]:
    # Without a limit this API stops after 16 tokens, and what was cut short is not kept.
    return {"model": "gpt-3.5-turbo-instruct", "prompt": given, "max_tokens": 99, **more}


COMPLETIONS = (
    Program("words", prompt(TEXT)),
    Program("long", prompt("[long 400] go on", max_tokens=999)),
    Program("several", prompt("Say it in three ways.", n=3)),
    Program("several-prompts", prompt(["One.", "Two. ☕"], n=2)),
    Program("tokens", prompt([9906, 11, 1917])),
    Program("lists-of-tokens", prompt([[9906], [11, 1917]])),
    Program("no-prompt", prompt(None)),
    Program("echo", prompt(TEXT, echo=True)),
    Program("logprobs", prompt("How sure?", logprobs=2)),
    Program("chosen-logprobs", prompt("How sure?", logprobs=0)),
    Program("logprobs-of-all", prompt("Sure? ☕", logprobs=1, echo=True, n=2)),
    Program("one-word", prompt("Yes or no?", max_tokens=4)),
    Program("stop", prompt("Stop early.", stop=["e", "\n"])),
    Program("seed", prompt("Pick a number.", seed=7, temperature=1.0)),
    Program("suffix", prompt("def f():\n    ", suffix="\n\nf()")),
)


def merged(chunks: list[Any]) -> dict[str, Any]:
    """What a program makes of a stream: the SDK has no accumulator for this API."""
    whole = chunks[0].model_dump()
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        whole["usage"] = chunk.model_dump()["usage"]
        assert (chunk.id, chunk.created) == (whole["id"], whole["created"])
        for piece in chunk.model_dump()["choices"]:
            if (known := choices.setdefault(piece["index"], piece)) is piece:
                continue
            known["text"] += piece["text"]
            known["finish_reason"] = piece["finish_reason"]
            for name, values in (piece["logprobs"] or {}).items():
                if values is not None:
                    known["logprobs"][name] += values
    return {**whole, "choices": [choices[index] for index in sorted(choices)]}


def completed(client: Client, program: Program, form: str, *, usage: bool) -> dict[str, Any]:
    """The completion as this program gets it, as data."""
    asked = program.asked
    if form == "body":
        made: dict[str, Any] = client.call(lambda c: c.completions.create(**asked)).model_dump()
        return made
    options = {"stream_options": {"include_usage": True}} if usage else {}
    return merged(client.items(lambda c: c.completions.create(**asked, **options, stream=True)))


@pytest.mark.parametrize("recorded", FORMS)
@pytest.mark.parametrize("usage", [False, True], ids=["", "usage"])
@programs(*COMPLETIONS)
def test_a_completion_is_the_same_on_a_miss_and_on_hits_in_both_forms(
    world: World, sdk: Sdk, program: Program, recorded: str, usage: bool
) -> None:
    provider, client = sdk.openai(world.stub.v1_url), sdk.openai(f"{world.url}/v1")
    due = {form: completed(provider, program, form, usage=usage) for form in FORMS}
    before = world.calls

    first = completed(client, program, recorded, usage=usage)
    assert client.last["x-gateway-cache"] == "miss"
    assert without_ids(due[recorded]) == without_ids(first)
    seen = {first["id"]}
    for form in (recorded, *FORMS):
        again = completed(client, program, form, usage=usage)
        assert client.last["x-gateway-cache"] == "hit"
        assert without_ids(due[form]) == without_ids(again)
        assert again["id"] not in seen
        seen.add(again["id"])
    assert world.calls == before + 1


# --- embeddings -----------------------------------------------------------------------------------

NAMES = [f"text {number} ☕" for number in range(100)]


def embed(given: Any, /, **more: Any) -> dict[str, Any]:
    return {"model": "text-embedding-3-small", "input": given, **more}


EMBEDDINGS = (
    Program("one", embed("What is a cache?")),
    Program("batch", embed(["one", "two ☕", "one", "three"], dimensions=8)),
    Program("floats", embed(["one", "two"], dimensions=8, encoding_format="float")),
    Program("base64", embed(["one", "two"], dimensions=8, encoding_format="base64")),
    Program("tokens", embed([9906, 11, 1917], dimensions=8)),
    Program("lists-of-tokens", embed([[9906], [11, 1917], [9906]], dimensions=8)),
    Program("user", embed("one", dimensions=8, user="u-1")),
)


@programs(*EMBEDDINGS)
def test_embeddings_are_the_same_on_a_miss_and_on_hits(
    world: World, sdk: Sdk, program: Program
) -> None:
    provider, client = sdk.openai(world.stub.v1_url), sdk.openai(f"{world.url}/v1")
    due = provider.call(lambda c: c.embeddings.create(**program.asked))
    before = world.calls
    for cache in ("miss", "hit", "hit"):
        made = client.call(lambda c: c.embeddings.create(**program.asked))
        assert client.last["x-gateway-cache"] == cache
        assert due.data == made.data
        assert (due.object, due.model) == (made.object, made.model)
    assert world.calls == before + 1


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_a_batch_is_asked_for_what_is_not_known_of_it(
    world: World, sdk: Sdk, encoding: str
) -> None:
    provider, client = sdk.openai(world.stub.v1_url), sdk.openai(f"{world.url}/v1")

    def vectors(one: Client, given: list[str]) -> list[list[float]]:
        asked = embed(given, dimensions=8, encoding_format=encoding)
        data = one.call(lambda c: c.embeddings.create(**asked)).data
        assert list(range(len(given))) == [each.index for each in data]
        return [
            each.embedding
            if encoding == "float"
            else list(struct.unpack("<8f", base64.b64decode(each.embedding)))
            for each in data
        ]

    due = vectors(provider, NAMES)
    assert vectors(client, NAMES[5:95]) == due[5:95]
    world.settle()
    assert vectors(client, NAMES) == due
    assert world.stub.received[-1].json()["input"] == [*NAMES[:5], *NAMES[95:]]
    world.settle()
    before = world.calls
    assert vectors(client, NAMES[::-1]) == due[::-1]
    assert client.last["x-gateway-cache"] == "hit"
    assert world.calls == before
