"""The bytes of a placement."""

from __future__ import annotations

from gateway.core.mirror import Mirror
from gateway.core.route_records import MOST_STEPS, RecordKind, RouteRecord, decode, encode
from gateway.core.trail import Trail

RECORD = RouteRecord(
    RecordKind.PLACED, 7, 9, "10.0.0.1:8000", 1.5, Trail((1, 2**64 - 1), (10, 20), True), 5, 6
)


def test_a_record_is_compact() -> None:
    assert len(encode(RECORD)) == 43 + len(RECORD.backend) + 2 * 12
    assert decode(encode(RECORD)) == RECORD


def test_each_flag_is_its_own() -> None:
    for is_open in (False, True):
        for streamed in (False, True):
            record = RECORD._replace(trail=Trail((1,), (9,), is_open), streamed=streamed)
            assert decode(encode(record)) == record


def test_no_more_is_to_be_computed_than_there_is() -> None:
    heard = decode(encode(RECORD._replace(uncached=2**32 - 1)))
    assert heard is not None
    assert heard.uncached == RECORD.trail.tokens


def test_another_version_or_kind_is_not_read() -> None:
    told = encode(RECORD)
    assert decode(b"\x02" + told[1:]) is None
    assert decode(told[:1] + b"\x09" + told[2:]) is None
    assert decode(told + b"x") is None
    assert decode(b"") is None


def test_a_name_that_is_no_text_is_not_read() -> None:
    told = bytearray(encode(RECORD))
    told[43] = 0xFF
    assert decode(bytes(told)) is None


def test_a_time_that_is_no_number_is_not_read() -> None:
    assert decode(encode(RECORD._replace(at=float("nan")))) is None


def test_of_a_very_long_prompt_the_beginning_and_the_end_are_told() -> None:
    steps = MOST_STEPS + 300
    long = Trail(tuple(range(1, steps + 1)), tuple(range(10, 10 * steps + 1, 10)))
    heard = decode(encode(RECORD._replace(trail=long)))
    assert heard is not None
    assert len(heard.trail.prints) == MOST_STEPS
    assert heard.trail.tokens == long.tokens
    assert heard.trail.prints[-1] == long.prints[-1]
    mirror = Mirror(0, 10_000)
    mirror.touch(heard.trail, 0, 1)
    assert mirror.tokens == long.tokens
    depth = mirror.look(long.prints)
    assert depth >= MOST_STEPS - 2
    assert len(mirror.stamps(long.prints, depth)) == depth
