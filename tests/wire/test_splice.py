from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.wire.seek import Seeker
from gateway.wire.splice import Edit, Taken, applied, rewritten

if TYPE_CHECKING:
    from collections.abc import Collection


def change(text: str, removed: Collection[str] = (), replaces: bool = False, **added: str) -> str:
    raw = text.encode()
    seeker = Seeker(raw)
    edits = rewritten(
        raw,
        seeker.opened(0, ord("{")),
        seeker.members(0)[0],
        removed=removed,
        added={name: value.encode() for name, value in added.items()},
        replaces=replaces,
    )
    return applied(raw, sorted(edits)).decode()


def test_edits_are_applied_in_order() -> None:
    edits = [Edit(0, 0, b"<"), Edit(1, 2, b""), Edit(3, 3, b">")]

    assert b"<ac>" == applied(b"abc", edits)


def test_a_member_is_put_behind_the_last() -> None:
    assert '{ "a" : 1,"x":2 }' == change('{ "a" : 1 }', x="2")
    assert '{"x":2,"y":3}' == change("{}", x="2", y="3")
    assert '{ "x":2}' == change("{ }", x="2")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('{"x":1, "a":2}', '{"a":2}'),
        ('{"a":2 , "x":1 }', '{"a":2 }'),
        ('{"a":2,"x":1,"b":3}', '{"a":2,"b":3}'),
        ('{ "x":1,"y":2 , "b":3,"x2":0}', '{ "b":3,"x2":0}'),
        ('{"x":1,"a":2,"y":3}', '{"a":2}'),
        ('{"a":2,"x":1,"y":3}', '{"a":2}'),
        ('{ "x":1, "y":3 }', "{  }"),
        ('{"a":1}', '{"a":1}'),
    ],
)
def test_members_are_taken_out_with_their_commas(text: str, left: str) -> None:
    assert left == change(text, {"x", "y"})


def test_the_place_of_a_member_that_goes_is_used_again() -> None:
    assert '{"x": 2 ,"a":1}' == change('{"x": {"old":1} ,"a":1}', {"x"}, x="2")
    assert '{"x":2}' == change('{"x":null}', x="2")
    assert '{"x":2}' == change('{"x":7}', replaces=True, x="2")
    assert '{"z":2}' == change('{"x":7}', {"x"}, z="2")
    assert '{"a":1,"z":2}' == change('{"x":7,"a":1,"y":8}', {"x", "y"}, z="2")


def test_what_says_something_else_is_not_overwritten() -> None:
    with pytest.raises(Taken):
        change('{"x":7}', x="2")
