"""Counters and histograms that a request can afford: a sum or a list of buckets for each series.

Rule 1: a series is found once for each set of labels and kept by who counts; counting builds no
labels and looks nothing up.
Rule 2: whoever writes or reads a series holds `Tallies.lock`, for microseconds: readers live in
other threads, and a sum must belong to its buckets.

`tally_export.py` hands them to OpenTelemetry's readers.
"""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from bisect import bisect_left
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Labels: TypeAlias = "Mapping[str, str | int | bool]"

SERIES = 2000
"""How many series a family has, as in the SDK; what comes later is counted in one more."""

OVERFLOW: Labels = MappingProxyType({"otel.metric.overflow": True})
"""The labels of that one more, as the metrics SDK specification names it."""

_S = TypeVar("_S", "Count", "Spread")


class Count:
    """One series of a counter. Add to `value` under the lock."""

    __slots__ = ("born_ns", "labels", "value")

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.born_ns = time.time_ns()
        self.value: float = 0


class Spread:
    """One series of a histogram."""

    __slots__ = ("born_ns", "bounds", "buckets", "high", "labels", "low", "total")

    def __init__(self, labels: Labels, bounds: Sequence[float]) -> None:
        self.labels = labels
        self.born_ns = time.time_ns()
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.total: float = 0
        self.low = math.inf
        self.high = -math.inf

    def record(self, value: float) -> None:
        """One observation, under the lock. Below 0 (a clock that went back) it counts as 0."""
        # Comparisons, because a call of min or max costs as much as all the rest.
        if value < 0:  # noqa: PLR1730
            value = 0
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.total += value
        if value < self.low:  # noqa: PLR1730
            self.low = value
        if value > self.high:  # noqa: PLR1730
            self.high = value


class Family(ABC, Generic[_S]):
    """All series of one name."""

    def __init__(self, name: str, unit: str, what: str, lock: threading.Lock) -> None:
        self.name = name
        self.unit = unit
        self.what = what
        self._lock = lock
        self._series: dict[tuple[tuple[str, str | int | bool], ...], _S] = {}
        self._overflow: _S | None = None

    def at(self, labels: Mapping[str, str | int]) -> _S:
        """The series of these labels, made when it is new. Labels come in one order always."""
        key = tuple(labels.items())
        with self._lock:
            series = self._series.get(key)
            if series is None:
                if len(self._series) >= SERIES:
                    series = self._overflow = self._overflow or self._new(OVERFLOW)
                else:
                    series = self._series[key] = self._new(dict(labels))
        return series

    def all(self) -> list[_S]:
        """Every series, in the order in which they came."""
        with self._lock:
            series = list(self._series.values())
            if self._overflow is not None:
                series.append(self._overflow)
            return series

    @abstractmethod
    def _new(self, labels: Labels) -> _S:
        """A series with nothing in it yet."""


class Counter(Family[Count]):
    """A sum that only grows."""

    def _new(self, labels: Labels) -> Count:
        return Count(labels)


class Histogram(Family[Spread]):
    """How values spread over buckets; a bucket holds what is not above its bound."""

    def __init__(
        self, name: str, unit: str, what: str, lock: threading.Lock, bounds: Sequence[float]
    ) -> None:
        super().__init__(name, unit, what, lock)
        self.bounds = bounds

    def _new(self, labels: Labels) -> Spread:
        return Spread(labels, self.bounds)


class Tallies:
    """The families of a process, and the lock of all their series."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.families: list[Counter | Histogram] = []

    def counter(self, name: str, unit: str, what: str) -> Counter:
        """A new family of sums."""
        family = Counter(name, unit, what, self.lock)
        self.families.append(family)
        return family

    def histogram(self, name: str, unit: str, what: str, bounds: Sequence[float]) -> Histogram:
        """A new family of histograms with these upper bounds, ascending."""
        family = Histogram(name, unit, what, self.lock, bounds)
        self.families.append(family)
        return family
