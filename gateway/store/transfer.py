"""Entries out of a store and into another, as lines of JSON.

    {"warmgate": "entries", "version": 1, "key_version": 1, "secrets": ["<fingerprint>"]}
    {"key": "<64 hex digits>", "blob": "<base64 of what lies in the store>"}
    {"end": <how many>}

Blobs go as they are, with the checksum that binds each to its key. An import may be repeated: what
is there already, as young or younger, stays.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson
from blake3 import blake3

from gateway.core.identity import KEY_VERSION
from gateway.core.policy import RECORD_TTL_S
from gateway.store import codec
from gateway.store.base import StoreUnavailable
from gateway.store.walk import furthest, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from gateway.core.model import Entry
    from gateway.store.inventory import Inventory

VERSION = 1
CONTEXT = "warmgate 2026-11 fingerprint of a scope secret"

_PORTION = 25
_PORTION_BYTES = 16 << 20
_KEY_BYTES = 32
_PATIENCE_S = 10.0
_PAUSE_S = 0.1


class Unfit(Exception):
    """The file is no export, or none that helps here; in words for people."""


@dataclass(slots=True)
class Imported:
    """What became of the lines of an export."""

    stored: int = 0
    present: int = 0
    purged: int = 0
    expired: int = 0
    damaged: int = 0
    complete: bool = False
    """The file's last line was there."""

    def told(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def fingerprint(secret: bytes) -> str:
    """16 hex digits that tell scope secrets apart, and tell nothing else about them."""
    return blake3(secret, derive_key_context=CONTEXT).hexdigest(length=8)


async def export(
    inventory: Inventory,
    secrets: Sequence[bytes],
    write: Callable[[bytes], object],
    now: Callable[[], float],
) -> int:
    """Write all entries that may still be served; how many. Raises `StoreUnavailable`, and what
    `write` raises.
    """
    head = {
        "warmgate": "entries",
        "version": VERSION,
        "key_version": KEY_VERSION,
        "secrets": [fingerprint(secret) for secret in secrets],
    }
    write(orjson.dumps(head, option=orjson.OPT_APPEND_NEWLINE))
    written = 0
    marks = inventory.generations.marks
    async for portion in walk(inventory.store):
        for key, blob in portion:
            if len(blob) != _KEY_BYTES:
                try:
                    entry, _ = codec.describe(blob, key)
                except codec.Damaged:
                    continue
                if marks.kill(entry) or entry.age_s(now()) >= entry.ttl_s:
                    continue
            line = {"key": key.hex(), "blob": base64.b64encode(blob).decode()}
            write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
            written += 1
    write(orjson.dumps({"end": written}, option=orjson.OPT_APPEND_NEWLINE))
    return written


def check_head(line: bytes, secrets: Sequence[bytes], *, any_secret: bool = False) -> None:
    """Raises `Unfit` for a file that is no export, or whose entries nobody would find here."""
    try:
        head = orjson.loads(line)
    except ValueError:
        head = None
    if not isinstance(head, dict) or head.get("warmgate") != "entries":
        raise Unfit("this is no export of `gateway cache export`")
    if head.get("version") != VERSION:
        raise Unfit(f"this is an export of another version ({head.get('version')})")
    if head.get("key_version") != KEY_VERSION:
        raise Unfit(
            f"its keys are of version {head.get('key_version')}, and those of this gateway of "
            f"version {KEY_VERSION}: no request would find its entries"
        )
    here = {fingerprint(secret) for secret in secrets}
    if not any_secret and here.isdisjoint(head.get("secrets") or ()):
        raise Unfit(
            "it was made under another scope secret: its keys are other ones, and no request here "
            "would find its entries. Give cache.secret the secret of where it comes from (it may "
            "stand second, behind your own), or say --any-secret"
        )


async def import_lines(
    inventory: Inventory,
    lines: Iterable[bytes],
    now: Callable[[], float],
    *,
    dry_run: bool,
    said: Callable[[Imported], object] = lambda _: None,
) -> Imported:
    """Store what the lines after the head hold, unless `dry_run`. `said` is told now and then how
    far it is. Raises `StoreUnavailable`: then it can be repeated.
    """
    done = Imported()
    for portion in _portions(lines, done):
        held = await furthest(inventory.store).get([key for key, _ in portion])
        puts = []
        for (key, blob), present in zip(portion, held, strict=True):
            put = _judged(inventory, key, blob, present, now(), done)
            if put is not None:
                puts.append((key, *put))
        if not dry_run:
            await asyncio.gather(*(_put(inventory, *put) for put in puts))
        done.stored += len(puts)
        said(done)
    return done


def _portions(lines: Iterable[bytes], done: Imported) -> Iterator[list[tuple[bytes, bytes]]]:
    portion: list[tuple[bytes, bytes]] = []
    size = 0
    for line in lines:
        try:
            read = orjson.loads(line)
            if "end" in read:
                done.complete = True
                break
            key, blob = bytes.fromhex(read["key"]), base64.b64decode(read["blob"], validate=True)
        except (ValueError, KeyError, TypeError, binascii.Error):
            done.damaged += 1
            continue
        if len(key) != _KEY_BYTES:
            done.damaged += 1
            continue
        portion.append((key, blob))
        size += len(blob)
        if len(portion) >= _PORTION or size >= _PORTION_BYTES:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _judged(  # noqa: PLR0917
    inventory: Inventory, key: bytes, blob: bytes, present: bytes | None, now: float, done: Imported
) -> tuple[bytes, float] | None:
    """What to put and for how long; None for what is not to be put, and why is counted."""
    if len(blob) == _KEY_BYTES:
        # Where the entry of a response lies that the provider keeps: without it a deletion at the
        # provider would not find the entry.
        done.present += present is not None
        return None if present is not None else (blob, RECORD_TTL_S)
    try:
        entry = codec.decode(blob, key)
    except codec.Damaged:
        done.damaged += 1
        return None
    left_s = entry.stored_at + entry.ttl_s - now
    generations = inventory.generations
    if left_s <= 0:
        done.expired += 1
    elif generations.marks.kill(entry):
        done.purged += 1
    elif present is not None and _is_as_young(present, key, entry):
        done.present += 1
    elif entry.generation > generations.sequence:
        # Of a clock ahead of ours: a later purge here must be above it.
        return codec.encode(replace(entry, generation=generations.sequence), key), left_s
    else:
        return blob, left_s
    return None


def _is_as_young(present: bytes, key: bytes, entry: Entry) -> bool:
    try:
        return codec.describe(present, key)[0].stored_at >= entry.stored_at
    except codec.Damaged:
        return False


async def _put(inventory: Inventory, key: bytes, blob: bytes, ttl_s: float) -> None:
    """Put, with patience for a store that takes only so much at once."""
    pauses = int(_PATIENCE_S / _PAUSE_S)
    while True:
        try:
            await furthest(inventory.store).put(key, blob, ttl_s)
        except StoreUnavailable:
            if not pauses:
                raise
            pauses -= 1
        else:
            return
        await asyncio.sleep(_PAUSE_S)
