"""However a body is spelled and whichever way it is read, it has one value and one key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given

from gateway.core import canonical
from gateway.core.canonical import Number, Uncacheable
from gateway.providers.registry import PROVIDERS, rules
from gateway.wire.base import NotUnderstood
from gateway.wire.table import APIS
from tests.golden.cases import cases
from tests.golden.keys import vector
from tests.helpers.dice import Dice
from tests.helpers.odd_json import odd, spelled
from tests.properties.conftest import many, seeds

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.canonical import Json
    from gateway.providers.base import ApiRules
    from gateway.wire.base import WireApi

pytestmark = pytest.mark.timeout(600)

every_api = pytest.mark.parametrize("api", APIS.values(), ids=[api.name for api in APIS.values()])


def number_by_number(text: bytes) -> Json:
    """As `canonical.parse`, but each number in its spelling, also those that need none."""

    def kept(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: kept(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [kept(inner) for inner in value]
        return Number(canonical.spelled(value)) if canonical.is_number(value) else value

    exact: Json = kept(canonical.parse_slowly(text))
    return exact


def read(parse: Callable[[bytes], Json], text: bytes) -> str | None:
    """The value, down to the types of its numbers and the order of its members."""
    try:
        return repr(parse(text))
    except Uncacheable:
        return None


@many
@given(seeds)
def test_a_text_has_one_value_whichever_way_it_is_read(seed: int) -> None:
    dice = Dice(seed)
    text = spelled(dice, odd(dice, dice.json(6)))

    assert read(canonical.parse_slowly, text) == read(canonical.parse, text), text


def asked(api: WireApi, body: bytes, table: ApiRules) -> Any:
    try:
        return api.understand(body, table)
    except NotUnderstood as error:
        return error.reason, error.where, error.what


@every_api
@many
@given(seeds)
def test_the_key_does_not_depend_on_the_way_the_body_was_read(api: WireApi, seed: int) -> None:
    dice = Dice(seed)
    body = spelled(dice, odd(dice, dice.request(api.name)))
    table = rules(dice.one(list(PROVIDERS.values())), api.name, fold_text=dice.yes(0.2))
    fast = asked(api, body, table)

    with pytest.MonkeyPatch.context() as patch:
        for way in (canonical.parse_slowly, number_by_number):
            patch.setattr(canonical, "parse", way)
            assert fast == asked(api, body, table), body


def test_most_bodies_that_sdks_write_are_read_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the properties above compare two ways, and not one with itself."""
    slow = 0

    def counted(text: bytes) -> Json:
        nonlocal slow
        slow += 1
        return parse_slowly(text)

    parse_slowly = canonical.parse_slowly
    monkeypatch.setattr(canonical, "parse_slowly", counted)
    for seed in range(300):
        body = Dice(seed).request("openai_chat")
        canonical.parse(json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode())
        canonical.parse(json.dumps(body, indent=2, ensure_ascii=False).encode())
    # Python writes 1e+300, orjson 1e300.
    assert slow < 200, slow


@pytest.mark.parametrize("way", [canonical.parse_slowly, number_by_number])
def test_the_golden_keys_are_the_same_whichever_way_their_bodies_are_read(
    way: Callable[[bytes], Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [vector(case) for case in cases()]

    monkeypatch.setattr(canonical, "parse", way)

    assert expected == [vector(case) for case in cases()]
