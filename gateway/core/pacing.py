"""The pace of a recorded stream, so that a replay can keep it.

`x-gateway-replay: original` plays a stream as it once came, each gap capped at a second; `instant`
(the default) sends it at once.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from gateway.core.sse import Splitter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_GAP_MS = 1000
_MAX_EVENT_BYTES = 16 * 1024 * 1024


def gaps(stream: bytes, ends: Sequence[int], arrived_ms: Sequence[int]) -> tuple[int, ...]:
    """Milliseconds before each event of the stream, the first one's 0, none above a second.

    The stream came in chunks: chunk i ended at byte `ends[i]` and arrived at `arrived_ms[i]` by
    any clock. An event arrives with the chunk that holds its last byte.
    """
    out: list[int] = []
    last: int | None = None
    position = 0
    for event in events(stream):
        position += len(event)
        chunk = min(bisect_left(ends, position), len(ends) - 1)
        now = arrived_ms[chunk] if ends else 0
        out.append(0 if last is None else max(0, min(MAX_GAP_MS, now - last)))
        last = now
    return tuple(out)


def events(stream: bytes) -> Iterator[bytes]:
    """The raw events of a whole stream; what follows the last blank line is the last one."""
    splitter = Splitter(_MAX_EVENT_BYTES)
    yield from splitter.feed(stream)
    if rest := splitter.rest():
        yield rest


def paced(stream: bytes, recorded: Sequence[int]) -> Iterator[tuple[float, bytes]]:
    """The stream as (seconds to wait, bytes to send): events that came together go together.

    `recorded` are the gaps of the stream as it came; where the replay has more events (or was
    never a stream), the rest goes without waiting.
    """
    waiting_s = 0.0
    together: list[bytes] = []
    for index, event in enumerate(events(stream)):
        gap = recorded[index] if index < len(recorded) else 0
        if gap and together:
            yield waiting_s, b"".join(together)
            waiting_s, together = 0.0, []
        waiting_s += gap / 1000
        together.append(event)
    if together:
        yield waiting_s, b"".join(together)
