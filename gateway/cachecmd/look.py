"""`gateway cache stats` and `gateway cache show`, as people and programs read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from gateway.cachecmd.desk import Trouble, Wanted
from gateway.core.selection import hex8

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

    from gateway.cachecmd.desk import Desk

OK, NONE = 0, 1
_KEY_DIGITS = 64
_UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


async def stats(desk: Desk, limit: int, out: BinaryIO, *, as_json: bool) -> int:
    """Print what lies in the store."""
    told = await desk.stats(limit)
    if as_json:
        out.write(orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE))
        return OK
    about = "" if told["exact"] else "about "
    out.write(
        f"{told['store']}: {about}{told['entries']:,} entries, {about}"
        f"{size(told['stored_bytes'])} ({size(told['payload_bytes'])} of answers); "
        f"{about}{told['purged']:,} purged, {told['expired']:,} expired, "
        f"{told['damaged']:,} damaged or foreign\n".encode()
    )
    for name in ("model", "tag"):
        out.writelines(
            f"  {name} {value}: {about}{number:,}\n".encode()
            for value, number in told[f"by_{name}"].items()
        )
    memory = told.get("memory")
    if memory:
        out.write(
            f"in memory: {memory['entries']:,} entries, {size(memory['bytes'])} of "
            f"{size(memory['budget_bytes'])}\n".encode()
        )
    purges = told["purges"]
    age = purges.get("age_s")
    heard = "" if age is None else f", heard of {age:.1f} s ago (bound {purges['bound_s']:g} s)"
    out.write(
        f"purges: {purges['names']:,} names remembered, sequence {purges['sequence']}{heard}\n".encode()
    )
    out.writelines(_engine(name, each) for name, each in (told.get("engines") or {}).items())
    return OK


def _engine(name: str, told: Mapping[str, Any]) -> bytes:
    """One line for what an engine says of itself, or why it doesn't."""
    shares = told["prefix_hit_share"]
    known = [
        f"{told[state]:,} {state}" for state in ("running", "waiting") if told[state] is not None
    ]
    known += [
        f"{words} {share:.0%}"
        for words, share in (
            ("KV cache", told["kv_usage"]),
            ("prefix hits", shares["interval"]),
            ("in total", shares["total"]),
        )
        if share is not None
    ]
    if told.get("slots"):
        known.append(f"{told['slots']:,} slots")
    elif told.get("capacity_tokens"):
        known.append(f"room for {told['capacity_tokens']:,} tokens")
    if told["restarts"]:
        known.append(f"restarts: {told['restarts']:,}")
    if told["age_s"] is not None:
        known.append(f"{told['age_s']:.1f} s ago")
    if told["failing_s"] is not None:
        known.append(f"FAILING for {told['failing_s']:.1f} s ({told['failure']})")
    said = ", ".join(known) or "not read yet"
    return f"engine {name} ({told['engine']}): {said}\n".encode()


async def show(desk: Desk, key: str, out: BinaryIO, *, as_json: bool, payload: bool) -> int:
    """Print the entries of a key, or the answer itself; 1 when there are none."""
    try:
        hex8(key)
    except ValueError as exc:
        raise Trouble(str(exc)) from exc
    key = key.strip().lower()
    if payload:
        if len(key) != _KEY_DIGITS:
            raise Trouble("a payload is shown by its whole key, as `show` prints it")
        out.write(await desk.payload(key))
        return OK
    return _print(await desk.show(key), out, as_json=as_json)


async def listing(desk: Desk, wanted: Wanted, limit: int, out: BinaryIO, *, as_json: bool) -> int:
    """Print some of the entries; 1 when there are none."""
    return _print(await desk.entries(wanted, limit), out, as_json=as_json)


def _print(found: list[dict[str, Any]], out: BinaryIO, *, as_json: bool) -> int:
    for told in found:
        line = orjson.dumps(told) if as_json else _line(told).encode()
        out.write(line + b"\n")
    return OK if found else NONE


def _line(told: Mapping[str, Any]) -> str:
    left = told["ttl_left_s"]
    state = told["refused"] or ("expired" if left <= 0 else f"{left:.0f} s left")
    tags = f" [{', '.join(told['tags'])}]" if told["tags"] else ""
    return (
        f"{told['key']} {told['api']} {told['model']}{tags} {'+'.join(told['forms'])} "
        f"{size(told['payload_bytes'])}, {told['age_s']:.0f} s old, {state}"
    )


def size(number: int) -> str:
    """Bytes for people."""
    for unit, of in _UNITS:
        if number >= of:
            return f"{number / of:.1f} {unit}"
    return f"{number} B"
