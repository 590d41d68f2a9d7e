from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import canonical
from gateway.core.canonical import MAX_DEPTH, Number, Uncacheable

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)

json_numbers = st.from_regex(
    r"-?(0|[1-9][0-9]{0,8})(\.[0-9]{1,6})?([eE][-+]?[0-9]{1,3})?", fullmatch=True
)


def dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("a member named twice", b'{"a":1,"a":1}'),
        ("a member named twice, once escaped", b'{"a":1,"\\u0061":2}'),
        ("a member named twice deep inside", b'[{"x":{"a":1,"a":2}}]'),
        ("a member named twice among white space", b'{"a":1, "b":2, "a":1}'),
        ("a member named twice in a long text", b'{"a":"%b","b":1,"b":1}' % (b"x" * 9000)),
        ("NaN", b'{"a":NaN}'),
        ("Infinity", b'{"a":Infinity}'),
        ("minus Infinity", b'{"a":-Infinity}'),
        ("2 to the 64", b"18446744073709551616"),
        ("one below the smallest 64-bit integer", b"-9223372036854775809"),
        ("an integer of five thousand digits", b"9" * 5000),
        ("a lone high surrogate", b'"\\ud800"'),
        ("a lone low surrogate", b'"\\udc00"'),
        ("a lone surrogate in upper case", b'"\\uDC00"'),
        ("surrogates in the wrong order", b'"\\udc00\\ud800"'),
        ("a lone surrogate as a name", b'{"\\ud800":1}'),
        ("a surrogate in raw bytes", b'"\xed\xa0\x80"'),
        ("invalid UTF-8", b'"\xff"'),
        ("an overlong encoding", b'"\xc0\xaf"'),
        ("UTF-16", '{"a":1}'.encode("utf-16")),
        ("a byte order mark", b"\xef\xbb\xbf{}"),
        ("nothing", b""),
        ("white space alone", b" \n"),
        ("two values", b"{}{}"),
        ("a trailing comma", b'{"a":1,}'),
        ("a comment", b"{/**/}"),
        ("single quotes", b"{'a':1}"),
        ("a raw line end in a string", b'"a\nb"'),
        ("a number with a plus", b"+1"),
        ("a number with a leading zero", b"01"),
        ("a number without a whole part", b".5"),
        ("one level too many", b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1)),
        ("too many levels of objects", b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1)),
        (
            "deep in a long text",
            b'["%b",' % (b"x" * 9000) + b"[" * MAX_DEPTH + b"]" * (MAX_DEPTH + 1),
        ),
        (
            "deep in a long text of objects",
            b'["%b",' % (b"x" * 9000) + b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH + b"]",
        ),
        ("one level too many in white space", b"[ " * (MAX_DEPTH + 1) + b"] " * (MAX_DEPTH + 1)),
        ("a hundred thousand levels", b"[" * 100_000 + b"]" * 100_000),
    ],
)
def test_text_without_a_canonical_form_is_uncacheable(what: str, text: bytes) -> None:
    with pytest.raises(Uncacheable):
        canonical.parse(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"18446744073709551615", 18446744073709551615),
        (b"-9223372036854775808", -9223372036854775808),
        (b"-0", Number("-0")),
        (b"0.10", Number("0.10")),
        (b"1e400", Number("1e400")),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"\\\\ud800"', "\\ud800"),
        (b'"\\u0000"', "\0"),
        (b"1e-7", 1e-7),
        (b"1E-7", Number("1E-7")),
        (b"-0.0", -0.0),
        (b"\t[ 1.0 ]\r\n", [1.0]),
    ],
)
def test_the_edges_of_json_parse_exactly(text: bytes, value: Any) -> None:
    assert value == canonical.parse(text)


def test_the_deepest_nest_that_parses_can_be_folded_looked_into_and_encoded() -> None:
    text = b'{"a":[' * (MAX_DEPTH // 2) + b"1" + b"]}" * (MAX_DEPTH // 2)

    value = canonical.parse(text)

    canonical.plain(value)
    assert text == canonical.encode(canonical.fold(value))


def test_the_deepest_nest_may_stand_in_a_long_text() -> None:
    text = b'["%b",' % (b"x" * 9000) + b"[" * (MAX_DEPTH - 1) + b"]" * MAX_DEPTH

    assert text == canonical.encode(canonical.parse(text))


def test_values_are_the_same_if_their_numbers_are_spelled_alike_in_any_order_of_members() -> None:
    one = canonical.parse(b'{"a":[1,1.50],"b":true}')

    assert canonical.same(one, canonical.parse(b'{"b":true, "a":[1,1.50]}'))
    for other in (b'{"a":[1.0,1.50],"b":true}', b'{"a":[1,1.5],"b":true}', b'{"a":[1,1.50],"b":1}'):
        assert not canonical.same(one, canonical.parse(other))
    assert not canonical.same(1, True)
    assert not canonical.same("1", 1)


def test_what_is_ordered_is_sorted_but_for_what_is_kept_in_it() -> None:
    value = canonical.parse(b'{"b":{"z":1.50,"y":2},"a":[{"d":0,"c":1}]}')
    assert isinstance(value, dict)

    made = {"x": canonical.ordered({**value, "b": canonical.kept(value["b"])}), "w": None}

    expected = b'{"x":{"a":[{"c":1,"d":0}],"b":{"z":1.50,"y":2}},"w":null}'
    assert expected == canonical.encode(made)


def test_brackets_inside_strings_are_no_depth() -> None:
    text = dumps("[{" * 10_000)

    assert text == canonical.encode(canonical.parse(text))


def test_members_keep_their_order_and_numbers_their_spelling() -> None:
    text = b'{"b":1.0,"a":[1e0,-0,0.10,1E+2],"A":{}}'

    assert text == canonical.encode(canonical.parse(text))


def test_fold_sorts_members_and_spells_numbers_alike_all_the_way_down() -> None:
    folded = canonical.fold(canonical.parse(b'{"b":[{"z":1.0,"y":10e-1}],"a":-0.0}'))

    assert b'{"a":0,"b":[{"y":1,"z":1}]}' == canonical.encode(folded)


def test_fold_keeps_the_order_of_lists() -> None:
    assert b"[2,1]" == canonical.encode(canonical.fold(canonical.parse(b"[2,1]")))


@pytest.mark.parametrize(
    ("spelling", "raws"),
    [
        ("1", ["1", "1.0", "1e0", "1E0", "1e+0", "1e-0", "10e-1", "0.1e1", "100.00e-2"]),
        ("0", ["0", "-0", "0.0", "-0.0", "0e5", "0E-99", "-0.000"]),
        ("-5", ["-5", "-5.0", "-0.50e1", "-50E-1"]),
        ("1e-1", ["0.1", "1e-1", "0.10", "0.01e1", "10e-2"]),
        ("1000", ["1000", "1e3", "1E+3", "1000.000"]),
        ("1e60", ["1e60", "10e59", "1E+60", "0.1e61"]),
        ("18446744073709551615", ["18446744073709551615", "18446744073709551615.0"]),
    ],
)
def test_one_value_has_one_spelling(spelling: str, raws: list[str]) -> None:
    assert {spelling} == {canonical.spelling(raw) for raw in raws}


def test_nothing_is_rounded() -> None:
    near = ["0.1", "0.1000000000000000055", "0.10000000000000000555"]

    assert len(near) == len({canonical.spelling(raw) for raw in near})


def test_an_exponent_nobody_can_mean_stays_as_it_is() -> None:
    raw = "1e" + "9" * 5000

    assert raw == canonical.spelling(raw)


@given(json_numbers)
def test_spelling_keeps_the_exact_value_is_json_and_is_stable(raw: str) -> None:
    spelled = canonical.spelling(raw)

    assert Decimal(raw) == Decimal(spelled)
    json.loads(spelled)
    assert spelled == canonical.spelling(spelled)


@given(json_numbers, json_numbers)
def test_two_numbers_share_a_spelling_exactly_when_they_are_equal(a: str, b: str) -> None:
    assert (Decimal(a) == Decimal(b)) == (canonical.spelling(a) == canonical.spelling(b))


@given(json_values)
def test_what_is_encoded_parses_back_to_the_same_value(value: Any) -> None:
    exact = canonical.parse(dumps(value))

    assert exact == canonical.parse(canonical.encode(exact))
    assert value == json.loads(canonical.encode(exact))


@given(json_values, st.booleans())
def test_escapes_and_white_space_do_not_reach_the_value(value: Any, ascii_only: bool) -> None:
    spaced = json.dumps(value, indent=3, ensure_ascii=ascii_only).encode()

    assert canonical.encode(canonical.parse(dumps(value))) == canonical.encode(
        canonical.parse(spaced)
    )


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_uncacheable(text: bytes) -> None:
    try:
        value = canonical.parse(text)
    except Uncacheable:
        return
    canonical.encode(canonical.fold(value))
    canonical.plain(value)


def test_encoding_a_lone_surrogate_is_uncacheable() -> None:
    with pytest.raises(Uncacheable):
        canonical.encode({"a": "\ud800"})


def test_a_number_equals_only_its_own_spelling_and_shows_it() -> None:
    assert Number("1") == Number("1")
    assert Number("1") != Number("1.0")
    assert Number("1") != 1
    assert 1 == len({Number("1"), Number("1")})
    assert "Number('1e0')" == repr(Number("1e0"))


def test_plain_gives_ordinary_numbers() -> None:
    assert {"a": [1, 1.5, 100.0]} == canonical.plain(canonical.parse(b'{"a":[1,1.5,1e2]}'))
