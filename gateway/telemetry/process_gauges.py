"""What the process itself takes, read when somebody collects.

Named so that Prometheus shows them under the names that its client libraries give them everywhere
(`process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_open_fds`). What a platform
doesn't tell (all but Linux tells less) has no series.
"""

from __future__ import annotations

import gc
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from opentelemetry.metrics import CallbackOptions, Observation

from gateway.telemetry import semconv as s
from gateway.telemetry.logs import lost_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import Meter

_RESIDENT_PAGES = 1
_START_TICKS = 22


def observe_process(meter: Meter) -> None:
    """The process that this runs in."""

    def observing(read: Callable[[], float]) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            with suppress(OSError, ValueError, ImportError):
                return [Observation(read())]
            return []

        return observe

    def collections(_: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(each["collections"], {s.L_GENERATION: str(generation)})
            for generation, each in enumerate(gc.get_stats())
        ]

    meter.create_observable_counter(
        s.M_PROCESS_CPU, [observing(time.process_time)], "s", "Processor time used."
    )
    meter.create_observable_gauge(
        s.M_PROCESS_MEMORY, [observing(_resident_bytes)], "By", "Memory in use."
    )
    meter.create_observable_gauge(
        s.M_PROCESS_OPEN_FDS, [observing(_open_fds)], "", "Files and connections that are open."
    )
    meter.create_observable_gauge(
        s.M_PROCESS_MAX_FDS, [observing(_max_fds)], "", "Files and connections that may be open."
    )
    meter.create_observable_gauge(
        s.M_PROCESS_START, [observing(_started_at)], "s", "When it started, since the epoch."
    )
    meter.create_observable_counter(
        s.M_LOG_LOST, [observing(lost_lines)], "{line}", "Log lines lost: nobody read them in time."
    )
    meter.create_observable_counter(
        s.M_GC_COLLECTIONS, [collections], "{collection}", "Runs of Python's garbage collector."
    )


def _resident_bytes() -> float:
    pages = int(Path("/proc/self/statm").read_bytes().split()[_RESIDENT_PAGES])
    return float(pages * os.sysconf("SC_PAGESIZE"))


def _started_at() -> float:
    # The name of the program stands in parentheses and may hold anything: count from behind it. The
    # 22nd field (proc(5)) is in ticks since the machine booted.
    after_name = Path("/proc/self/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    ticks = int(after_name[_START_TICKS - 3])
    for line in Path("/proc/stat").read_text("ascii").splitlines():
        if line.startswith("btime "):
            return float(line.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")
    raise ValueError("no btime in /proc/stat")


def _open_fds() -> float:
    # One of them is that of the folder itself.
    return float(len(os.listdir("/proc/self/fd")) - 1)  # noqa: PTH208 - names, not 10,000 paths


def _max_fds() -> float:
    import resource  # noqa: PLC0415 - not on every platform

    return float(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
