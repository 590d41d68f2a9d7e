"""Readable pairs of requests: what is the same question, and what is not. Each file says why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from gateway.core import canonical
from gateway.providers.registry import PROVIDERS
from gateway.wire.table import APIS
from tests.golden.keys import known

if TYPE_CHECKING:
    from gateway.core.canonical import Json

HERE = Path(__file__).parent
SAME = sorted(HERE.glob("pairs_same/*.json"))
DIFFERENT = sorted(HERE.glob("pairs_different/*.json"))
KEY = ["authorization", "Bearer sk-golden"]


def body_of(file: Path, side: str) -> bytes:
    """The body, its numbers and the order of its members as the file spells them."""
    pair: Any = canonical.parse(file.read_bytes())
    body: Json = pair[side]["body"]
    return canonical.encode(body)


def identity_of(file: Path, side: str) -> bytes:
    pair = orjson.loads(file.read_bytes())
    one = pair[side]
    lines = tuple((name, value) for name, value in one.get("headers", [KEY]))
    found = known(pair["provider"], pair["route"], body_of(file, side), lines, one.get("query", ""))
    assert found.pass_reason is None, f"{file.name}, {side}: {found.pass_reason}"
    return found.identities[0]


@pytest.mark.parametrize("file", SAME, ids=lambda file: file.stem)
def test_these_are_one_question(file: Path) -> None:
    assert identity_of(file, "left") == identity_of(file, "right")


@pytest.mark.parametrize("file", DIFFERENT, ids=lambda file: file.stem)
def test_these_are_two_questions(file: Path) -> None:
    assert identity_of(file, "left") != identity_of(file, "right")


@pytest.mark.parametrize("file", [*SAME, *DIFFERENT], ids=lambda file: file.stem)
def test_a_pair_says_why_and_its_sides_are_not_the_same_bytes(file: Path) -> None:
    pair = orjson.loads(file.read_bytes())
    assert pair.keys() == {"why", "route", "provider", "left", "right"}
    assert pair["why"].strip()
    assert pair["route"] in APIS
    assert pair["provider"] in PROVIDERS
    sides = [
        (body_of(file, side), pair[side].get("headers"), pair[side].get("query"))
        for side in ("left", "right")
    ]
    assert sides[0] != sides[1]


def test_every_api_has_pairs_of_both_kinds() -> None:
    for files in (SAME, DIFFERENT):
        assert {orjson.loads(each.read_bytes())["route"] for each in files} == set(APIS)


TYPED = [
    ("pairs_same/chat-number-spelling", 0, "equal"),
    ("pairs_same/messages-cache-control", 0, "equal"),
    ("pairs_same/responses-string-input", 0, "equal"),
    ("pairs_different/chat-schema-order", 1, "different at $.tools[0].function.parameters"),
    ("pairs_different/chat-unknown-field", 1, "different at $.some_new_field: absent / 1"),
    ("pairs_different/embeddings-encoding", 1, "different at "),
]


@pytest.mark.parametrize(("name", "status", "told"), TYPED)
def test_gateway_key_says_the_same_of_them(
    name: str, status: int, told: str, tmp_path: Path
) -> None:
    file = HERE / f"{name}.json"
    pair = orjson.loads(file.read_bytes())
    sides = []
    for side in ("left", "right"):
        sides.append(tmp_path / f"{side}.json")
        sides[-1].write_bytes(body_of(file, side))
    kept = {n: v for n, v in os.environ.items() if not n.startswith("GATEWAY_")}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "gateway", "key"),
            *("--route", pair["route"], "--upstream", "up", *map(str, sides)),
        ],
        env={
            **kept,
            "PYTHONPATH": str(HERE.parents[1]),
            "GATEWAY_UPSTREAMS__UP__BASE_URL": "http://up.test/v1",
            "GATEWAY_UPSTREAMS__UP__PROVIDER": pair["provider"],
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (status, "")
    assert done.stdout.startswith(told)
