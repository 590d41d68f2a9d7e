"""Whether there is memory for us beside the gateway, whose container this is.

Rule 1: who comes to help does not kill: a container without room is left alone, unless one insists.
Rule 2: where the kernel has to end somebody all the same, it is to be us.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from gateway.budget import cgroups

NEEDED_BYTES = 64 << 20
"""Measured: 70 MiB resident at most, a part of which is files that the gateway has in memory as well."""


def room_bytes(root: Path = Path("/")) -> int | None:
    """What the container has left, files that can be dropped included; None where nothing limits it, or
    nobody says. `root` is where `proc` and `sys` are.
    """
    left: list[int] = []
    for group in cgroups("memory", root):
        v2 = group.is_v2
        limit = group.number("memory.max" if v2 else "memory.limit_in_bytes")
        used = group.number("memory.current" if v2 else "memory.usage_in_bytes")
        if limit is not None and used is not None:
            dropped = group.table("memory.stat").get(
                "inactive_file" if v2 else "total_inactive_file", 0
            )
            left.append(limit - used + dropped)
    return min(left, default=None)


def stand_back(root: Path = Path("/")) -> None:
    """Have the kernel end this process before any other of the container, if it has to."""
    with suppress(OSError):
        (root / "proc/self/oom_score_adj").write_text("1000")
