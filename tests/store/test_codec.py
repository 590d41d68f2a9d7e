from __future__ import annotations

import struct

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from gateway.core.model import Entry, Form, Usage
from gateway.store import codec
from tests.helpers.entries import entry

KEY = bytes(range(32))

FROZEN = (
    "5747650102e1e10603dc7a46412e84808000000040ac200000000000000000e47b22617069223a22"
    "6f70656e61695f63686174222c227265636f72646564223a22626f6479222c22666f726d73223a5b"
    "22626f6479222c2273747265616d225d2c226d6f64656c223a226770742d352e32222c2272657370"
    "6f6e73655f6964223a2263686174636d706c2d31222c227573616765223a7b22756e636163686564"
    "5f696e707574223a31312c2263616368655f72656164223a352c2263616368655f77726974655f35"
    "6d223a302c2263616368655f77726974655f3168223a302c226f7574707574223a337d2c22686173"
    "5f73747265616d5f7573616765223a747275657d7061796c6f6164"
)

_tokens = st.integers(min_value=0, max_value=2**53)
_times = st.floats(min_value=0, max_value=1e11, allow_nan=False)
entries = st.builds(
    Entry,
    api=st.text(max_size=20),
    recorded=st.sampled_from(Form),
    forms=st.frozensets(st.sampled_from(Form)),
    payload=st.binary(max_size=300),
    stored_at=_times,
    ttl_s=_times,
    model=st.text(max_size=20),
    response_id=st.text(max_size=20),
    usage=st.none() | st.builds(Usage, _tokens, _tokens, _tokens, _tokens, _tokens),
    has_stream_usage=st.booleans(),
    gaps_ms=st.lists(st.integers(0, 1000), max_size=5).map(tuple),
)


@given(entries)
def test_an_entry_comes_back_as_it_went_in(given: Entry) -> None:
    assert codec.decode(codec.encode(given, KEY), KEY) == given


@given(entries, st.binary(min_size=32, max_size=32))
def test_an_entry_under_another_key_is_nobodys_answer(given: Entry, other: bytes) -> None:
    blob = codec.encode(given, KEY)
    with pytest.raises(codec.Damaged):
        codec.decode(blob, bytes([KEY[0] ^ 1]) + KEY[1:])
    if other != KEY:
        with pytest.raises(codec.Damaged):
            codec.decode(blob, other)


@given(entries, st.data())
def test_any_flipped_bit_is_damage(given: Entry, data: st.DataObject) -> None:
    blob = bytearray(codec.encode(given, KEY))
    place = data.draw(st.integers(0, len(blob) - 1))
    blob[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(codec.Damaged):
        codec.decode(bytes(blob), KEY)


@given(entries, st.data())
def test_any_truncation_is_damage(given: Entry, data: st.DataObject) -> None:
    blob = codec.encode(given, KEY)
    with pytest.raises(codec.Damaged):
        codec.decode(blob[: data.draw(st.integers(0, len(blob) - 1))], KEY)


@given(entries, st.binary(min_size=1, max_size=50))
def test_anything_appended_is_damage(given: Entry, more: bytes) -> None:
    with pytest.raises(codec.Damaged):
        codec.decode(codec.encode(given, KEY) + more, KEY)


@given(st.binary(max_size=400), st.booleans())
def test_foreign_bytes_are_damage(foreign: bytes, dressed_up: bool) -> None:
    blob = codec.MAGIC + bytes([codec.VERSION]) + foreign if dressed_up else foreign
    with pytest.raises(codec.Damaged):
        codec.decode(blob, KEY)


def _sealed(metadata: bytes, *, claimed: int | None = None) -> bytes:
    """A blob whose checksum holds, whatever is inside."""
    size = len(metadata) if claimed is None else claimed
    covered = struct.pack(">ddI", 1.0, 2.0, size) + metadata
    checksum = xxh3_64_intdigest(KEY + covered, codec.VERSION)
    return struct.pack(">3sBQ", codec.MAGIC, codec.VERSION, checksum) + covered


@pytest.mark.parametrize(
    "blob",
    [
        _sealed(b"not json"),
        _sealed(b"[]"),
        _sealed(b"{}"),
        _sealed(b"{}", claimed=10_000),
        _sealed(
            orjson.dumps(
                {
                    "api": "a",
                    "recorded": "telegram",
                    "forms": [],
                    "model": "",
                    "response_id": "",
                    "usage": None,
                    "has_stream_usage": False,
                }
            )
        ),
    ],
    ids=["no json", "no object", "no members", "length beyond the end", "unknown form"],
)
def test_a_sound_checksum_over_unexpected_metadata_is_damage(blob: bytes) -> None:
    with pytest.raises(codec.Damaged):
        codec.decode(blob, KEY)


def test_an_unknown_version_is_damage_and_says_which() -> None:
    blob = bytearray(codec.encode(entry(), KEY))
    blob[3] = 9
    with pytest.raises(codec.Damaged, match="version 9"):
        codec.decode(bytes(blob), KEY)


def test_a_member_that_a_later_writer_added_does_not_disturb() -> None:
    blob = codec.encode(entry(payload=b""), KEY)
    metadata = orjson.loads(blob[32:])
    assert codec.decode(_sealed(orjson.dumps(metadata | {"colour": "red"})), KEY).model == "gpt-5.2"


def test_the_expiry_is_read_without_the_rest() -> None:
    blob = codec.encode(entry(stored_at=100.5, ttl_s=60.25), KEY)
    assert codec.expires_at(blob) == 160.75
    assert codec.expires_at(blob[:40]) == 160.75
    with pytest.raises(codec.Damaged):
        codec.expires_at(b"something else entirely, and long enough")


def test_the_layout_of_version_1_is_frozen() -> None:
    blob = codec.encode(entry(payload=b"payload"), KEY)
    assert blob.hex() == FROZEN, (
        "entries that are stored already could not be read: a new layout takes a new version"
    )
