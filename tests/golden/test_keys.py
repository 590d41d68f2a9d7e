"""Keys are for ever, or KEY_VERSION is raised."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest

from gateway.core import identity
from gateway.providers.registry import PROVIDERS
from gateway.wire import envelope
from gateway.wire.table import APIS
from tests.golden import keys
from tests.golden.cases import cases

if TYPE_CHECKING:
    from pathlib import Path

VECTORS = orjson.loads(keys.FILE.read_bytes())
CASES = {case.name: case for case in cases()}
_HOW = "raise KEY_VERSION, then `python -m tests.golden.keys`"


@pytest.mark.parametrize("name", CASES)
def test_a_request_has_the_key_that_it_always_had(name: str) -> None:
    assert name in VECTORS, "a new case: `python -m tests.golden.keys`"
    assert VECTORS[name]["key_version"] == identity.KEY_VERSION, _HOW
    assert orjson.loads(orjson.dumps(keys.vector(CASES[name]))) == VECTORS[name], _HOW


def test_no_vector_was_dropped_and_every_api_and_provider_has_some() -> None:
    assert VECTORS.keys() == CASES.keys()
    there = {(each["route"], each["provider"]) for each in VECTORS.values()}
    assert there >= {(route, provider) for route in APIS for provider in PROVIDERS}
    identities = [i for each in VECTORS.values() for i in each["identity"]]
    assert all(each["identity"] or each["pass"] for each in VECTORS.values())
    assert len(identities) > len(CASES) * 0.9


def test_a_change_of_the_canonical_form_under_the_same_version_is_noticed_and_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(keys.FILE.read_bytes())
    original = envelope.render
    monkeypatch.setattr(envelope, "render", lambda value: original(value) + b" ")
    changed = keys.vectors(CASES.values())
    assert all(changed[name]["identity"] != each["identity"] for name, each in VECTORS.items() if each["identity"])  # fmt: skip

    told = keys.regenerate(file)

    assert "raise KEY_VERSION" in told
    assert file.read_bytes() == keys.FILE.read_bytes()
    monkeypatch.setattr(identity, "KEY_VERSION", identity.KEY_VERSION + 1)
    assert not keys.regenerate(file)
    assert {each["key_version"] for each in orjson.loads(file.read_bytes()).values()} == {
        identity.KEY_VERSION
    }


def test_new_cases_are_added_and_nothing_else_is_touched(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    last = next(reversed(VECTORS))
    file.write_bytes(orjson.dumps({n: v for n, v in VECTORS.items() if n != last}))

    assert not keys.regenerate(file)
    assert orjson.loads(file.read_bytes()) == VECTORS


def test_another_version_is_another_identity_of_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(identity, "KEY_VERSION", identity.KEY_VERSION + 1)
    now = keys.vectors(CASES.values())
    before = {i for each in VECTORS.values() for i in each["identity"]}
    assert not before & {i for each in now.values() for i in each["identity"]}
