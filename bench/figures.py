"""Pure arithmetic: what the tools print and the kernel tells, as numbers, medians and ratios."""

from __future__ import annotations

import re
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}
_REQUESTS = re.compile(r"(\d+) requests in ([\d.]+)(us|ms|s|m)")
_PERCENTILE = re.compile(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m)\s*$", re.MULTILINE)
_BAD_STATUS = re.compile(r"Non-2xx or 3xx responses: (\d+)")
_SOCKET_ERRORS = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of wrk did."""

    requests: int
    seconds: float
    p50_us: float
    p99_us: float
    failed: int
    """Answers that were no 2xx, and connections that broke or timed out."""

    @property
    def per_s(self) -> float:
        return self.requests / self.seconds


def read_wrk(text: str) -> Load:
    """The figures in wrk's output (with `--latency`). Raises ValueError for anything else."""
    done = _REQUESTS.search(text)
    if done is None:
        raise ValueError(f"this is not wrk's summary: {text[-400:]!r}")
    percentiles = {
        share: float(value) * _UNITS[unit] for share, value, unit in _PERCENTILE.findall(text)
    }
    bad = _BAD_STATUS.search(text)
    broken = _SOCKET_ERRORS.search(text)
    failed = int(bad[1]) if bad else 0
    failed += sum(map(int, broken.groups())) if broken else 0
    return Load(
        requests=int(done[1]),
        seconds=float(done[2]) * _UNITS[done[3]] / 1e6,
        p50_us=percentiles.get("50", 0.0),
        p99_us=percentiles.get("99", 0.0),
        failed=failed,
    )


@dataclass(frozen=True, slots=True)
class Stat:
    """The members of /proc/PID/stat that matter here."""

    session: int
    ticks: int
    """User and system time."""


def read_stat(line: str) -> Stat:
    """A line of /proc/PID/stat; the name in it may hold spaces and brackets."""
    fields = line.rpartition(")")[2].split()
    return Stat(session=int(fields[3]), ticks=int(fields[11]) + int(fields[12]))


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile; `share` in (0, 1]. Raises ValueError without values."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * share // 1))
    return ordered[int(rank) - 1]


def middle(values: Iterable[float]) -> float | None:
    """The median; None where there is nothing."""
    known = list(values)
    return median(known) if known else None


def ratio(value: float | None, to: float | None) -> float | None:
    """How many times `to` is in `value`; None where either is unknown or `to` is nothing."""
    if value is None or not to:
        return None
    return value / to


def paired(values: Sequence[float], others: Sequence[float]) -> float | None:
    """The median of round-by-round ratios: a noisy round falls on both sides of its ratio."""
    return middle(a / b for a, b in zip(values, others, strict=False) if b)
