"""Entry <-> bytes. What comes back was written by us, whole, or is `Damaged`.

    magic 3 | version 1 | xxh3_64 8 | stored_at f64 | ttl_s f64 | metadata length u32 | metadata
    | payload

Big-endian. The checksum covers everything after itself and is seeded with the version, so a
version byte that was flipped into another known one is found too. The two times stand at a fixed
place because a tier in front needs them on every promotion, without reading the rest.
The metadata is a JSON object: a member may be added within a version when old readers can do
without it; anything else takes a new version, and a reader treats versions it does not know as
`Damaged`, which is a miss.
"""

from __future__ import annotations

import struct

import orjson
from xxhash import xxh3_64

from gateway.core.model import Entry, Form, Usage

MAGIC = b"WGe"
VERSION = 1

_FRAME = struct.Struct(">3sBQ")
_HEAD = struct.Struct(">ddI")
_BODY_AT = _FRAME.size + _HEAD.size


class Damaged(Exception):
    """The bytes are not an entry of ours, or not all of it. Treat it as a miss."""


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
            # Left out where there is nothing to say: most entries of version 1 have no gaps.
            **({"gaps_ms": entry.gaps_ms} if entry.gaps_ms else {}),
        }
    )
    covered = b"".join(
        (_HEAD.pack(entry.stored_at, entry.ttl_s, len(metadata)), metadata, entry.payload)
    )
    return _FRAME.pack(MAGIC, VERSION, _checksum(key, covered, VERSION)) + covered


def decode(blob: bytes, key: bytes) -> Entry:
    """The entry in the blob that was stored under `key`. Raises `Damaged`, nothing else: also for
    the whole and sound entry of another key, which is nobody's answer here.
    """
    stored_at, ttl_s, metadata_size = _head(blob)
    _, version, checksum = _FRAME.unpack_from(blob)
    if _checksum(key, memoryview(blob)[_FRAME.size :], version) != checksum:
        raise Damaged("the checksum does not match: damaged, or the entry of another key")
    payload_at = _BODY_AT + metadata_size
    if payload_at > len(blob):
        raise Damaged("the metadata is longer than the blob")
    try:
        metadata = orjson.loads(memoryview(blob)[_BODY_AT:payload_at])
        usage = metadata["usage"]
        return Entry(
            api=metadata["api"],
            recorded=Form(metadata["recorded"]),
            forms=frozenset(Form(form) for form in metadata["forms"]),
            payload=blob[payload_at:],
            stored_at=stored_at,
            ttl_s=ttl_s,
            model=metadata["model"],
            response_id=metadata["response_id"],
            usage=None if usage is None else Usage(**usage),
            has_stream_usage=metadata["has_stream_usage"],
            gaps_ms=tuple(metadata.get("gaps_ms", ())),
        )
    except (KeyError, TypeError, ValueError) as exc:
        # The checksum held, so a writer of this version left something out or spelled it anew.
        raise Damaged("the metadata is not what this version writes") from exc


def _checksum(key: bytes, covered: bytes | memoryview, version: int) -> int:
    hasher = xxh3_64(key, version)
    hasher.update(covered)
    return hasher.intdigest()


def expires_at(blob: bytes) -> float:
    """When the entry in the blob lapses, seconds since the epoch.

    Reads 16 bytes and verifies only the kind and the version; `decode` judges the rest.
    Raises `Damaged`.
    """
    stored_at, ttl_s, _ = _head(blob)
    return stored_at + ttl_s


def _head(blob: bytes) -> tuple[float, float, int]:
    if len(blob) < _BODY_AT:
        raise Damaged(f"{len(blob)} bytes are too few")
    magic, version, _ = _FRAME.unpack_from(blob)
    if magic != MAGIC:
        raise Damaged("the bytes are not an entry")
    if version != VERSION:
        raise Damaged(f"version {version} is not known here")
    stored_at, ttl_s, metadata_size = _HEAD.unpack_from(blob, _FRAME.size)
    return stored_at, ttl_s, metadata_size
