"""Fresh ids look like the old ones and are never the same."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.mint import Mint

IDS = st.text(string.ascii_letters + string.digits + "_-.:é ", max_size=48)
LETTERS = string.ascii_letters + string.digits


def mint(seed: bytes = b"seed") -> Mint:
    return Mint(now_s=1_700_000_000, seed=seed)


def shape(text: str) -> str:
    """Each character's class: digit, lower, upper, or itself."""
    classes = ((string.digits, "9"), (string.ascii_lowercase, "a"), (string.ascii_uppercase, "A"))
    return "".join(next((mark for known, mark in classes if c in known), c) for c in text)


@pytest.mark.parametrize(
    ("original", "prefix"),
    [
        ("call_Ab3dEf6hIj9lMn2p", "call_"),
        ("toolu_01A09q90qw90lq917835lq9", "toolu_"),
        ("msg_01XFDUDYJgAACzvnptvVoYEL", "msg_"),
        ("chatcmpl-BkXr2yZ9QwErTy", "chatcmpl-"),
        ("call_0", "call_"),
        ("gen-1700000000-AbCdEfGhIj", "gen-1700000000-"),
        ("fc_call_1", "fc_"),
        ("123456789", ""),
        # Kimi's: the name is read out of the id.
        ("functions.get_weather:0", "functions.get_weather:"),
        ("functions.f:12", "functions.f:"),
        # Mistral's: nine letters and digits, or its template refuses them.
        ("bXZ3Fq9aP", ""),
    ],
)
def test_a_fresh_id_keeps_prefix_length_and_alphabet(original: str, prefix: str) -> None:
    fresh = mint().like(original)
    assert fresh.startswith(prefix)
    assert shape(original) == shape(fresh)


def test_what_is_hexadecimal_stays_hexadecimal() -> None:
    original = "chatcmpl-0a1b2c3d4e5f60718293a4b5c6d7e8f9"
    assert all(
        re.fullmatch(r"chatcmpl-[0-9a-f]{32}", mint(bytes([seed])).like(original))
        for seed in range(32)
    )


@given(IDS, st.binary(min_size=1, max_size=8))
def test_an_id_is_never_shorter_and_keeps_every_other_character(original: str, seed: bytes) -> None:
    fresh = mint(seed).like(original)
    assert len(original) <= len(fresh)
    if any(c in LETTERS for c in original.rpartition("_")[2].rpartition("-")[2]):
        assert len(original) == len(fresh)
    others = [(i, c) for i, c in enumerate(original) if c not in LETTERS]
    assert all(fresh[i] == c for i, c in others)


@pytest.mark.parametrize("original", ["", "_", "msg_", "--", "é"])
def test_an_id_without_letters_grows_a_random_tail(original: str) -> None:
    fresh = mint().like(original)
    assert fresh.startswith(original)
    assert len(fresh) == len(original) + 12
    assert mint(b"another").like(original) != fresh


def test_the_same_seed_makes_the_same_ids_and_each_call_another() -> None:
    one, other = mint(), mint()
    ids = [one.like("call_Ab3dEf6hIj9lMn2p") for _ in range(100)]
    assert ids == [other.like("call_Ab3dEf6hIj9lMn2p") for _ in range(100)]
    assert len(set(ids)) == 100
    assert mint(b"other").like("call_Ab3dEf6hIj9lMn2p") not in ids


def test_every_character_of_the_tail_is_drawn() -> None:
    drawn = [mint(seed.to_bytes(2, "big")).like("call_aaaaaaaaaaaaaaaaz") for seed in range(400)]
    for position in range(len("call_"), len(drawn[0])):
        assert len({each[position] for each in drawn}) > 20


@given(IDS, st.sets(IDS, max_size=8))
def test_an_id_unlike_others_is_none_of_them(original: str, taken: set[str]) -> None:
    assert mint().unlike(original, taken | {original}) not in taken | {original}


def test_an_id_grows_where_its_format_has_too_few() -> None:
    taken = {str(digit) for digit in range(10)}
    fresh = mint().unlike("7", taken)
    assert fresh not in taken
    assert fresh.isdigit()
