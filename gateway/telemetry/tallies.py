"""Counters and histograms that a request can afford: a sum or a list of buckets for each series.

Rule 1: a series is found once for each set of labels and kept by who counts; counting builds no
labels and looks nothing up.
Rule 2: whoever writes or reads a series holds `Tallies.lock`, for microseconds: readers live in
other threads, and a sum must belong to its buckets.
Rule 3: all families together have a bound, in series as Prometheus counts them: each has room of its
own that nobody else can take, the rest is shared by who comes first, and what comes after that is
counted in one series of its family.

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

from gateway.telemetry.bounds import bounds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Labels: TypeAlias = "Mapping[str, str | int | bool]"

_COUNTER_ROOM = 12
_HISTOGRAM_ROOM = 3

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

    def record(self, value: float, times: int = 1) -> None:
        """One observation, or so many alike, under the lock. Below 0 (a clock that went back) it
        counts as 0.
        """
        # Comparisons, because a call of min or max costs as much as all the rest.
        if value < 0:  # noqa: PLR1730
            value = 0
        self.buckets[bisect_left(self.bounds, value)] += times
        self.total += value * times
        if value < self.low:  # noqa: PLR1730
            self.low = value
        if value > self.high:  # noqa: PLR1730
            self.high = value


class Spare:
    """The series that nobody has yet, of all that there may be."""

    __slots__ = ("_for_counters", "left", "lock")

    def __init__(self, series: int) -> None:
        self.left = series
        self._for_counters: int | None = None
        self.lock = threading.Lock()
        """Of all series."""

    def reserve(self, series: int) -> None:
        """These are somebody's, whoever else comes."""
        self.left = max(0, self.left - series)

    def take(self, series: int) -> bool:
        """Take so many; False, and none is taken, where there are too few. Under the lock.

        Half of what is to be shared is for counters alone: a few histograms would have it all.
        """
        if self._for_counters is None:
            self._for_counters = self.left // 2
        if self.left - series < (self._for_counters if series > 1 else 0):
            return False
        self.left -= series
        return True


class Family(ABC, Generic[_S]):
    """All series of one name."""

    def __init__(  # noqa: PLR0917 - made by `Tallies` alone
        self, name: str, unit: str, what: str, spare: Spare, room: int, cost: int
    ) -> None:
        self.name = name
        self.unit = unit
        self.what = what
        self._spare = spare
        self._lock = spare.lock
        self._room = room
        self._cost = cost
        # And one for what there is no room for.
        spare.reserve((room + 1) * cost)
        self._series: dict[tuple[tuple[str, str | int | bool], ...], _S] = {}
        self._overflow: _S | None = None

    def at(self, labels: Mapping[str, str | int]) -> _S:
        """The series of these labels, made when it is new. Labels come in one order always."""
        key = tuple(labels.items())
        with self._lock:
            series = self._series.get(key)
            if series is None:
                if len(self._series) >= self._room and not self._spare.take(self._cost):
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

    def __init__(  # noqa: PLR0917 - made by `Tallies` alone
        self, name: str, unit: str, what: str, spare: Spare, room: int, bounds: Sequence[float]
    ) -> None:
        # Beside the buckets: that of what is above all bounds, the sum and the count.
        super().__init__(name, unit, what, spare, room, len(bounds) + 3)
        self.bounds = bounds

    def _new(self, labels: Labels) -> Spread:
        return Spread(labels, self.bounds)


class Tallies:
    """The families of a process, and the lock of all their series."""

    def __init__(self, series: int = bounds().series) -> None:
        """With so many series of all families together: of a histogram the buckets, the sum and the
        count are one each.
        """
        self.spare = Spare(series)
        self.lock = self.spare.lock
        self.families: list[Counter | Histogram] = []

    def counter(self, name: str, unit: str, what: str, room: int = _COUNTER_ROOM) -> Counter:
        """A new family of sums, with room for so many sets of labels whatever the others do."""
        family = Counter(name, unit, what, self.spare, room, 1)
        self.families.append(family)
        return family

    def histogram(
        self,
        name: str,
        unit: str,
        what: str,
        bounds: Sequence[float],
        room: int = _HISTOGRAM_ROOM,
    ) -> Histogram:
        """A new family of histograms with these upper bounds, ascending; `room` as of a counter."""
        family = Histogram(name, unit, what, self.spare, room, bounds)
        self.families.append(family)
        return family

    def reserve(self, series: int) -> None:
        """Leave so many to who has them from somewhere else."""
        with self.lock:
            self.spare.reserve(series)
