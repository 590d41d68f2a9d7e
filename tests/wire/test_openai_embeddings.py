from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.mint import Mint
from gateway.core.model import Entry, Finish, Form, Reason, Usage
from gateway.providers import registry
from gateway.providers.openai import OPENAI
from gateway.providers.openai_other import EMBEDDINGS
from gateway.wire.base import NotUnderstood
from gateway.wire.openai_embeddings import MAX_INPUTS, OpenAIEmbeddings, remaining
from tests.helpers.openai_embeddings import (
    NOW_S,
    UNKNOWN_EMBEDDINGS,
    Provider,
    batch_of,
    request,
)

if TYPE_CHECKING:
    from gateway.providers.base import ApiRules
    from gateway.wire.base import WireApi

API: WireApi = OpenAIEmbeddings()
BOTH = pytest.mark.parametrize("rules", [EMBEDDINGS, UNKNOWN_EMBEDDINGS], ids=["openai", "unknown"])


def keys(body: bytes | dict[str, Any], rules: ApiRules = EMBEDDINGS) -> list[bytes]:
    return [unit.canonical for unit in batch_of(body, rules).units]


# --- units ----------------------------------------------------------------------------------------


@BOTH
def test_an_input_is_the_same_alone_in_a_list_and_in_a_batch(rules: ApiRules) -> None:
    for one, other in (("a", "b"), ([1, 2], [3])):
        [alone] = keys(request(one), rules)
        assert [alone] == keys(request([one]), rules)
        assert alone in keys(request([other, one]), rules)


def test_text_and_tokens_are_never_the_same() -> None:
    inputs: list[Any] = ["1", "[1]", "1,2", [1], [1, 2], [2, 1], [12]]

    assert len(inputs) == len({key for each in inputs for key in keys(request(each))})


@BOTH
@pytest.mark.parametrize(
    "changes",
    [
        {"encoding_format": "base64"},
        {"encoding_format": "float"},
        {"encoding_format": None},
        {"dimensions": 256},
        {"dimensions": 1536},
        {"model": "text-embedding-3-large"},
        {"task": "retrieval.query"},
    ],
)
def test_the_envelope_is_part_of_every_key(rules: ApiRules, changes: dict[str, Any]) -> None:
    plain, changed = keys(request(["a", "b"]), rules), keys(request(["a", "b"], **changes), rules)

    assert not set(plain) & set(changed)


def test_the_end_user_is_left_out_where_that_is_documented() -> None:
    assert keys(request("a", user="u")) == keys(request("a"))
    assert keys(request("a", user="u"), UNKNOWN_EMBEDDINGS) != keys(
        request("a"), UNKNOWN_EMBEDDINGS
    )


def test_order_and_spelling_of_the_envelope_are_folded() -> None:
    one = b'{"input":["h\\u00e9"],"dimensions":256.0,"model":"m"}'
    other = '{ "model":"m", "dimensions": 256, "input": "hé" }'.encode()

    assert keys(one) == keys(other)


def test_line_ends_fold_where_configured() -> None:
    rules = registry.rules(OPENAI, "openai_embeddings", fold_text=True)

    assert keys(request("a \r\nb"), rules) == keys(request("a\nb"), rules)
    assert keys(request(["a\rb"]), rules) == keys(request(["a\nb"]), rules)
    assert keys(request("a\r\nb")) != keys(request("a\nb"))


@BOTH
def test_an_unknown_member_binds_the_inputs_to_each_other(rules: ApiRules) -> None:
    bound = {"late_chunking": True}
    batch = batch_of(request(["a", "b"], **bound), rules)

    assert [2] == [unit.size for unit in batch.units]
    assert keys(request(["a", "b"], **bound), rules) != keys(request(["b", "a"], **bound), rules)
    assert keys(request("a", **bound), rules) != keys(request(["a"], **bound), rules)
    assert batch.canonical == batch.units[0].canonical


def test_members_of_the_tables_leave_the_inputs_independent() -> None:
    known = {"encoding_format": "float", "dimensions": 3, "user": "u"}

    for rules in (EMBEDDINGS, UNKNOWN_EMBEDDINGS):
        assert 2 == len(batch_of(request(["a", "b"], **known), rules).units)


def test_the_frame_of_a_batch_is_no_request() -> None:
    one, other = batch_of(request(["a", "b"])), batch_of(request(["b", "a"]))
    requests = {one.canonical, other.canonical, *keys(request(["a", "b"]))}

    assert one.frame != other.frame
    assert not {one.frame, other.frame} & requests


@pytest.mark.parametrize(
    "given_input",
    [
        *(None, "", [], [""], ["a", ""], [[]], ["a", [1]], [1, "a"], [1.5], [-1], 5, True),
        *({"text": "a"}, [{"text": "a"}], [None], ["a"] * (MAX_INPUTS + 1)),
    ],
)
def test_what_is_documented_nowhere_is_passed_on(given_input: Any) -> None:
    with pytest.raises(NotUnderstood) as caught:
        batch_of(request(given_input))

    assert (Reason.NOT_UNDERSTOOD, "$.input") == (caught.value.reason, caught.value.where)


def test_a_batch_as_long_as_documented_is_understood() -> None:
    batch = batch_of(request([str(n) for n in range(MAX_INPUTS)]))

    assert MAX_INPUTS == len(batch.units)


# --- what is left to ask --------------------------------------------------------------------------


def test_repeated_inputs_are_asked_for_once() -> None:
    batch = batch_of(request(["a", "b", "a", "c", "b"]))

    assert [0, 1, 3] == batch.missing(())
    assert [1, 3] == batch.missing({batch.units[0].canonical})
    assert [] == batch.missing({unit.canonical for unit in batch.units})


def test_every_byte_but_the_inputs_left_out_stays() -> None:
    body = '{ "x-é": [1.0,{}],"model" : "m" , "dimensions":2.50e1, "input":\n[ "a\\u00e9", "b,]" ,"é\\"" ],"user":"u" }\n'
    batch = batch_of(body.encode().replace(b'"x-\xc3\xa9": [1.0,{}],', b""))
    raw = body.encode()

    expected = '{ "x-é": [1.0,{}],"model" : "m" , "dimensions":2.50e1, "input":\n["a\\u00e9","é\\""],"user":"u" }\n'
    assert expected.encode() == remaining(raw, batch, [0, 2])
    assert raw == remaining(raw, batch, [0, 1, 2])


def test_tokens_stay_as_they_are_spelled() -> None:
    body = b'{"model":"m","input":[[1, 2],[3 ],[ 4,5]]}'

    assert b'{"model":"m","input":[[3 ],[ 4,5]]}' == remaining(body, batch_of(body), [1, 2])


def test_a_batch_of_one_unit_is_asked_for_as_it_came() -> None:
    for value in (request("a"), request([1, 2]), request(["a", "b"], late_chunking=True)):
        raw = json.dumps(value).encode()
        assert raw is remaining(raw, batch_of(raw), [0])


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
inputs = st.lists(texts, min_size=2, max_size=6) | st.lists(
    st.lists(st.integers(0, 99), min_size=1, max_size=3), min_size=2, max_size=6
)


@given(inputs, st.data(), st.booleans(), st.sampled_from([None, 2]))
def test_what_remains_asks_for_the_missing_units_alone(
    inputs: Any, data: st.DataObject, ascii_only: bool, indent: int | None
) -> None:
    raw = json.dumps(
        request(inputs, encoding_format="base64"), ensure_ascii=ascii_only, indent=indent
    ).encode()
    batch = batch_of(raw)
    known = data.draw(st.sets(st.sampled_from([u.canonical for u in batch.units])))
    missing = batch.missing(known)
    if not missing:
        return

    left = json.loads(remaining(raw, batch, missing))
    assert request([inputs[p] for p in missing], encoding_format="base64") == left
    assert [batch.units[p] for p in missing] == list(batch_of(remaining(raw, batch, missing)).units)


# --- one unit, like any other request ---------------------------------------------------------------


def entry_of(payload: bytes) -> Entry:
    return Entry(API.name, Form.BODY, frozenset({Form.BODY}), payload, 0.0, 1.0, "m", "", None, False)  # fmt: skip


def test_a_request_of_one_unit_is_kept_and_served_whole() -> None:
    raw = json.dumps(request("a")).encode()
    question = API.understand(raw, EMBEDDINGS)
    document = Provider(extra='"id":"embd-Ab3dEf9h","created":1,').answer(raw)
    answer = API.read_body(document, EMBEDDINGS)
    served = API.serve(entry_of(document), question.ask, Mint(NOW_S, b"s"), EMBEDDINGS)

    assert [question.canonical] == keys(raw)
    assert (Form.BODY, True) == (question.ask.form, question.ask.deterministic)
    assert (Finish.COMPLETE, frozenset({Form.BODY})) == (answer.finish, answer.forms)
    assert (Usage(uncached_input=1), "text-embedding-3-small") == (answer.usage, answer.model)
    assert API.can_serve(entry_of(document), question.ask)
    stamped = json.loads(document) | {
        "id": json.loads(served)["id"],
        "created": NOW_S,
    }
    assert stamped == json.loads(served)
    assert "embd-Ab3dEf9h" != stamped["id"]


def test_an_answer_without_id_and_time_is_served_byte_by_byte() -> None:
    for value in (request("a"), request(["a", "b"], late_chunking=True)):
        raw = json.dumps(value).encode()
        ask = API.understand(raw, EMBEDDINGS).ask
        document = Provider().answer(raw)
        served = API.serve(entry_of(document), ask, Mint(NOW_S, b"s"), EMBEDDINGS)
        assert json.loads(document) == json.loads(served)


def test_embeddings_do_not_stream() -> None:
    ask = API.understand(json.dumps(request("a")).encode(), EMBEDDINGS).ask

    assert API.with_stream_usage(b"{}", ask, EMBEDDINGS) is None
    event = b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n'
    assert event == API.without_unasked_usage(event)
    assert Finish.UNKNOWN is API.read_stream(b"data: [DONE]\n\n", EMBEDDINGS).finish


def test_an_error_has_the_shape_of_the_api() -> None:
    error = json.loads(API.error(503, "no", "bad", None))["error"]

    assert {"message": "no", "type": "server_error", "param": None, "code": "bad"} == error
