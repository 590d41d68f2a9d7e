"""Server-sent events, incrementally: bytes in, whole events out, however the bytes were split.

Follows the event stream interpretation of the WHATWG HTML standard, section 9.2.6: lines end in
CR LF, LF or CR; a blank line dispatches; an event without data is dropped; comments are skipped.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_LINE = re.compile(rb"\r\n|\n|\r")
# Atomic, so that the CR LF of one line is never taken for two line ends.
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One dispatched event: its name (empty for the default, `message`) and its data."""

    name: str
    data: str


def parse(text: bytes) -> list[Event]:
    """The events of a whole stream. An unfinished last event is dropped, as the standard says.

    Raises UnicodeDecodeError for bytes that are no UTF-8.
    """
    return [Event(name, data.decode()) for name, data in events(text)]


def events(text: bytes) -> list[tuple[str, bytes]]:
    """As `parse`, for readers that want the data (and what is no UTF-8 in it) as it came."""
    found: list[tuple[str, bytes]] = []
    text = text.removeprefix(_BOM)
    if b"\r" in text:
        text = b"\n".join(_LINE.split(text))
    # What follows the last blank line was never dispatched.
    for piece in text.split(b"\n\n")[:-1]:
        if piece.startswith(b"data: ") and b"\n" not in piece:
            found.append(("", piece[6:]))
            continue
        name = b""
        data: list[bytes] = []
        for line in piece.split(b"\n"):
            field, _, value = line.partition(b":")
            if field == b"data":
                data.append(value.removeprefix(b" "))
            elif field == b"event":
                name = value.removeprefix(b" ")
            # Comments (an empty field name), id, retry and unknown fields carry no answer.
        if data:
            found.append((name.decode(), b"\n".join(data)))
    return found


def write(data: bytes, name: str = "") -> bytes:
    """One event on the wire. `data` must hold no line end (compact JSON never does)."""
    if name:
        return b"event: %b\ndata: %b\n\n" % (name.encode(), data)
    return b"data: %b\n\n" % data


class Splitter:
    """Cuts a stream into raw events without changing a byte: what goes in comes out, in order.

    A piece ends with the blank line of its event. An event longer than `max_bytes` is let go in
    parts (`overflowed` tells), so that no sender can make us hold more than that.
    """

    __slots__ = ("_buffer", "_max_bytes", "_searched", "overflowed")

    def __init__(self, max_bytes: int) -> None:
        """Hold at most `max_bytes` of an unfinished event."""
        self._buffer = bytearray()
        self._searched = 0
        self._max_bytes = max_bytes
        self.overflowed = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that are whole now."""
        self._buffer += chunk
        pieces: list[bytes] = []
        start = 0
        # A blank line may begin up to three bytes before what was searched already.
        for match in _BLANK_LINE.finditer(self._buffer, max(0, self._searched - 3)):
            pieces.append(bytes(self._buffer[start : match.end()]))
            start = match.end()
        if start:
            del self._buffer[:start]
        self._searched = len(self._buffer)
        if self._searched > self._max_bytes:
            self.overflowed = True
            pieces.append(self.rest())
        return pieces

    def rest(self) -> bytes:
        """What is left at the end of the stream: an unfinished event, or nothing."""
        left = bytes(self._buffer)
        self._buffer.clear()
        self._searched = 0
        return left
