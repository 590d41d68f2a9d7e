"""What the last hours' requests came to, minute by minute: `Minutes`. Counts only, and bounded.

Rule 1: a request counts in the minute in which it ended, once.
Rule 2: what is paid hangs on calls, each counted once, whoever waited for it, as in the ledger.
Rule 3: tokens that a model was paid for and tokens of stored answers are never in one sum.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Any

from gateway.core.model import Result

if TYPE_CHECKING:
    from gateway.core.ledger import Amounts
    from gateway.core.records import CallRecord, RequestRecord

KEPT = 24 * 60
"""Minutes that are remembered."""

MOST_POINTS = 120
"""Of one series: a chart has room for no more."""

_MINUTE_S = 60
_MOST_KEPT_POINTS = 8 * MOST_POINTS
_STORED = frozenset((Result.HIT, Result.STALE))
_UNPAID = frozenset((Result.HIT, Result.STALE, Result.COLLAPSED))
# Four steps to each doubling: a duration is told to within an eighth of itself.
_STEPS_BITS = 2
_QUANTILES = (0.5, 0.95)


class Minute:
    """What ended in it."""

    __slots__ = (
        *("calls", "causes", "errors", "firsts", "hits", "input", "lost", "output", "paid_pd"),
        *("read", "requests", "results", "saved_pd", "spared", "unbilled", "unknown", "unpriced"),
        "written",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.results: Counter[str] = Counter()
        self.causes: Counter[str] = Counter()
        """Requests of which the provider's prompt cache missed something, by cause."""
        self.lost = 0
        """Prompt tokens that it could have read then."""
        self.input = self.read = self.written = self.output = 0
        """Tokens of calls of a model; `input` holds `read` and `written`."""
        self.spared = 0
        """Tokens, input and output, of answers for which no model was called."""
        self.paid_pd = self.saved_pd = 0
        self.unpriced = self.unknown = self.unbilled = 0
        """Calls of known usage without a known price; of unknown usage; of engines, that nobody
        bills.
        """
        self.hits: Counter[int] = Counter()
        """Durations of answers from the cache, of the others, and until a first byte came."""
        self.calls: Counter[int] = Counter()
        self.firsts: Counter[int] = Counter()

    def add(self, record: RequestRecord) -> None:
        """One more."""
        self.requests += 1
        result, usage = record.result, record.usage
        self.results[result.value if result is not None else "none"] += 1
        if record.status >= 500 or record.aborted in {"upstream", "gateway"}:
            self.errors += 1
        else:
            times = self.hits if result in _STORED else self.calls
            times[_step_of(record.duration_s)] += 1
        if record.first_byte_s is not None:
            self.firsts[_step_of(record.first_byte_s)] += 1
        if usage is not None:
            if result in _UNPAID:
                self.spared += usage.input + usage.output
            else:
                self.input += usage.input
                self.read += usage.cache_read
                self.written += usage.cache_write_5m + usage.cache_write_1h
                self.output += usage.output
        self.saved_pd += record.saved_pd or 0
        if record.prompt_cache is not None and record.prompt_cache.miss is not None:
            miss = record.prompt_cache.miss
            self.causes[miss.cause.value] += 1
            self.lost += miss.lost_tokens

    def called(self, call: CallRecord, amounts: Amounts) -> None:
        """A model was called, for a request or not, and the line of it says what it cost."""
        if call.engine:
            self.unbilled += not call.failed
            return
        self.paid_pd += amounts.paid_pd
        self.unpriced += amounts.unpriced
        self.unknown += amounts.unknown

    def take(self, other: Minute) -> None:
        """All of another one as well."""
        for name in self.__slots__:
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, Counter):
                mine.update(theirs)
            else:
                setattr(self, name, mine + theirs)

    def told(self) -> dict[str, Any]:
        """As plain JSON values. Milliseconds, or null where nothing was timed; picodollars."""
        return {
            "requests": self.requests,
            "results": dict(self.results),
            "errors": self.errors,
            "hit_ms": _quantiles(self.hits),
            "call_ms": _quantiles(self.calls),
            "first_byte_ms": _quantiles(self.firsts),
            "tokens": {
                "input": self.input,
                "read": self.read,
                "written": self.written,
                "output": self.output,
                "spared": self.spared,
                "lost": self.lost,
            },
            "misses": dict(self.causes),
            "paid_pd": self.paid_pd,
            "saved_pd": self.saved_pd,
            "unpriced": self.unpriced,
            "unknown": self.unknown,
            "unbilled": self.unbilled,
        }


class Minutes:
    """The last hours."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._minutes: OrderedDict[int, Minute] = OrderedDict()
        self._latest = (-1, Minute())
        self._points: dict[tuple[int, int], tuple[Minute, dict[str, Any]]] = {}

    def __len__(self) -> int:
        """Minutes in which something ended."""
        return len(self._minutes)

    def add(self, record: RequestRecord) -> None:
        """A request is over."""
        self._minute(record.at + record.duration_s).add(record)

    def called(self, call: CallRecord, amounts: Amounts) -> None:
        """A call of a model is over, and this is the line of its own in the ledger."""
        self._minute(call.at).called(call, amounts)

    def _minute(self, ended: float) -> Minute:
        number = int(ended) // _MINUTE_S
        latest, minute = self._latest
        if number > latest:
            minute = self._minutes[number] = Minute()
            self._latest = number, minute
            while self._minutes and next(iter(self._minutes)) <= number - self._kept:
                self._minutes.popitem(last=False)
        # (A clock that was set back goes on in the latest minute: none is opened twice.)
        return minute

    def series(self, now: float, window_s: float) -> dict[str, Any]:
        """The last `window_s` seconds until `now` (since the epoch): a point for each `step_s`
        seconds, those without requests as well, and their sum.
        """
        count = min(max(1, int(window_s) // _MINUTE_S), self._kept)
        step = -(-count // MOST_POINTS)
        last = max(int(now) // _MINUTE_S, self._latest[0])
        # Steps begin where they always begin: points don't change as time goes on.
        end = last - last % step + step
        points = []
        total = Minute()
        for begin in range(end - -(-count // step) * step, end, step):
            point, told = self._point(begin, step)
            total.take(point)
            points.append(told)
        return {"step_s": step * _MINUTE_S, "points": points, "total": total.told()}

    def _point(self, begin: int, step: int) -> tuple[Minute, dict[str, Any]]:
        known = self._points.get((begin, step))
        if known is not None:
            return known
        point = Minute()
        for number in range(begin, begin + step):
            minute = self._minutes.get(number)
            if minute is not None:
                point.take(minute)
        made = point, {"at": begin * _MINUTE_S, **point.told()}
        # Only the latest minute is still added to.
        if begin + step <= self._latest[0]:
            if len(self._points) >= _MOST_KEPT_POINTS:
                self._points.clear()
            self._points[begin, step] = made
        return made


def _step_of(seconds: float) -> int:
    micros = int(seconds * 1e6)
    shift = micros.bit_length() - 1 - _STEPS_BITS
    return micros if shift <= 0 else (shift << _STEPS_BITS) + (micros >> shift)


def _seconds_of(step: int) -> float:
    """The middle of what the step stands for."""
    steps = 1 << _STEPS_BITS
    if step < 2 * steps:
        return step / 1e6
    shift = (step >> _STEPS_BITS) - 1
    low = (step - (shift << _STEPS_BITS)) << shift
    return (low + (1 << shift) / 2) / 1e6


def _quantiles(times: Counter[int]) -> dict[str, float] | None:
    count = times.total()
    if not count:
        return None
    steps = sorted(times.items())
    return {
        f"p{round(quantile * 100)}": round(1000 * _seconds_of(_reached(steps, quantile * count)), 3)
        for quantile in _QUANTILES
    }


def _reached(steps: list[tuple[int, int]], rank: float) -> int:
    """The step in which so many are reached."""
    for step, many in steps:
        rank -= many
        if rank <= 0:
            return step
    return steps[-1][0]
