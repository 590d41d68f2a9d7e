"""What is recorded of an answer, and what a sieve lets through."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING, cast

import pytest
from multidict import CIMultiDict

from gateway.core.model import Form
from gateway.server.stream import Recording, Sieve, recording

if TYPE_CHECKING:
    from gateway.upstream.response import Response


class Answered:
    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = CIMultiDict(headers)


def taken(headers: dict[str, str], limit: int = 100) -> Recording | None:
    return recording(cast("Response", Answered(headers)), limit)


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("text/event-stream", Form.STREAM),
        ("Text/Event-Stream; charset=utf-8", Form.STREAM),
        ("application/json", Form.BODY),
        ("application/json; charset=utf-8", Form.BODY),
        ("application/problem+json", Form.BODY),
        ("text/html", None),
        ("application/jsonl", None),
        ("audio/mpeg", None),
        ("", None),
    ],
)
def test_the_content_type_says_how_an_answer_is_read(kind: str, form: Form | None) -> None:
    made = taken({"content-type": kind})
    assert (made.form if made else None) == form


@pytest.mark.parametrize(
    ("coding", "recorded", "plain"),
    [
        ("", True, True),
        ("identity", True, True),
        ("GZIP", True, False),
        ("deflate", True, False),
        ("br", False, False),
        ("zstd", False, False),
        ("gzip, br", False, False),
    ],
)
def test_only_what_can_be_decoded_is_recorded(coding: str, recorded: bool, plain: bool) -> None:
    made = taken({"content-type": "application/json", "content-encoding": coding})
    assert (made is not None) is recorded
    assert (made is not None and made.plain) is plain


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("", b"the answer"),
        ("gzip", gzip.compress(b"the answer", mtime=0)),
        ("deflate", zlib.compress(b"the answer")),
    ],
)
def test_a_payload_is_decoded_however_it_was_cut(coding: str, packed: bytes) -> None:
    for size in (1, 3, 100):
        made = Recording(Form.BODY, coding, 100)
        for start in range(0, len(packed), size):
            made.feed(packed[start : start + size])
        made.complete = True
        assert made.payload() == b"the answer"


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", b"no gzip at all"),
        ("gzip", gzip.compress(b"the answer", mtime=0)[:-4]),
        ("gzip", b""),
        # More than the limit once it is unpacked.
        ("gzip", gzip.compress(b"x" * 10_000, mtime=0)),
        ("deflate", zlib.compress(b"x" * 101)),
    ],
)
def test_what_can_not_be_decoded_within_the_limit_is_no_payload(coding: str, packed: bytes) -> None:
    made = Recording(Form.BODY, coding, 100)
    made.feed(packed)
    made.complete = True
    assert not made.overflowed
    assert made.payload() is None


def test_a_recording_that_is_not_complete_gives_what_there_is() -> None:
    made = Recording(Form.STREAM, "gzip", 100)
    made.feed(gzip.compress(b"the answer", mtime=0)[:-4])
    assert made.payload() == b"the answer"


def test_a_recording_forgets_what_is_more_than_its_limit() -> None:
    made = Recording(Form.BODY, "", 10)
    made.feed(b"x" * 10)
    assert made.payload() == b"x" * 10
    made.feed(b"y")
    assert made.overflowed
    made.feed(b"z")
    assert made.payload() == b""


def wanted(event: bytes) -> bytes:
    return b"" if b"usage" in event else event.replace(b"data: x", b"data: ")


STREAM = b'data: x1\n\n: ping\r\n\r\ndata: {"usage": 1}\n\ndata: \xc3\xa9\n\ndata: half'


@pytest.mark.parametrize("size", [1, 2, 5, 9, 1000])
def test_a_sieve_keeps_back_one_event_and_changes_another(size: int) -> None:
    sieve = Sieve(wanted)
    out = [sieve.feed(STREAM[i : i + size]) for i in range(0, len(STREAM), size)]
    assert b"".join(out) + sieve.rest() == STREAM.replace(b'data: {"usage": 1}\n\n', b"").replace(
        b"x1", b"1"
    )


def test_a_sieve_lets_an_event_go_with_its_last_byte() -> None:
    sieve = Sieve(wanted)
    assert sieve.feed(b"data: 1\n") == b""
    assert sieve.feed(b"\ndata: 2") == b"data: 1\n\n"


def test_a_sieve_holds_no_endless_event() -> None:
    sieve = Sieve(wanted)
    sent = sum(len(sieve.feed(b"x" * 65536)) for _ in range(64))
    assert sent + len(sieve.rest()) == 64 * 65536
    assert sent > 0
