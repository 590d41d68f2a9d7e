"""What was put into a request on its way, found without asking who did it: `inserted`."""

from __future__ import annotations

import re
from typing import NamedTuple

_MARK = (
    rb',"cache_control":\{"type":"ephemeral"(?:,"ttl":"1h")?\}'
    rb'|,"prompt_cache_breakpoint":\{"mode":"explicit"\}'
)
_PART = rb'\{"type":"(?:input_)?text","text":'
_HEAD = re.compile(_PART + rb'"((?:[^"\\]|\\.)*+)"(?:' + _MARK + rb")?\},")
"""The head of a text that becomes two, as a block before it: the text goes on without it."""
_KNOWN = [
    _HEAD,
    # A string becomes two texts.
    re.compile(rb'"(?:' + _MARK + rb")?\}," + _PART + rb'"'),
    # A string becomes a list of one text: its two sides.
    re.compile(rb"\[" + _PART),
    re.compile(rb"(?:" + _MARK + rb")?\}\]"),
    re.compile(_MARK),
    re.compile(rb',"prompt_cache_options":\{"mode":"(?:explicit|implicit)"\}'),
    re.compile(rb'(?<=\{)"prompt_cache_key":"[^"]+",'),
]
_TEXT = re.compile(rb'"text"\s*:\s*"')


class Changed(AssertionError):
    """Something else than a marker is different."""


class _Walk(NamedTuple):
    """How far both are read, and what of the sent one stands in a block of its own."""

    candidate: int
    sent: int
    received: int
    head: bytes
    found: tuple[bytes, ...]


def inserted(sent: bytes, received: bytes) -> list[bytes]:
    """The markers in `received` that are not in `sent`, in order. Raises Changed unless all else is
    the same byte for byte; a split text's head may stand in a block of its own.
    """
    matches = [match for known in _KNOWN for match in known.finditer(received)]
    matches.sort(key=lambda match: (match.start(), -match.end()))
    # What can be read as the client's own is, until that turns out to be wrong.
    open_ways = [_Walk(0, 0, 0, b"", ())]
    tried: set[tuple[int, int, int, bytes]] = set()
    furthest = 0
    while open_ways:
        way = open_ways.pop()
        if way[:4] in tried:
            continue
        tried.add(way[:4])
        furthest = max(furthest, way.sent)
        if way.candidate == len(matches):
            end = _same(sent, received, way, len(received))
            if end is not None and end.sent == len(sent) and not end.head:
                return list(end.found)
            continue
        match = matches[way.candidate]
        if match.start() < way.received:
            open_ways.append(way._replace(candidate=way.candidate + 1))
            continue
        here = _same(sent, received, way, match.start())
        if here is None:
            continue
        own = here._replace(candidate=way.candidate + 1)
        head = match.group(1) if match.re is _HEAD else b""
        new = _Walk(
            own.candidate, here.sent, match.end(), here.head + head, (*here.found, match.group())
        )
        is_own = sent.startswith(match.group(), here.sent)
        open_ways += (new, own) if is_own else (own, new)
    raise Changed(f"not the same from about here on: {sent[furthest : furthest + 200]!r}")


def _same(sent: bytes, received: bytes, way: _Walk, until: int) -> _Walk | None:
    """Both read on as far as `until`; None where they differ."""
    at, done, head = way.sent, way.received, way.head
    if head:
        for where in _TEXT.finditer(received, done, until):
            before = received[done : where.end()]
            if sent.startswith(before + head, at):
                at, done, head = at + len(before) + len(head), where.end(), b""
                break
    part = received[done:until]
    if not sent.startswith(part, at):
        return None
    return way._replace(sent=at + len(part), received=until, head=head)
