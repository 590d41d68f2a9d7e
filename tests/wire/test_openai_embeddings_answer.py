"""Embeddings: an answer put together of known and new parts is the answer to the whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse

from gateway.core.mint import Mint
from gateway.core.model import Finish, Form, Usage
from gateway.wire.openai_embeddings_answer import (
    Unit,
    answer_parts,
    assemble,
    frame_of,
    read_body,
)
from tests.helpers.openai_embeddings import (
    NOW_S,
    Provider,
    Proxy,
    request,
    spelled,
    tokens_of,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
tokens = st.lists(st.integers(0, 99), min_size=1, max_size=4)
inputs = st.lists(texts, min_size=1, max_size=5) | st.lists(tokens, min_size=1, max_size=5)
encodings = st.sampled_from([{}, {"encoding_format": "base64"}, {"encoding_format": "float"}])


def without_usage(document: bytes) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(document)
    del value["usage"]
    return value


def items_as_spelled(document: bytes, given_inputs: list[Any], encoding: str | None) -> bool:
    return all(
        spelled(each, index, encoding).encode() in document
        for index, each in enumerate(given_inputs)
    )


# --- assembled equals asked -----------------------------------------------------------------------


@given(inputs, encodings, st.data())
def test_any_subset_known_the_answer_is_the_same(
    given_inputs: list[Any], more: dict[str, str], data: st.DataObject
) -> None:
    proxy = Proxy(Provider())
    known = data.draw(st.lists(st.sampled_from(given_inputs), max_size=4))
    for each in known if data.draw(st.booleans()) else [known] if known else []:
        proxy.ask(request(each, **more))
    asked_before, billed_before = len(proxy.provider.asked), proxy.provider.billed

    got = proxy.ask(request(given_inputs, **more))
    direct = Provider().answer(json.dumps(request(given_inputs, **more)).encode())

    assert without_usage(direct) == without_usage(got)
    assert items_as_spelled(got, given_inputs, more.get("encoding_format"))
    new = [i for n, i in enumerate(given_inputs) if i not in known and i not in given_inputs[:n]]
    if not new:
        assert asked_before == len(proxy.provider.asked)
        assert (len(given_inputs), 0) == (proxy.hit, proxy.miss)
    else:
        billed = proxy.provider.billed - billed_before
        usage = {"prompt_tokens": billed, "total_tokens": billed}
        assert asked_before + 1 == len(proxy.provider.asked)
        assert usage == json.loads(got)["usage"]


@given(st.lists(st.lists(texts, min_size=1, max_size=4), min_size=1, max_size=4), st.data())
def test_a_repeated_batch_gets_the_very_answer_again(
    batches: list[list[str]], data: st.DataObject
) -> None:
    proxy = Proxy(Provider(extra='"id":"embd-Ab3dEf9h","created":1760000000,'))
    first = {i: json.loads(proxy.ask(request(batch))) for i, batch in enumerate(batches)}
    asked = len(proxy.provider.asked)
    for index in data.draw(st.permutations(range(len(batches)))):
        again = json.loads(proxy.ask(request(batches[index])))
        assert NOW_S == again.pop("created")
        assert again.pop("id") not in {"", "embd-Ab3dEf9h"}
        expected = {k: v for k, v in first[index].items() if k not in {"id", "created"}}
        assert expected == again
    assert asked == len(proxy.provider.asked)


def test_the_answer_is_what_the_sdk_reads() -> None:
    proxy = Proxy(Provider())
    proxy.ask(request("b"))
    got = CreateEmbeddingResponse.model_validate_json(proxy.ask(request(["a", "b", "c"])))

    assert [0, 1, 2] == [each.index for each in got.data]
    assert ("list", "text-embedding-3-small") == (got.object, got.model)


# --- usage ----------------------------------------------------------------------------------------


def usage_of(answer: bytes) -> int:
    usage = json.loads(answer)["usage"]
    assert usage["prompt_tokens"] == usage["total_tokens"]
    return int(usage["prompt_tokens"])


def test_a_mixed_answer_states_what_this_call_was_billed() -> None:
    proxy = Proxy(Provider())
    for n in range(90):
        proxy.ask(request(f"known {n}"))
    batch = [f"known {n}" for n in range(90)] + [f"new {n}" for n in range(10)]
    got = proxy.ask(request(batch))

    assert (90, 10) == (proxy.hit, proxy.miss)
    assert sum(tokens_of(f"new {n}") for n in range(10)) == usage_of(got)
    assert usage_of(got) == usage_of(proxy.ask(request(batch)))
    assert (100, 0) == (proxy.hit, proxy.miss)


def test_a_batch_of_inputs_that_were_asked_alone_states_their_sum() -> None:
    proxy = Proxy(Provider())
    for each in ("one", "twofold"):
        proxy.ask(request(each))

    assert tokens_of("one") + 2 * tokens_of("twofold") == usage_of(
        proxy.ask(request(["twofold", "one", "twofold"]))
    )


def test_inputs_whose_count_nobody_told_state_that_nothing_was_billed() -> None:
    proxy = Proxy(Provider())
    proxy.ask(request(["one", "twofold", "three"]))

    assert 0 == usage_of(proxy.ask(request("one")))
    assert 0 == usage_of(proxy.ask(request(["three", "one"])))


def test_tokens_count_themselves_where_the_upstream_counts_as_many() -> None:
    proxy = Proxy(Provider())
    proxy.ask(request([[1, 2, 3], [4]]))

    assert 3 == usage_of(proxy.ask(request([1, 2, 3])))
    assert 1 == usage_of(proxy.ask(request([[4]])))
    # An upstream that adds tokens of its own is not known to add as many to each.
    [part, _] = answer_parts(Provider().answer(b'{"input":["abcdefgh","b"]}'), UNITS) or []
    assert part.usage is None


UNITS = [Unit(b"1", tokens=1), Unit(b"2", tokens=1)]


def test_an_upstream_that_states_no_usage_states_none_for_a_batch() -> None:
    proxy = Proxy(Provider())
    for spelled_usage in (b'"usage": null', b'"y": 1'):
        document = proxy.provider.answer(b'{"input":["a","b"]}').replace(
            b'"usage": {"prompt_tokens": 2, "total_tokens":2 }', spelled_usage
        )
        parts = answer_parts(document, [Unit(b"1"), Unit(b"2")])
        assert parts is not None
        whole = assemble(UNITS, [part.payload for part in reversed(parts)], None, None)
        assert whole is not None
        assert spelled_usage in whole.payload


# --- parts ----------------------------------------------------------------------------------------


def test_a_part_is_the_answer_that_its_input_would_have_got_alone() -> None:
    provider = Provider(extra='"id":"embd-1","y":{"a":1.50},')
    parts = answer_parts(provider.answer(b'{"input":["a","b"]}'), [Unit(b"1"), Unit(b"2")])

    assert parts is not None
    for given_input, part in zip("ab", parts, strict=True):
        alone = provider.answer(json.dumps({"input": given_input}).encode())
        assert without_usage(alone) == without_usage(part.payload)
        assert spelled(given_input, 0, None).encode() in part.payload
        assert b'"y":{"a":1.50}' in part.payload
        assert (Finish.COMPLETE, Form.BODY, None) == (part.finish, part.recorded, part.usage)
        assert frozenset({Form.BODY}) == part.forms
        assert ("text-embedding-3-small", "embd-1") == (part.model, part.response_id)


def test_an_answer_to_one_unit_is_stored_byte_by_byte() -> None:
    document = Provider().answer(b'{"input":["a","b"]}')

    [part] = answer_parts(document, [Unit(b"1", size=2)]) or []
    assert (document, Usage(uncached_input=2)) == (part.payload, part.usage)


def test_a_frame_is_the_answer_without_its_embeddings() -> None:
    frame = frame_of(Provider().answer(b'{"input":["a","b"]}'))

    assert [] == json.loads(frame.payload)["data"]
    assert b'"usage": {"prompt_tokens": 2, "total_tokens":2 }' in frame.payload
    assert Usage(uncached_input=2) == frame.usage


def test_vectors_of_two_models_are_never_in_one_answer() -> None:
    proxy = Proxy(Provider())
    proxy.ask(request("a"))
    proxy.provider.model = "text-embedding-3-small-v2"
    got = proxy.ask(request(["a", "b"]))

    assert "text-embedding-3-small-v2" == json.loads(got)["model"]
    assert (0, 2) == (proxy.hit, proxy.miss)
    assert got == Provider(model="text-embedding-3-small-v2").answer(
        json.dumps(request(["a", "b"])).encode()
    )
    assert json.loads(got) == json.loads(proxy.ask(request(["a", "b"])))


def test_a_frame_of_another_model_is_not_used() -> None:
    new, old = Provider(model="new"), Provider(model="old")
    frame = frame_of(old.answer(b'{"input":["a","b"]}')).payload
    parts = [new.answer(b'{"input":"a"}'), new.answer(b'{"input":"b"}')]

    assert assemble(UNITS, parts, frame, None) is None
    whole = assemble(UNITS, parts, None, None)
    assert whole is not None
    assert ("new", Usage(uncached_input=2)) == (whole.model, whole.usage)


# --- odd answers ----------------------------------------------------------------------------------

GOOD = {
    "object": "list",
    "data": [
        {"object": "embedding", "index": 0, "embedding": [0.5, 1]},
        {"object": "embedding", "index": 1, "embedding": "AAAA"},
    ],
    "model": "m",
    "usage": {"prompt_tokens": 2, "total_tokens": 2},
}


def item(**changes: Any) -> dict[str, Any]:
    """The good answer with its second item changed; what is set to None is left out."""
    changed = {**GOOD["data"][1], **changes}  # type: ignore[index]  # a list of objects
    data = [GOOD["data"][0], {k: v for k, v in changed.items() if v is not None}]  # type: ignore[index]
    return {**GOOD, "data": data}


def test_the_good_answer_is_good() -> None:
    assert Finish.COMPLETE is read_body(json.dumps(GOOD).encode()).finish
    assert answer_parts(json.dumps(GOOD).encode(), [Unit(b"1"), Unit(b"2")]) is not None


@pytest.mark.parametrize(
    ("finish", "value"),
    [
        (Finish.ERROR, {**GOOD, "error": {"message": "boom"}}),
        (Finish.ERROR, {"error": "boom"}),
        (Finish.EMPTY, {**GOOD, "data": []}),
        (Finish.UNKNOWN, {**GOOD, "data": {}}),
        (Finish.UNKNOWN, {**GOOD, "data": None}),
        (Finish.UNKNOWN, {**GOOD, "data": "[]"}),
        (Finish.UNKNOWN, {**GOOD, "data": [1, 2]}),
        (Finish.UNKNOWN, {**GOOD, "object": "lists"}),
        (Finish.UNKNOWN, {**GOOD, "model": None}),
        (Finish.UNKNOWN, {**GOOD, "usage": []}),
        (Finish.UNKNOWN, {**GOOD, "usage": {"prompt_tokens": "2"}}),
        (Finish.UNKNOWN, {**GOOD, "usage": {"prompt_tokens": -2}}),
        (Finish.UNKNOWN, {**GOOD, "usage": {"total_tokens": 2}}),
        (Finish.UNKNOWN, {**GOOD, "data": GOOD["data"][::-1]}),  # type: ignore[index]
        (Finish.UNKNOWN, item(index=2)),
        (Finish.UNKNOWN, item(index="1")),
        (Finish.UNKNOWN, item(index=1.0)),
        (Finish.UNKNOWN, item(index=True)),
        (Finish.UNKNOWN, item(index=None)),
        (Finish.UNKNOWN, item(object="vector")),
        (Finish.UNKNOWN, item(object=None)),
        (Finish.UNKNOWN, item(embedding=None)),
        (Finish.UNKNOWN, item(embedding=[])),
        (Finish.UNKNOWN, item(embedding="")),
        (Finish.UNKNOWN, item(embedding=["1"])),
        (Finish.UNKNOWN, item(embedding=[1, None])),
        (Finish.UNKNOWN, item(embedding=[[1]])),
        (Finish.UNKNOWN, item(embedding={"a": 1})),
        (Finish.UNKNOWN, item(embedding=[float("nan")])),
    ],
)
def test_an_odd_answer_is_neither_stored_nor_mixed(finish: Finish, value: dict[str, Any]) -> None:
    document = json.dumps(value).encode()

    assert finish == read_body(document).finish
    assert answer_parts(document, [Unit(b"1"), Unit(b"2")]) is None
    assert assemble([Unit(b"1", size=2)], [document], None, None) is None
    if finish is not Finish.EMPTY:  # as every frame is
        good = json.dumps(GOOD).encode()
        assert assemble([Unit(b"1", size=2)], [good], document, None) is None


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"\xff",
        json.dumps(GOOD).encode()[:-1],
        json.dumps(GOOD).encode() + b"x",
        json.dumps(GOOD).encode().replace(b'"index": 1', b'"index": 1, "index": 1'),
        json.dumps(GOOD).encode().replace(b'"model"', b'"model": "a", "model"'),
        json.dumps(GOOD).encode().replace(b'"m"', b'"\\ud800"'),
        json.dumps(GOOD).encode().replace(b'"m"', b'"m", "deep": ' + b"[" * 9999 + b"]" * 9999),
    ],
)
def test_what_cannot_be_read_is_not_offered(document: bytes) -> None:
    answer = read_body(document)

    assert (Finish.UNKNOWN, frozenset()) == (answer.finish, answer.forms)
    assert answer_parts(document, [Unit(b"1"), Unit(b"2")]) is None


@pytest.mark.parametrize("units", [[], [Unit(b"1")], [Unit(b"1"), Unit(b"2"), Unit(b"3")], [Unit(b"1", size=3)]])  # fmt: skip
def test_an_answer_with_another_number_of_embeddings_is_not_stored(units: list[Unit]) -> None:
    assert answer_parts(json.dumps(GOOD).encode(), units) is None


def test_a_part_of_another_size_spoils_no_batch() -> None:
    two, one = (Provider().answer(json.dumps({"input": i}).encode()) for i in (["a", "b"], ["c"]))

    assert assemble(UNITS, [two, one], None, None) is None
    assert assemble([Unit(b"1", size=2), Unit(b"2")], [two, one], None, None) is not None
    assert assemble(UNITS, [one], None, None) is None


def test_an_odd_answer_to_what_remained_makes_the_whole_be_asked_for() -> None:
    class Odd(Provider):
        def answer(self, body: bytes) -> bytes:
            document = super().answer(body)
            # Gives one vector too few to whatever isn't the whole batch.
            return document if b'"a"' in body else document.replace(b'"embedding",', b'"e",')

    proxy = Proxy(Odd())
    proxy.ask(request("a"))
    got = proxy.ask(request(["a", "b"]))

    assert Provider().answer(json.dumps(request(["a", "b"])).encode()) == got


def test_one_part_in_the_wrong_place_can_not_hide() -> None:
    parts = [Provider().answer(json.dumps({"input": each}).encode()) for each in "abc"]
    whole = assemble([*UNITS, Unit(b"3")], parts, None, Mint(NOW_S, b"s"))

    assert whole is not None
    direct = Provider().answer(b'{"input":["a","b","c"]}')
    assert json.loads(direct) == json.loads(whole.payload)
