from __future__ import annotations

import json

import orjson
import pytest

from gateway.wire.seek import NotThere, Seeker, offsets

ODD = b'{ "a" : [1.0e5, "x\\"]}", {"b":[ ]} ,null\n] ,"\\u0063":"\\\\" , "d":{"e\\\\":"\\\\\\"","f":-1}}'


def parts(body: bytes, at: int = 0) -> dict[str, bytes]:
    return {m.name: body[m.value : m.end] for m in Seeker(body).members(at)[0]}


def test_members_are_found_with_their_spelling() -> None:
    assert {
        "a": b'[1.0e5, "x\\"]}", {"b":[ ]} ,null\n]',
        "c": b'"\\\\"',
        "d": b'{"e\\\\":"\\\\\\"","f":-1}',
    } == parts(ODD)
    assert len(ODD) == Seeker(ODD).members(0)[1]


def test_items_are_found_one_by_one_and_the_end_behind_the_last() -> None:
    text = b'[ 1 ,"," ,[2,[3]] , {"a":"]"} ]'
    seeker = Seeker(text)

    begins = list(seeker.items(0))

    assert [b"1", b'","', b"[2,[3]]", b'{"a":"]"}'] == [text[at : seeker.end(at)] for at in begins]
    assert text.rindex(b"]") == seeker.closing(begins[1])
    assert [] == list(Seeker(b"[ ]").items(0))


@pytest.mark.parametrize("depth", [1, 11, 12, 13, 14, 90])
@pytest.mark.parametrize("inner", ['"]\\""', "1", '{"a":[]}'])
def test_however_deep_a_value_is_its_end_is_found(depth: int, inner: str) -> None:
    deep = "[" * depth + inner + "]" * depth
    text = f"[{deep} , {deep},0]".encode()
    seeker = Seeker(text)

    assert [deep, deep, "0"] == [text[at : seeker.end(at)].decode() for at in seeker.items(0)]
    assert len(text) - 1 == seeker.closing(1)
    assert len(text) == seeker.end(0)


@pytest.mark.parametrize("run", range(20))
def test_backslashes_before_a_quote_are_counted(run: int) -> None:
    for tail in ("", '"', 'n"x'):
        value = "\\" * run + tail
        text = orjson.dumps([value, "next"])
        seeker = Seeker(text)

        first, second = seeker.items(0)

        assert value == json.loads(text[first : seeker.string_end(first)])
        assert b'"next"' == text[second : seeker.end(second)]


@pytest.mark.parametrize("text", [b"[1", b'{"a":[', b'{"a"', b"{1:2}", b'{"a":1 "b"}'])
def test_what_is_no_json_is_not_there(text: bytes) -> None:
    with pytest.raises((NotThere, IndexError)):
        Seeker(text).members(0)


def test_a_value_without_an_end_is_not_there() -> None:
    with pytest.raises(NotThere):
        Seeker(b'["a').end(0)


TEXT = 'a"b\\c/d\n\té漢😀 \u2028e😀f'


@pytest.mark.parametrize(
    "spelled",
    [
        json.dumps(TEXT),
        json.dumps(TEXT, ensure_ascii=False),
        json.dumps(TEXT).replace("/", "\\/").replace("a", "\\u0061"),
    ],
)
def test_characters_are_found_between_the_escapes(spelled: str) -> None:
    raw = spelled[1:-1].encode()
    cuts = list(range(1, len(TEXT)))

    found = offsets(raw, cuts)

    for cut, place in zip(cuts, found, strict=True):
        assert TEXT[:cut] == json.loads(b'"' + raw[:place] + b'"')
        assert TEXT[cut:] == json.loads(b'"' + raw[place:] + b'"')
    assert found[3:5] == offsets(raw, cuts[3:5])


@pytest.mark.parametrize("cut", [0, 3, 4])
def test_an_offset_outside_is_not_there(cut: int) -> None:
    with pytest.raises(NotThere):
        offsets(b"abc", [cut])
    assert [] == offsets(b"", [])
