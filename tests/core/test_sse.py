from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import sse
from gateway.core.sse import Event, Splitter

# Streams made of what parsers stumble over: every line end, comments, BOM, emoji, odd fields.
_pieces = st.sampled_from(
    [
        b"\r\n",
        b"\n",
        b"\r",
        b"\n\n",
        b"\r\n\r\n",
        b"data: a",
        b"data:b",
        b"data",
        b"data: \xf0\x9f\x98\x80",
        b"event: ping",
        b"event:",
        b": keep-alive",
        b"id: 7",
        b"retry: 10",
        b"\xef\xbb\xbf",
        b"data: [DONE]",
        b"x",
        b" ",
        b":",
    ]
)
streams = st.lists(_pieces, max_size=30).map(b"".join)


# Half of the streams keep to one line end, as servers do; the other half to none.
lines = st.lists(_pieces.filter(lambda piece: piece.strip() != b""), max_size=4)
streams |= st.builds(
    lambda end, events: b"".join(end.join(event) + end + end for event in events),
    st.sampled_from([b"\r\n", b"\n", b"\r"]),
    st.lists(lines, max_size=4),
)


@st.composite
def cut_streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    text = draw(streams)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    ends = [0, *cuts, len(text)]
    return text, [text[a:b] for a, b in itertools.pairwise(ends)]


def split(chunks: list[bytes], max_bytes: int = 1 << 20) -> list[bytes]:
    splitter = Splitter(max_bytes)
    pieces = [piece for chunk in chunks for piece in splitter.feed(chunk)]
    return [*pieces, splitter.rest()]


@pytest.mark.parametrize(
    ("what", "text", "events"),
    [
        ("one event", b"data: a\n\n", [Event("", "a")]),
        ("a named event", b"event: e\ndata: a\n\n", [Event("e", "a")]),
        ("the name after the data", b"data: a\nevent: e\n\n", [Event("e", "a")]),
        ("CR LF", b"data: a\r\n\r\n", [Event("", "a")]),
        ("CR", b"data: a\r\r", [Event("", "a")]),
        ("mixed line ends", b"data: a\r\n\ndata: b\r\n\rdata: c\n\r\n", list("abc")),
        ("no space after the colon", b"data:a\n\n", [Event("", "a")]),
        ("only one space is eaten", b"data:  a\n\n", [Event("", " a")]),
        ("several data lines", b"data: a\ndata: b\n\n", [Event("", "a\nb")]),
        ("empty data is data", b"data:\n\n", [Event("", "")]),
        ("a data field without a colon", b"data\n\n", [Event("", "")]),
        ("a comment between lines", b"data: a\n: hi\ndata: b\n\n", [Event("", "a\nb")]),
        ("only comments", b": ping\n\n: ping\n\n", []),
        ("an event without data is dropped", b"event: e\n\ndata: a\n\n", [Event("", "a")]),
        ("a byte order mark", b"\xef\xbb\xbfdata: a\n\n", [Event("", "a")]),
        ("an unfinished event is dropped", b"data: a\n\ndata: b\n", [Event("", "a")]),
        ("an unfinished line is dropped", b"data: a\n\ndata: b", [Event("", "a")]),
        ("a vertical tab ends no line", b"data: a\x0bb\n\n", [Event("", "a\x0bb")]),
        ("U+2028 ends no line", "data: a\u2028b\n\n".encode(), [Event("", "a\u2028b")]),
        ("id and retry carry no answer", b"id: 1\nretry: 2\ndata: a\n\n", [Event("", "a")]),
        ("nothing", b"", []),
    ],
)
def test_a_stream_parses_as_the_standard_says(
    what: str, text: bytes, events: list[Event] | list[str]
) -> None:
    expected = [e if isinstance(e, Event) else Event("", e) for e in events]
    assert expected == sse.parse(text)


def test_bytes_that_are_no_utf_8_are_said_to_be() -> None:
    with pytest.raises(UnicodeDecodeError):
        sse.parse(b"data: \xff\n\n")


@pytest.mark.parametrize("name", ["", "message_start"])
def test_what_is_written_is_read_again(name: str) -> None:
    assert [Event(name, '{"a":1}')] == sse.parse(sse.write(b'{"a":1}', name))


@given(cut_streams())
def test_splitting_changes_no_byte_and_no_event_wherever_the_stream_was_cut(
    cut: tuple[bytes, list[bytes]],
) -> None:
    text, chunks = cut

    pieces = split(chunks)

    assert text == b"".join(pieces)
    # The mark counts at the start of the stream only, so pieces are compared without it.
    if b"\xef\xbb\xbf" not in text:
        assert sse.parse(text) == [event for piece in pieces for event in sse.parse(piece)]


@given(streams)
def test_splitting_byte_by_byte_gives_the_events_of_the_whole(text: bytes) -> None:
    pieces = split([text[i : i + 1] for i in range(len(text))])

    assert text == b"".join(pieces)
    assert sse.parse(text) == sse.parse(b"".join(pieces))
    assert all(len(sse.parse(piece)) <= 1 for piece in pieces)


@given(cut_streams(), st.integers(0, 12))
def test_no_more_than_the_bound_is_held_back(
    cut: tuple[bytes, list[bytes]], max_bytes: int
) -> None:
    text, chunks = cut
    splitter = Splitter(max_bytes)
    out = b""
    for index, chunk in enumerate(chunks):
        out += b"".join(splitter.feed(chunk))
        assert len(b"".join(chunks[: index + 1])) - len(out) <= max_bytes

    assert text == out + splitter.rest()


def test_an_event_leaves_as_soon_as_its_blank_line_is_there() -> None:
    splitter = Splitter(1000)

    assert [] == splitter.feed(b"data: a\n")
    assert [b"data: a\n\n"] == splitter.feed(b"\n")
    assert [b"data: b\n\n", b"data: c\n\n"] == splitter.feed(b"data: b\n\ndata: c\n\ndata: d")
    assert b"data: d" == splitter.rest()
    assert b"" == splitter.rest()


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r"])
def test_the_lines_of_one_event_stay_together_whatever_ends_them(end: bytes) -> None:
    event = b"event: e" + end + b"data: a" + end + b"data: b" + end + end

    assert [event, event] == Splitter(1000).feed(event * 2)


def test_a_blank_line_cut_inside_its_cr_lf_ends_the_event_once() -> None:
    splitter = Splitter(1000)

    pieces = [*splitter.feed(b"data: a\r\n\r"), *splitter.feed(b"\ndata: b\r\n\r\n")]

    assert [[Event("", "a")], [Event("", "b")]] == [sse.parse(piece) for piece in pieces]


def test_an_event_longer_than_the_bound_is_let_go_and_told() -> None:
    splitter = Splitter(10)

    assert [b"data: 12345"] == splitter.feed(b"data: 12345")
    assert splitter.overflowed
    assert [b"6789\n\n"] == splitter.feed(b"6789\n\n")


def test_an_event_within_the_bound_does_not_overflow() -> None:
    splitter = Splitter(10)
    splitter.feed(b"data: 1234\n\n" * 100)

    assert not splitter.overflowed
