from __future__ import annotations

import random
import struct
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from gateway.core.model import Entry, Form, Usage
from gateway.store import codec
from tests.helpers.entries import entry

KEY = bytes(range(32))

FROZEN_1 = (
    "5747650102e1e10603dc7a46412e84808000000040ac200000000000000000e47b22617069223a22"
    "6f70656e61695f63686174222c227265636f72646564223a22626f6479222c22666f726d73223a5b"
    "22626f6479222c2273747265616d225d2c226d6f64656c223a226770742d352e32222c2272657370"
    "6f6e73655f6964223a2263686174636d706c2d31222c227573616765223a7b22756e636163686564"
    "5f696e707574223a31312c2263616368655f72656164223a352c2263616368655f77726974655f35"
    "6d223a302c2263616368655f77726974655f3168223a302c226f7574707574223a337d2c22686173"
    "5f73747265616d5f7573616765223a747275657d7061796c6f6164"
)

FROZEN_2 = (
    "57476502e1fbe345f554025e412e84808000000040ac200000000000000000000000000700000007"
    "00000106007b22617069223a226f70656e61695f63686174222c227265636f72646564223a22626f"
    "6479222c22666f726d73223a5b22626f6479222c2273747265616d225d2c226d6f64656c223a2267"
    "70742d352e32222c22726573706f6e73655f6964223a2263686174636d706c2d31222c2275736167"
    "65223a7b22756e6361636865645f696e707574223a31312c2263616368655f72656164223a352c22"
    "63616368655f77726974655f356d223a302c2263616368655f77726974655f3168223a302c226f75"
    "74707574223a337d2c226861735f73747265616d5f7573616765223a747275652c2274616773223a"
    "5b2261222c2262225d2c226b6579223a223030313161616262227d7061796c6f6164"
)

_tokens = st.integers(min_value=0, max_value=2**53)
_times = st.floats(min_value=0, max_value=1e11, allow_nan=False)
entries = st.builds(
    Entry,
    api=st.text(max_size=20),
    recorded=st.sampled_from(Form),
    forms=st.frozensets(st.sampled_from(Form)),
    payload=st.binary(max_size=300) | st.binary(max_size=40).map(lambda b: b * 60),
    stored_at=_times,
    ttl_s=_times,
    model=st.text(max_size=20),
    response_id=st.text(max_size=20),
    usage=st.none() | st.builds(Usage, _tokens, _tokens, _tokens, _tokens, _tokens),
    tags=st.lists(st.text(max_size=20), max_size=3).map(tuple),
    generation=st.integers(0, 2**64 - 1),
    key_hex8=st.text(max_size=8),
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


def _sealed(
    metadata: bytes,
    *,
    claimed: int | None = None,
    payload: bytes = b"",
    payload_size: int | None = None,
    coding: int = 0,
) -> bytes:
    """A blob whose checksum holds, whatever is inside."""
    size = len(metadata) if claimed is None else claimed
    whole = len(payload) if payload_size is None else payload_size
    covered = struct.pack(">ddQIIB", 1.0, 2.0, 3, whole, size, coding) + metadata + payload
    checksum = xxh3_64_intdigest(KEY + covered, codec.VERSION)
    return struct.pack(">3sBQ", codec.MAGIC, codec.VERSION, checksum) + covered


def _metadata(**more: object) -> bytes:
    members: dict[str, object] = {
        "api": "a",
        "recorded": "body",
        "forms": [],
        "model": "gpt-5.2",
        "response_id": "",
        "usage": None,
        "has_stream_usage": False,
    }
    return orjson.dumps(members | more)


@pytest.mark.parametrize(
    "blob",
    [
        _sealed(b"not json"),
        _sealed(b"[]"),
        _sealed(b"{}"),
        _sealed(b"{}", claimed=10_000),
        _sealed(_metadata(recorded="telegram")),
        _sealed(_metadata(tags=5)),
    ],
    ids=["no json", "no object", "no members", "length beyond the end", "unknown form", "no tags"],
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
    assert codec.decode(_sealed(_metadata(colour="red")), KEY).model == "gpt-5.2"


def test_the_expiry_is_read_without_the_rest() -> None:
    blob = codec.encode(entry(stored_at=100.5, ttl_s=60.25), KEY)
    assert codec.expires_at(blob) == 160.75
    assert codec.expires_at(blob[:40]) == 160.75
    with pytest.raises(codec.Damaged):
        codec.expires_at(b"something else entirely, and long enough")


def test_the_layout_of_version_2_is_frozen() -> None:
    given = entry(payload=b"payload", tags=("a", "b"), generation=7, key_hex8="0011aabb")
    assert codec.encode(given, KEY).hex() == FROZEN_2, (
        "entries that are stored already could not be read: a new layout takes a new version"
    )


def test_what_version_1_wrote_is_read() -> None:
    assert codec.decode(bytes.fromhex(FROZEN_1), KEY) == entry(payload=b"payload")
    assert codec.expires_at(bytes.fromhex(FROZEN_1)) == 1_000_000.25 + 3600.0
    assert codec.payload_size(bytes.fromhex(FROZEN_1)) == len(b"payload")


@given(st.integers(0, len(FROZEN_1) // 2 - 1), st.integers(0, 7))
def test_any_flipped_bit_of_version_1_is_damage(place: int, bit: int) -> None:
    blob = bytearray(bytes.fromhex(FROZEN_1))
    blob[place] ^= 1 << bit
    with pytest.raises(codec.Damaged):
        codec.decode(bytes(blob), KEY)


def test_a_long_payload_is_stored_compressed_and_a_short_one_as_it_is() -> None:
    text = b'{"content":"the same words again and again"}'
    long = entry(payload=text * 100)
    assert len(codec.encode(long, KEY)) < len(long.payload) / 10
    assert codec.decode(codec.encode(long, KEY), KEY) == long
    assert text in codec.encode(entry(payload=text), KEY)


def test_what_does_not_shrink_is_stored_as_it_is() -> None:
    noise = random.Random(5).randbytes(4096)
    blob = codec.encode(entry(payload=noise), KEY)
    assert blob.endswith(noise)
    assert codec.decode(blob, KEY).payload == noise


def test_an_entry_is_described_without_unpacking_it() -> None:
    blob = _sealed(_metadata(tags=["a"]), payload=b"no frame", payload_size=9000, coding=1)
    described, size = codec.describe(blob, KEY)
    assert (described.tags, described.generation, described.payload, size) == (("a",), 3, b"", 9000)
    with pytest.raises(codec.Damaged):
        codec.decode(blob, KEY)


def _frame(payload: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(payload)


@pytest.mark.parametrize(
    ("payload", "size", "coding"),
    [
        (_frame(bytes(10_000_000)), 10_000_000, 1),
        (_frame(bytes(10_000_000)), 1000, 1),
        (_frame(bytes(2000), write_content_size=False), 2000, 1),
        (_frame(bytes(2000))[:-4], 2000, 1),
        (_frame(bytes(2000)) + b"more", 2000, 1),
        (_frame(bytes(2000)) * 2, 2000, 1),
        (_frame(bytes(2000)), 2000, 2),
        (bytes(2000), 1999, 0),
    ],
    ids=[
        *("over the limit", "larger than it says", "of no said size", "cut", "followed by more"),
        *("two frames", "an unknown coding", "raw, of another size"),
    ],
)
def test_a_payload_that_is_not_what_it_says_is_damage(
    payload: bytes, size: int, coding: int
) -> None:
    blob = _sealed(_metadata(), payload=payload, payload_size=size, coding=coding)
    with pytest.raises(codec.Damaged):
        codec.decode(blob, KEY, limit_bytes=1_000_000)


def test_a_bomb_takes_no_memory() -> None:
    bomb = _frame(bytes(200_000_000), level=19)
    blobs = [
        _sealed(_metadata(), payload=bomb, payload_size=size, coding=1)
        for size in (1000, 200_000_000)
    ]
    tracemalloc.start()
    for blob in blobs:
        with pytest.raises(codec.Damaged):
            codec.decode(blob, KEY, limit_bytes=8_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_threads_decode_beside_each_other() -> None:
    given = [entry(payload=b"%d " % n * 5000) for n in range(16)]
    blobs = [codec.encode(each, KEY) for each in given]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(codec.decode, blobs * 20, [KEY] * 320)) == given * 20
