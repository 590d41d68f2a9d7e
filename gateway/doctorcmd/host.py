"""Limits of this machine or container: open files, memory against the budgets, kills, throttling."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.budget import cgroups, container_bytes, default_limit
from gateway.doctorcmd.finding import fine, look, mend, skipped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.config import Config
    from gateway.doctorcmd.finding import Finding

_MIB = 1 << 20
LEAST_FILES = 4096
_AT_REST_BYTES = 80 * _MIB
_DOOR_ENTRY_BYTES = 1_400
_AT_WORST = 3
"""How often a request's bytes exist at the worst moment (docs/explanation/memory.md)."""
_HOT_PART = 8
_RECENT_BYTES = 2_300
_RECKONED_TO = 0.1
"""Not all of it is ever full at the same moment; the gateway's own defaults are to fit."""
_THROTTLED = 0.05


def host(config: Config | None, root: Path) -> Iterator[Finding]:
    """Everything that can be seen without asking anybody. `root` is where `proc` and `sys` are."""
    yield _files()
    yield from _kills(root)
    yield from _throttled(root)
    if config is not None:
        yield memory(config, container_bytes(root))


def _files() -> Finding:
    try:
        import resource  # noqa: PLC0415 - not on every platform
    except ImportError:
        return skipped("host.files", "this platform tells no limit of open files")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = hard == resource.RLIM_INFINITY
    facts = {"soft": soft, "hard": None if unlimited else hard}
    if unlimited or hard >= LEAST_FILES:
        # (The gateway raises the soft limit itself.)
        return fine("host.files", f"{'any number of' if unlimited else hard} open files", **facts)
    return look(
        "host.files",
        f"only {hard} open files: about {hard // 2} requests at a time, each with two connections",
        "raise it: LimitNOFILE= of systemd, `ulimits` of compose, the container runtime's own limit",
        **facts,
    )


def memory(config: Config, limit_bytes: int | None) -> Finding:
    """What the settings may come to, against what the container may have."""
    budget = config.server.memory_budget_bytes or default_limit(limit_bytes)
    tier = config.store.memory_bytes
    door = config.cache.door_entries * _DOOR_ENTRY_BYTES
    parts = {
        "at rest": _AT_REST_BYTES,
        "store.memory_bytes": tier + tier // _HOT_PART,
        "cache.door_entries": door,
        "prompt_cache.tree_bytes, twice": 2 * config.prompt_cache.tree_bytes,
        "admin.recent_requests": config.admin.recent_requests * _RECENT_BYTES,
        "server.memory_budget_bytes, three times": _AT_WORST * budget,
    }
    total = sum(parts.values())
    facts = {
        "limit_bytes": limit_bytes,
        "at_worst_bytes": total,
        "parts_bytes": {name: size for name, size in parts.items() if size},
    }
    if limit_bytes is None:
        return fine(
            "host.memory", f"no limit; the settings come to {_mib(total)} at worst", **facts
        )
    said = f"limit {_mib(limit_bytes)}, and the settings come to {_mib(total)} at worst"
    room = limit_bytes * (1 + _RECKONED_TO)
    if total <= room:
        return fine("host.memory", said, **facts)
    largest = sorted(parts, key=lambda name: -parts[name])
    shown = ", ".join(f"{name} {_mib(parts[name])}" for name in largest if parts[name])
    how = f"raise the limit, or lower what weighs most: {shown}"
    # What is always used once there was traffic does not fit: that is no matter of a bad day.
    if total - (_AT_WORST - 1) * budget > room:
        return mend("host.memory", said, how, **facts)
    return look("host.memory", said, how, **facts)


def _kills(root: Path) -> Iterator[Finding]:
    told = [
        group.table("memory.events" if group.is_v2 else "memory.oom_control")
        for group in cgroups("memory", root)
    ]
    # The nearest that tells: those above it count others' as well.
    kills = next((each["oom_kill"] for each in told if "oom_kill" in each), None)
    if kills is None:
        return
    if kills:
        yield mend(
            "host.oom",
            f"the kernel has killed {kills} of this container's processes for want of memory",
            "raise the memory limit, or lower the budgets (see host.memory)",
            oom_kills=kills,
        )
    else:
        yield fine("host.oom", "nothing was killed for want of memory", oom_kills=0)


def _throttled(root: Path) -> Iterator[Finding]:
    # A limit may be set at any level, and the one that holds back most is the one that is felt.
    told = [group.table("cpu.stat") for group in cgroups("cpu", root)]
    counted = [
        (each.get("nr_throttled", 0) / each["nr_periods"], each)
        for each in told
        if each.get("nr_periods")
    ]
    if not counted:
        return
    share, stat = max(counted, key=lambda each: each[0])
    periods, throttled = stat["nr_periods"], stat.get("nr_throttled", 0)
    facts = {"periods": periods, "throttled": throttled}
    if share <= _THROTTLED:
        yield fine("host.cpu", f"held back in {share:.1%} of its CPU periods", **facts)
        return
    yield look(
        "host.cpu",
        f"held back in {share:.0%} of its CPU periods: every answer waits for that",
        "raise the CPU limit, or leave it out and keep the request",
        **facts,
    )


def _mib(size: int) -> str:
    return f"{size / _MIB:,.0f} MiB"
