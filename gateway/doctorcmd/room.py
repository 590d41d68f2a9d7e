"""Whether there is memory for us beside the gateway, whose container this is.

Rule 1: who comes to help does not kill: a container without room is left alone, unless one insists.
Rule 2: where the kernel has to end somebody all the same, it is to be us.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

NEEDED_BYTES = 64 << 20
"""Measured: 70 MiB resident at most, a part of which is files that the gateway has in memory as well."""


def room_bytes(root: Path = Path("/")) -> int | None:
    """What the container has left, files that can be dropped included; None where nothing limits it, or
    nobody says (cgroup v2 only). `root` is where `sys` is.
    """
    folder = root / "sys/fs/cgroup"
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        stat = (folder / "memory.stat").read_text()
    except (OSError, ValueError):
        return None
    for line in stat.splitlines():
        name, _, number = line.partition(" ")
        if name == "inactive_file" and number.isdecimal():
            used -= int(number)
    return limit - used


def stand_back(root: Path = Path("/")) -> None:
    """Have the kernel end this process before any other of the container, if it has to."""
    with suppress(OSError):
        (root / "proc/self/oom_score_adj").write_text("1000")
