"""Streams however they are cut, answers in either form, and batches however much is known."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given

from gateway.core import sse
from gateway.core.mint import Mint
from gateway.core.model import Answer, Ask, Entry, Form
from gateway.core.sse import Splitter
from gateway.core.template import template
from gateway.providers.registry import PROVIDERS, rules
from gateway.wire.live import ids_in
from gateway.wire.table import APIS
from tests.helpers.answers import accumulated, document, said
from tests.helpers.dice import Dice
from tests.helpers.openai_embeddings import Provider, Proxy, request
from tests.properties.conftest import many, seeds

if TYPE_CHECKING:
    from gateway.providers.base import ApiRules
    from gateway.wire.base import WireApi

pytestmark = pytest.mark.timeout(600)

BOTH = frozenset(Form)
STREAMING = [api for api in APIS.values() if api.name != "openai_embeddings"]
HOME = {"anthropic_messages": "anthropic"}
PIECES = (
    *(b"data: a\n\n", b"data:b\r\n\r\n", b"data: c\r\r", b"event: e\n", b"\n", b"\r", b"\r\n"),
    *(b": ping\n\n", b"data", b": ", b"id: 1\n", "data: é😀\n\n".encode(), b"data: [DONE]\n\n"),
)


def home_of(api: WireApi) -> ApiRules:
    return rules(PROVIDERS[HOME.get(api.name, "openai")], api.name)


def served(api: WireApi, answer: Answer, form: Form, *, seed: bytes = b"seed") -> bytes:
    """The answer as a client gets it from the cache."""
    ask = Ask(form=form, model="m", include_usage=True)
    entry = entry_of(api, answer)
    assert api.can_serve(entry, ask)
    return api.serve(entry, ask, Mint(1_800_000_000, seed), home_of(api))


def entry_of(api: WireApi, answer: Answer) -> Entry:
    return Entry(
        api=api.name,
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


def cut(dice: Dice, text: bytes) -> list[bytes]:
    """The bytes in chunks, as a network may deliver them."""
    if dice.yes(0.1):
        return [text[i : i + 1] for i in range(len(text))]
    places = sorted(dice.up_to(len(text)) for _ in range(dice.up_to(6)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


def pieces_of(dice: Dice, text: bytes) -> list[bytes]:
    splitter = Splitter(1 << 20)
    pieces = [piece for chunk in cut(dice, text) for piece in splitter.feed(chunk)]
    return [*pieces, splitter.rest()]


@many
@given(seeds)
def test_parsing_a_stream_does_not_depend_on_how_its_bytes_are_split(seed: int) -> None:
    dice = Dice(seed)
    text = b"".join(dice.one(PIECES) for _ in range(dice.up_to(12)))
    pieces = pieces_of(dice, text)

    assert text == b"".join(pieces)
    assert sse.parse(text) == [event for piece in pieces for event in sse.parse(piece)]
    assert all(len(sse.parse(piece)) <= 1 for piece in pieces)


@many
@given(seeds)
def test_replay_parses_to_the_object_of_the_whole_answer_and_back(seed: int) -> None:
    dice = Dice(seed)
    api = dice.one(STREAMING)
    whole = document(dice, api.name)
    table = home_of(api)
    answer = api.read_body(json.dumps(whole).encode(), table)
    assert answer.forms == BOTH
    expected = said(api.name, whole)

    # Stored as a document, replayed as a stream; recorded as a stream however it was cut.
    stream = served(api, answer, Form.STREAM)
    assert accumulated(api.name, stream) == expected
    recorded = api.read_stream(b"".join(pieces_of(dice, stream)), table)
    assert recorded.forms == BOTH
    assert (answer.finish, answer.usage) == (recorded.finish, recorded.usage)

    # Stored as a stream, replayed as a document, and as a stream once more.
    again = json.loads(served(api, recorded, Form.BODY))
    assert said(api.name, again) == expected
    twice = served(api, recorded, Form.STREAM, seed=b"other")
    assert accumulated(api.name, twice) == expected

    # Fresh ids on every hit.
    ids = {api.read_body(served(api, answer, Form.BODY, seed=s), table).response_id for s in (b"1", b"2")}  # fmt: skip
    assert len({*ids, answer.response_id}) == 3


@many
@given(seeds)
def test_a_batch_of_embeddings_is_the_same_whatever_part_of_it_is_known(seed: int) -> None:
    dice = Dice(seed)
    proxy = Proxy(Provider())
    inputs = [dice.one(("one", "two", "three", "é", "x y", "1")) for _ in range(1 + dice.up_to(5))]
    encoding = dice.one(("float", "base64"))
    if dice.yes(0.8):
        before = [dice.one(inputs) for _ in range(1 + dice.up_to(2))]
        proxy.ask(request(before, encoding_format=encoding))
    body = request(inputs, encoding_format=encoding)
    got = json.loads(proxy.ask(body))

    expected = json.loads(Provider().answer(json.dumps(body).encode()))
    assert got["data"] == expected["data"]
    assert proxy.hit + proxy.miss >= len(set(inputs))
    again = json.loads(proxy.ask(body))
    assert again["data"] == expected["data"]
    assert proxy.miss == 0


@many
@given(seeds)
def test_a_template_filled_is_byte_for_byte_what_rendering_anew_would_be(seed: int) -> None:
    dice = Dice(seed)
    api = dice.one(STREAMING)
    table = home_of(api)
    answer = api.read_body(json.dumps(document(dice, api.name)).encode(), table)
    if dice.yes():
        answer = api.read_stream(served(api, answer, Form.STREAM), table)
    form, usage, made = dice.one((*Form,)), dice.yes(), f"seed {seed}".encode()
    ids = sorted(ids_in(answer.payload) or ())
    history = frozenset(each for each in ids if dice.yes(0.2)) | {"call_of_another_time"}
    ask = Ask(form=form, model="m", include_usage=usage, history_ids=history)
    entry = entry_of(api, answer)
    if not api.can_serve(entry, ask):
        return

    def serve(mint: Mint) -> bytes:
        rendered: bytes = api.serve(entry, ask, mint, table)
        return rendered

    found = template(serve, entry.payload, b"sixteen bytes ..")
    # (Ids that are too short to be told from other text have no template.)
    if found is not None:
        assert found.fill(Mint(1_800_000_000, made)) == serve(Mint(1_800_000_000, made))
    # Whose history holds none of the answer's ids gets what one without a history gets.
    bare = Ask(form=form, model="m", include_usage=usage)
    if history.isdisjoint(ids):
        assert serve(Mint(1, made)) == api.serve(entry, bare, Mint(1, made), table)
