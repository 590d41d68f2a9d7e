"""Every API and provider: what differs in one place differs, what is stated to be equal is equal,
and the door says what the full way says.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from blake3 import blake3
from hypothesis import given
from multidict import CIMultiDict

from gateway.config import Config
from gateway.core import canonical
from gateway.door import Door
from gateway.providers.registry import PROVIDERS, rules
from gateway.recognition import Recognition, Sender
from gateway.store.secret import ScopeSecrets
from gateway.upstream.choice import Choice, take_apart
from gateway.wire.base import NotUnderstood
from gateway.wire.table import APIS
from tests.helpers.dice import IDS, NUMBERS, Dice, at, is_id, places
from tests.properties.conftest import EXAMPLES, many, seeds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.door import Known
    from gateway.providers.base import ApiRules
    from gateway.wire.base import WireApi

pytestmark = pytest.mark.timeout(600)

BY_NAME = {api.name: api for api in APIS.values()}
every_api = pytest.mark.parametrize("api", BY_NAME.values(), ids=BY_NAME.keys())


def key(api: WireApi, body: Any, table: ApiRules) -> bytes | None:
    """The canonical form; None for what is not understood, which is never cached."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        return api.understand(raw, table).canonical
    except NotUnderstood:
        return None


def table_of(api: WireApi, dice: Dice) -> ApiRules:
    return rules(dice.one(list(PROVIDERS.values())), api.name)


def throw(api: WireApi, seed: int) -> tuple[Dice, ApiRules, dict[str, Any]]:
    dice = Dice(seed)
    return dice, table_of(api, dice), dice.request(api.name)


# --- one place --------------------------------------------------------------------------------------


def same_meaning(table: ApiRules, place: Sequence[str | int], one: Any, other: Any) -> bool:
    """Are two leaves the same there? Numbers of one value are, in a parameter."""
    if place[0] in table.scalars and not isinstance(one, bool) and not isinstance(other, bool):
        return bool(one == other)
    return json.dumps(one) == json.dumps(other)


def changed(dice: Dice, table: ApiRules, body: dict[str, Any]) -> dict[str, Any] | None:
    """The request with another leaf in one place; None where there was nothing to change."""
    place = dice.one(places(body))
    new = dice.leaf()
    if isinstance(at(body, place), str) and dice.yes():
        new = dice.near(at(body, place))
    if is_id(place) or same_meaning(table, place, at(body, place), new):
        return None
    other = copy.deepcopy(body)
    at(other, place[:-1])[place[-1]] = new
    return other


def with_less(dice: Dice, table: ApiRules, body: dict[str, Any]) -> dict[str, Any] | None:
    """The request without one member or item."""
    place = dice.one(places(body))
    place = place[: 1 + dice.up_to(len(place) - 1)]
    if place == ("store",) and body["store"] is True and "store" in table.defaults:
        return None
    other = copy.deepcopy(body)
    del at(other, place[:-1])[place[-1]]
    return other


def with_more(dice: Dice, table: ApiRules, body: dict[str, Any]) -> dict[str, Any] | None:
    """The request with one member more, of which no table knows."""
    place = dice.one(places(body))
    owners = [place[:n] for n in range(len(place) + 1) if isinstance(at(body, place[:n]), dict)]
    other = copy.deepcopy(body)
    at(other, dice.one(owners))["a_new_member"] = dice.json()
    return other


def turned(dice: Dice, table: ApiRules, body: dict[str, Any]) -> dict[str, Any] | None:
    """The request with a list, or the members of a schema, the other way round."""
    place = dice.one(places(body))
    lists = [place[:n] for n in range(len(place)) if isinstance(at(body, place[:n]), list)]
    if not lists:
        return None
    where = dice.one(lists)
    one = at(body, where)
    if any(each in json.dumps(one) for each in IDS):
        return None
    if unified(api_parts(one)) == unified(api_parts(one[::-1])):
        return None
    other = copy.deepcopy(body)
    at(other, where).reverse()
    return other


def api_parts(items: list[Any]) -> list[Any]:
    """The items with every content written as parts: a string is one text part."""
    out = copy.deepcopy(items)
    for item in out:
        if isinstance(item, dict) and isinstance(item.get("content"), str):
            kind = "input_text" if item.get("type") is None and "role" in item else "text"
            item["content"] = [{"type": kind, "text": item["content"]}]
    return out


def unified(items: list[Any]) -> str:
    return json.dumps(items, sort_keys=True).replace('"input_text"', '"text"')


CHANGES: list[Callable[[Dice, ApiRules, dict[str, Any]], dict[str, Any] | None]] = [
    changed,
    with_less,
    with_more,
    turned,
]


@every_api
@many
@given(seeds)
def test_requests_that_differ_in_one_place_never_share_an_identity(api: WireApi, seed: int) -> None:
    dice, table, body = throw(api, seed)
    other = dice.one(CHANGES)(dice, table, body)
    if other is None:
        return
    one, two = key(api, body, table), key(api, other, table)

    assert one is None or one != two, (body, other)


@every_api
def test_most_of_the_thrown_requests_are_understood_and_most_changes_compared(
    api: WireApi,
) -> None:
    """So that the properties here are not about nothing."""
    compared = 0
    for seed in range(400):
        dice, table, body = throw(api, seed)
        other = dice.one(CHANGES)(dice, table, body)
        assert key(api, body, table) is not None, body
        compared += other is not None and key(api, other, table) is not None
    assert compared > 160, compared


# --- stated equivalences ----------------------------------------------------------------------------


def restated(dice: Dice, api: WireApi, table: ApiRules, body: dict[str, Any]) -> bytes:
    """The same request in other words, as the tables state them."""
    other = copy.deepcopy(body)
    for name in table.excluded:
        if dice.yes(0.3):
            other[name] = dice.yes() if name == "stream" else {"a": dice.text()}
    for name, default in table.defaults.items():
        if name not in body and dice.yes(0.3):
            other[name] = default.value
        elif name in body and body[name] is default.value:
            del other[name]
    if table.string_is_text_part is not None:
        for item in other.get("messages") or items_of(other):
            as_part(dice, api, table, item)
    for name in table.scalars:
        if name in other and isinstance(other[name], dict):
            other[name] = dice.order(other[name])
    text = dice.spelled(dice.order(other))
    if "temperature" in other and "temperature" in table.scalars and dice.yes():
        shown = json.dumps(other["temperature"])
        zeros = f"{shown}.0" if isinstance(other["temperature"], int) else shown
        text = json.dumps({**other, "temperature": "@"}).replace('"@"', zeros)
    return text.encode()


def items_of(body: dict[str, Any]) -> list[Any]:
    given = body.get("input")
    found = given if isinstance(given, list) else []
    return [item for item in found if isinstance(item, dict)]


def as_part(dice: Dice, api: WireApi, table: ApiRules, item: dict[str, Any]) -> None:
    """A string becomes the one part that it is short for, perhaps with a marker."""
    content = item.get("content")
    if not isinstance(content, str) or not dice.yes():
        return
    if api.name == "openai_responses" and item.get("role") == "assistant":
        return
    kind = "input_text" if api.name == "openai_responses" else "text"
    part: dict[str, Any] = {"type": kind, "text": content}
    for marker in table.markers:
        if dice.yes(0.3):
            part[marker] = {"type": "ephemeral"}
    item["content"] = [part]


@every_api
@many
@given(seeds)
def test_requests_that_differ_only_in_what_is_stated_to_be_equal_always_share_it(
    api: WireApi, seed: int
) -> None:
    dice, table, body = throw(api, seed)
    one = key(api, body, table)

    assert one is not None
    assert one == key(api, restated(dice, api, table, body), table), body


@many
@given(seeds)
def test_canonical_bytes_are_json_and_their_own_spelling(seed: int) -> None:
    api = Dice(seed).one(list(BY_NAME.values()))
    _, table, body = throw(api, seed + 1)
    made = key(api, body, table)

    assert made is not None
    json.loads(made)
    assert made == canonical.encode(canonical.parse(made))


def test_canonical_bytes_are_the_same_in_every_process_and_under_every_hash_seed(
    tmp_path: Path,
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    lines = [
        json.dumps([name, Dice(seed).request(name)]).encode()
        for name in BY_NAME
        for seed in range(EXAMPLES // len(BY_NAME) + 1)
    ]
    corpus.write_bytes(b"\n".join(lines))
    told = set()
    for hash_seed in ("0", "1", "2026", "random"):
        done = subprocess.run(
            [sys.executable, "-c", _DIGEST, str(corpus)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            check=True,
            timeout=120,
        )
        told.add(done.stdout.strip())
    here = blake3()
    for line in lines:
        name, body = json.loads(line)
        for provider in PROVIDERS.values():
            here.update(key(BY_NAME[name], body, rules(provider, name)) or b"-")
    assert told == {here.hexdigest().encode()}


_DIGEST = """
import json, sys
from blake3 import blake3
from gateway.providers.registry import PROVIDERS, rules
from gateway.wire.table import APIS
by_name = {api.name: api for api in APIS.values()}
told = blake3()
for line in open(sys.argv[1], "rb"):
    name, body = json.loads(line)
    for provider in PROVIDERS.values():
        raw = json.dumps(body).encode()
        told.update(by_name[name].understand(raw, rules(provider, name)).canonical)
print(told.hexdigest())
"""


# --- the door ---------------------------------------------------------------------------------------

CONFIG = Config.model_validate(
    {
        "upstreams": {
            name: {"base_url": f"http://{name}.test/v1", "provider": name} for name in PROVIDERS
        },
        "cache": {"scope": "tenant"},
        "server": {"trusted_proxies": ["10.0.0.0/8"]},
    }
)
SECRETS = ScopeSecrets(["of the replicas"], None)
CHOICE = Choice(CONFIG)
DOORS = [
    Recognition(CONFIG, CHOICE, SECRETS, Door(entries, CONFIG.generation().encode()))
    for entries in (0, 2000)
]
HEADERS = (
    ("Authorization", "Bearer sk-a"),
    ("Authorization", "Bearer sk-b"),
    ("x-api-key", "sk-a"),
    ("anthropic-beta", "a,b"),
    ("anthropic-beta", "b,a"),
    ("OpenAI-Beta", "x"),
    ("X-Gateway-Tenant", "acme"),
    ("X-New", "1"),
    ("User-Agent", "u"),
)


def asked_everywhere(api: WireApi, dice: Dice, body: bytes) -> list[Known]:
    """What the full way says, and the door the first and the second time."""
    lines = CIMultiDict(dice.one(HEADERS) for _ in range(dice.up_to(3)))
    sender = Sender(
        tuple((name.lower(), value) for name, value in lines.items()),
        lines,
        dice.one(("10.0.0.9", "192.0.2.1", None)),
    )
    query = dice.one(("", "?a=1", "?a=1&b=2"))
    target = take_apart(f"/u/{dice.one(list(PROVIDERS))}{api.route}{query}")
    full, door = DOORS
    return [each.recognise(sender, target, api, body) for each in (full, door, door)]


@every_api
@many
@given(seeds)
def test_the_identity_of_the_door_always_equals_the_one_computed_in_full(
    api: WireApi, seed: int
) -> None:
    dice = Dice(seed)
    # Few different bodies, so that the door mostly knows one of the same bytes from somebody else.
    few = Dice(dice.up_to(2))
    body = few.request(api.name)
    if dice.yes(0.3):
        body["temperature"] = dice.one(NUMBERS)
    full, *door = asked_everywhere(api, dice, few.spelled(body).encode())

    assert full.identities
    assert [full, full] == door
