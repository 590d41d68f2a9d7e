"""What a Redis server's INFO means for the gateway."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway.doctorcmd.finding import fine, look, mend

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.doctorcmd.finding import Finding

_NUMBER = re.compile(r"\d+")
_OLDEST = 6
"""Of Redis, as tested; Valkey tells the version of Redis that it speaks as."""
_FULL = 0.95
_MIB = 1 << 20


def version(check: str, info: Mapping[str, str], *, is_one: bool = True) -> Finding:
    """Who it is, and in which part. `is_one`: the URL takes it for a single server."""
    name = info.get("server_name", "redis")
    told = info.get(f"{name}_version") or info.get("redis_version", "?")
    said = f"{name} {told}, {info.get('redis_mode', 'standalone')}, {info.get('role', '?')}"
    facts = {"server": name, "version": told, "role": info.get("role")}
    found = _NUMBER.match(info.get("redis_version", ""))
    if info.get("role") == "slave":
        link = info.get("master_link_status", "?")
        return mend(
            f"{check}.server",
            f"{said}: a replica (its primary is {link}), which takes no writes",
            "name the primary, or use redis+sentinel://",
            **facts,
        )
    if is_one and info.get("redis_mode") == "cluster":
        return mend(
            f"{check}.server",
            f"{said}: a node of a Cluster, used as a single server; what others hold is never found",
            "write redis+cluster:// in place of redis://",
            **facts,
        )
    if found and int(found[0]) < _OLDEST:
        how = f"use Redis {_OLDEST} or later, or Valkey"
        return look(f"{check}.server", f"{said}: older than what is tested", how, **facts)
    return fine(f"{check}.server", said, **facts)


def eviction(check: str, info: Mapping[str, str]) -> Finding:
    """What goes when it is full. The ledger, purge marks and the scope secret have no expiry: only
    `volatile-*` leaves them alone.
    """
    policy = info.get("maxmemory_policy", "")
    limit = _int(info, "maxmemory")
    facts = {
        "policy": policy,
        "maxmemory_bytes": limit,
        "evicted_keys": _int(info, "evicted_keys"),
    }
    name = f"{check}.eviction"
    use = "CONFIG SET maxmemory-policy volatile-lru (and in its config file)"
    if policy.startswith("allkeys-"):
        gone = " and has evicted already" if facts["evicted_keys"] else ""
        # Without a limit nothing is ever evicted; set one, and it is.
        which = mend if limit else look
        return which(
            name,
            f"{policy}{gone}: it may evict the ledger, purge marks and the scope secret, which have no "
            "expiry",
            use,
            **facts,
        )
    if not limit:
        return look(
            name,
            "no maxmemory: it grows until the machine or the container kills it",
            f"CONFIG SET maxmemory 512mb (what it has, less a quarter), and {use}",
            **facts,
        )
    if policy == "noeviction":
        return look(name, "noeviction: when it is full, no new answer is stored", use, **facts)
    if not policy:
        return look(name, "it does not tell its policy", "see maxmemory-policy", **facts)
    return fine(name, f"{policy} at {limit / _MIB:,.0f} MiB", **facts)


def memory_use(check: str, info: Mapping[str, str]) -> Finding:
    """How full it is."""
    used, limit = _int(info, "used_memory"), _int(info, "maxmemory")
    facts = {"used_bytes": used, "maxmemory_bytes": limit}
    name, said = f"{check}.memory", f"{used / _MIB:,.0f} MiB used"
    if not limit:
        return fine(name, said, **facts)
    said += f", {used / limit:.0%} of maxmemory"
    if used > _FULL * limit and info.get("maxmemory_policy") == "noeviction":
        return mend(
            name, f"{said}: its next writes fail", "raise maxmemory, or let it evict", **facts
        )
    return fine(name, said, **facts)


def persistence(check: str, info: Mapping[str, str]) -> Finding:
    """What outlives its restart: answers need not, the ledger should."""
    aof = info.get("aof_enabled") == "1"
    name = f"{check}.persistence"
    bad = [
        which
        for which, field in (
            ("RDB", "rdb_last_bgsave_status"),
            ("AOF", "aof_last_write_status"),
        )
        if info.get(field, "ok") != "ok"
    ]
    if bad:
        return mend(
            name,
            f"its last {' and '.join(bad)} write failed: by default it refuses writes now",
            "see its log, and the room on its disk",
        )
    if aof:
        return fine(name, "append-only file: the ledger outlives its restart", aof=True)
    return look(
        name,
        "no append-only file: a restart loses the ledger since the last snapshot",
        "appendonly yes, where the savings' numbers matter; nothing otherwise",
        aof=False,
    )


def _int(info: Mapping[str, str], name: str) -> int:
    text = info.get(name, "")
    return int(text) if text.isdecimal() else 0
