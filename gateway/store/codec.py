"""Entry <-> bytes. What comes back was written by us, whole, or is `Damaged`.

    version 2: magic 3 | version 1 | xxh3_64 8 | stored_at f64 | ttl_s f64 | generation u64
               | payload length u32 | metadata length u32 | coding 1 | metadata | payload, coded
    version 1: magic 3 | version 1 | xxh3_64 8 | stored_at f64 | ttl_s f64
               | metadata length u32 | metadata | payload

Big-endian. Version 2 is written, both are read. The checksum covers everything after itself, as
it is stored, and is seeded with the version, so a version byte that was flipped into another known
one is found too. The two times stand at a fixed place because a tier in front needs them on every
promotion, without reading the rest.
Coding 0 is the payload itself, 1 a zstd frame of it; `payload length` is that of the payload itself,
so that its size is known before room is made for it.
The metadata is a JSON object, never compressed: a member may be added within a version when old
readers can do without it; anything else takes a new version, and a reader treats versions and
codings it does not know as `Damaged`, which is a miss.
"""

from __future__ import annotations

import struct
import threading
from typing import Any, NamedTuple

import orjson
import zstandard
from xxhash import xxh3_64

from gateway.core.model import Entry, Form, Usage

MAGIC = b"WGe"
VERSION = 2

LARGEST_BYTES = 64 << 20
"""A payload that says it is longer is not unpacked, unless the caller knows better."""

COMPRESS_BYTES = 1024
"""Below it compression saves little: 0.8 KB of JSON shrink to 60 %, 2 KB to 47, 32 KB to 23."""

LEVEL = 1
"""Measured on answers of coding agents in 2 / 32 / 256 KB: level 1 takes 6 / 49 / 243 microseconds
for ratios of 2.1 / 4.3 / 10.3, level 3 takes 8 / 68 / 264 for 2.2 / 4.5 / 11.0."""

LONG_BYTES = 256 * 1024
"""What is longer takes most of a millisecond: code it beside the event loop."""

_WINDOW_BYTES = 8 << 20
"""Of a frame that we write, at most; a larger one would be somebody else's claim on our memory."""

_RAW, _ZSTD = 0, 1

_FRAME = struct.Struct(">3sBQ")
_TIMES = struct.Struct(">dd")
_HEAD_1 = struct.Struct(">ddI")
_HEAD_2 = struct.Struct(">ddQIIB")


class Damaged(Exception):
    """The bytes are not an entry of ours, or not all of it. Treat it as a miss."""


class _Head(NamedTuple):
    stored_at: float
    ttl_s: float
    generation: int
    payload_size: int
    metadata_size: int
    coding: int
    body_at: int


class _Coders(threading.local):
    """A compressor and a decompressor of each thread's own: they are not for two at once, and a
    new one costs more than the work on a short payload.
    """

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=LEVEL)
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES)


_coders = _Coders()


def encode(entry: Entry, key: bytes) -> bytes:
    """The entry as one blob, bound to the key that it is stored under."""
    usage = entry.usage
    metadata = orjson.dumps(
        {
            "api": entry.api,
            "recorded": entry.recorded,
            "forms": sorted(entry.forms),
            "model": entry.model,
            "response_id": entry.response_id,
            "usage": None
            if usage is None
            else {
                "uncached_input": usage.uncached_input,
                "cache_read": usage.cache_read,
                "cache_write_5m": usage.cache_write_5m,
                "cache_write_1h": usage.cache_write_1h,
                "output": usage.output,
            },
            "has_stream_usage": entry.has_stream_usage,
            # Left out where there is nothing to say: most entries have none of these.
            **({"gaps_ms": entry.gaps_ms} if entry.gaps_ms else {}),
            **({"tags": entry.tags} if entry.tags else {}),
            **({"key": entry.key_hex8} if entry.key_hex8 else {}),
            **({"terms": entry.terms} if entry.terms else {}),
        }
    )
    payload, coding = entry.payload, _RAW
    if len(payload) >= COMPRESS_BYTES:
        frame = _coders.compressor.compress(payload)
        if len(frame) < len(payload):
            payload, coding = frame, _ZSTD
    head = _HEAD_2.pack(
        entry.stored_at,
        entry.ttl_s,
        entry.generation,
        len(entry.payload),
        len(metadata),
        coding,
    )
    covered = b"".join((head, metadata, payload))
    return _FRAME.pack(MAGIC, VERSION, _checksum(key, covered, VERSION)) + covered


def decode(blob: bytes, key: bytes, limit_bytes: int = LARGEST_BYTES) -> Entry:
    """The entry in the blob that was stored under `key`, its payload at most `limit_bytes`.

    Raises `Damaged`, nothing else: also for the whole and sound entry of another key, which is
    nobody's answer here.
    """
    head, metadata = _read(blob, key)
    payload = blob[head.body_at + head.metadata_size :]
    if head.coding == _ZSTD:
        payload = _unpacked(payload, head.payload_size, limit_bytes)
    if len(payload) != head.payload_size:
        raise Damaged("the payload is not as long as was said")
    return _entry(head, metadata, payload)


def describe(blob: bytes, key: bytes) -> tuple[Entry, int]:
    """The entry without its payload, and the payload's length; the payload is not unpacked.

    Raises `Damaged`.
    """
    head, metadata = _read(blob, key)
    return _entry(head, metadata, b""), head.payload_size


def payload_size(blob: bytes) -> int:
    """How long the payload says it is; 0 for what is no entry. Reads a few bytes."""
    try:
        return _head(blob).payload_size
    except Damaged:
        return 0


def expires_at(blob: bytes) -> float:
    """When the entry in the blob lapses, seconds since the epoch.

    Reads 16 bytes and verifies only the kind and the version; `decode` judges the rest.
    Raises `Damaged`.
    """
    _frame(blob)
    stored_at, ttl_s = _TIMES.unpack_from(blob, _FRAME.size)
    return float(stored_at + ttl_s)


def _read(blob: bytes, key: bytes) -> tuple[_Head, Any]:
    """Head and metadata of a blob whose checksum holds."""
    head = _head(blob)
    _, version, checksum = _FRAME.unpack_from(blob)
    if _checksum(key, memoryview(blob)[_FRAME.size :], version) != checksum:
        raise Damaged("the checksum does not match: damaged, or the entry of another key")
    payload_at = head.body_at + head.metadata_size
    if payload_at > len(blob):
        raise Damaged("the metadata is longer than the blob")
    try:
        return head, orjson.loads(memoryview(blob)[head.body_at : payload_at])
    except ValueError as exc:
        raise Damaged("the metadata is not JSON") from exc


def _entry(head: _Head, metadata: Any, payload: bytes) -> Entry:
    try:
        usage = metadata["usage"]
        return Entry(
            api=metadata["api"],
            recorded=Form(metadata["recorded"]),
            forms=frozenset(Form(form) for form in metadata["forms"]),
            payload=payload,
            stored_at=head.stored_at,
            ttl_s=head.ttl_s,
            model=metadata["model"],
            response_id=metadata["response_id"],
            usage=None if usage is None else Usage(**usage),
            has_stream_usage=metadata["has_stream_usage"],
            gaps_ms=tuple(metadata.get("gaps_ms", ())),
            tags=tuple(metadata.get("tags", ())),
            generation=head.generation,
            key_hex8=metadata.get("key", ""),
            terms=tuple(metadata.get("terms", ())),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        # The checksum held, so a writer of this version left something out or spelled it anew.
        raise Damaged("the metadata is not what this version writes") from exc


def _unpacked(frame: bytes, size: int, limit_bytes: int) -> bytes:
    if size > limit_bytes:
        raise Damaged(f"the payload says it has {size} bytes, and {limit_bytes} are allowed")
    try:
        # The frame's own word decides how much memory is taken, so it must be the head's.
        if zstandard.frame_content_size(frame) != size:
            raise Damaged("the payload is not as long as was said")
        return _coders.decompressor.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise Damaged(f"the payload can't be unpacked: {exc}") from exc


def _checksum(key: bytes, covered: bytes | memoryview, version: int) -> int:
    hasher = xxh3_64(key, version)
    hasher.update(covered)
    return hasher.intdigest()


def _frame(blob: bytes) -> int:
    if len(blob) < _FRAME.size + _HEAD_1.size:
        raise Damaged(f"{len(blob)} bytes are too few")
    magic, version, _ = _FRAME.unpack_from(blob)
    if magic != MAGIC:
        raise Damaged("the bytes are not an entry")
    if version not in {1, VERSION}:
        raise Damaged(f"version {version} is not known here")
    return int(version)


def _head(blob: bytes) -> _Head:
    if _frame(blob) == 1:
        body_at = _FRAME.size + _HEAD_1.size
        stored_at, ttl_s, metadata_size = _HEAD_1.unpack_from(blob, _FRAME.size)
        size = max(0, len(blob) - body_at - metadata_size)
        return _Head(stored_at, ttl_s, 0, size, metadata_size, _RAW, body_at)
    body_at = _FRAME.size + _HEAD_2.size
    if len(blob) < body_at:
        raise Damaged(f"{len(blob)} bytes are too few")
    stored_at, ttl_s, generation, size, metadata_size, coding = _HEAD_2.unpack_from(
        blob, _FRAME.size
    )
    if coding not in {_RAW, _ZSTD}:
        raise Damaged(f"coding {coding} is not known here")
    return _Head(stored_at, ttl_s, generation, size, metadata_size, coding, body_at)
