from __future__ import annotations

import random

import pytest

from gateway.store.journal import (
    FRAME_BYTES,
    RECORD_BYTES,
    Frame,
    NoJournal,
    packed,
    records_in,
    unpacked,
)

FRAME = Frame(2**64 - 1, 7, (b"one", b"", b"x" * 5000))


def test_a_frame_comes_back_as_it_was() -> None:
    assert unpacked(packed(FRAME)) == FRAME
    assert records_in(packed(FRAME)) == 3


def test_the_largest_record_fits_into_a_frame() -> None:
    largest = Frame(1, 1, (bytes(RECORD_BYTES),))
    assert len(packed(largest)) <= FRAME_BYTES
    assert unpacked(packed(largest)) == largest


def test_a_frame_that_was_cut_anywhere_is_none() -> None:
    blob = packed(Frame(1, 2, (b"one", b"two")))
    assert [unpacked(blob[:size]) for size in range(len(blob))] == [None] * len(blob)
    assert unpacked(blob + b"\0") is None


def test_a_frame_with_any_byte_changed_is_none() -> None:
    blob = packed(Frame(1, 2, (b"one", b"two")))
    for place in range(len(blob)):
        changed = bytearray(blob)
        changed[place] ^= 0x10
        assert unpacked(bytes(changed)) is None, place


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"garbage" * 100,
        # Of a version to come.
        b"wgr2" + packed(FRAME)[4:],
        # Larger than ours ever are.
        packed(Frame(1, 1, tuple(bytes(60_000) for _ in range(170)))),
        bytes(10 << 20),
    ],
    ids=["empty", "garbage", "future", "huge", "zeros"],
)
def test_what_is_no_frame_of_ours_is_none(blob: bytes) -> None:
    assert unpacked(blob) is None
    assert records_in(blob) == 0


def test_random_bytes_behind_our_magic_are_none() -> None:
    dice = random.Random(20261122)
    for _ in range(2000):
        assert unpacked(b"wgr1" + dice.randbytes(dice.randrange(200))) is None


async def test_no_journal_has_nothing_and_forgets() -> None:
    journal = NoJournal()
    await journal.write([b"frame"])
    assert await anext(journal.follow()) == ()
    await journal.close()
