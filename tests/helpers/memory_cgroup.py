"""A cgroup that allows so much memory and no more, as a container's limit does.

Where none can be made (no rights, another system), `memory_cgroup` yields None.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_GONE_S = 10.0


class MemoryCgroup:
    """One of version 1 or 2."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._second = (folder / "memory.max").exists()

    def __repr__(self) -> str:
        return f"<MemoryCgroup {self._folder}, killed {self.killed}>"

    @property
    def under(self) -> tuple[str, ...]:
        """What a command is preceded by to run inside from its first instruction on."""
        return "/bin/sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(self._folder)

    def limit(self, limit_bytes: int) -> None:
        """Allow so much."""
        name = "memory.max" if self._second else "memory.limit_in_bytes"
        (self._folder / name).write_text(str(limit_bytes))

    @property
    def peak_bytes(self) -> int | None:
        """The most that was ever charged, files read included; None where nobody kept it."""
        name = "memory.peak" if self._second else "memory.max_usage_in_bytes"
        with suppress(OSError):
            return int((self._folder / name).read_text())
        return None

    @property
    def killed(self) -> int:
        """Processes that were ended because it was full."""
        name = "memory.events" if self._second else "memory.oom_control"
        lines = (self._folder / name).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


@contextmanager
def memory_cgroup(limit_bytes: int) -> Iterator[MemoryCgroup | None]:
    """One with that limit, for processes that have ended when the context is left."""
    folder = _made()
    if folder is None:
        yield None
        return
    try:
        cgroup = MemoryCgroup(folder)
        cgroup.limit(limit_bytes)
        yield cgroup
    finally:
        _remove(folder)


def _made() -> Path | None:
    name = f"warmgate-test-{os.getpid()}-{time.monotonic_ns()}"
    for parent in _parents():
        folder = parent / name
        with suppress(OSError):
            folder.mkdir()
            if any((folder / f).exists() for f in ("memory.max", "memory.limit_in_bytes")):
                return folder
            folder.rmdir()
    return None


def _parents() -> Iterator[Path]:
    """Where one may be made: below our own, or beside it."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                own = Path("/sys/fs/cgroup/memory", path.strip("/"))
            elif not controllers:
                own = Path("/sys/fs/cgroup", path.strip("/"))
            else:
                continue
            yield own
            yield own.parent


def _remove(folder: Path) -> None:
    """Whoever was inside has ended; the kernel may need a moment to see it."""
    until = time.monotonic() + _GONE_S
    while True:
        try:
            folder.rmdir()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return
