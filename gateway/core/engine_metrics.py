"""What an engine's metrics page says of its load and its prefix cache.

Rule 1: of several names for one thing the newest that is told counts, never two of them together.
Rule 2: what isn't told is None, not 0: an idle engine and a silent one must not look the same.
Rule 3: whatever can't be read is skipped, line by line; a page is never refused.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple

from gateway.providers.engine_metrics import BLOCK_TOKENS, PROCESS_START

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.providers.engine_metrics import CacheCounters, EngineMetrics, Named

MOST_SERIES = 10_000
"""Of metrics that we know; what a page holds beyond is not looked at."""

_LABEL = re.compile(r'([A-Za-z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*+)"\s*,?\s*')
_BLOCKS = re.compile(r"\bblocks?\b")
_LONGEST_LINE = 8192
# Some libraries work the moment out anew each time that they are asked.
_SAME_START_S = 1.0


class EngineState(NamedTuple):
    """What one page says; None where it doesn't."""

    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None
    """From 0 to 1; of several engines behind one page, the mean."""
    queried_tokens: float | None = None
    """Prompt tokens that were looked up in the prefix cache since the engine started."""
    hit_tokens: float | None = None
    """Of these, the ones that were there."""
    hit_share: float | None = None
    """What the engine itself says of its last requests."""
    prompt_tokens: float | None = None
    """Since the engine started, in the engine's own counting: it only ever grows."""
    capacity_tokens: int | None = None
    """Prompt tokens that its KV cache has room for; of several engines behind one page, together."""
    slots: int | None = None
    """llama.cpp: prompts that it can keep, one in each slot."""
    slot_tokens: int | None = None
    """Of one slot, at most."""
    awake: bool | None = None
    """False while it sleeps: it has given its KV cache away."""
    started_s: float | None = None
    """Unix time at which the process says it began."""

    @property
    def silent(self) -> bool:
        """Nothing was told: this is another engine's page, or none."""
        # When a process began, any program's page may tell.
        return not any(value is not None for value in self[:-1])


class _Series(NamedTuple):
    labels: Mapping[str, str]
    value: float


class _Page(NamedTuple):
    """The series of the metrics that were asked for, by the name as spelled."""

    series: dict[str, list[_Series]]
    counters: set[str]
    """Names that are declared as counters, with or without a series."""
    helps: dict[str, str]

    def of(self, name: str) -> list[_Series]:
        """Its series; that of a counter nothing has counted yet are none, and that is 0."""
        for spelled in (f"{name}_total", name):
            if found := self.series.get(spelled):
                return found
        declared = not self.counters.isdisjoint((name, f"{name}_total"))
        return [_Series({}, 0.0)] if declared else []


def engine_state(text: str, names: EngineMetrics) -> EngineState:
    """Read a page in Prometheus' text format (or OpenMetrics')."""
    page = _read(text, names)

    def requests(of: tuple[Named, ...]) -> int | None:
        values = _gauges(page, of, names)
        return None if values is None else round(sum(values))

    def share(of: tuple[Named, ...]) -> float | None:
        values = _gauges(page, of, names)
        return min(1.0, sum(values) / len(values)) if values else None

    queried, hit = _cache(page, names)
    return EngineState(
        running=requests(names.running),
        waiting=requests(names.waiting),
        kv_usage=share(names.kv_usage),
        queried_tokens=queried,
        hit_tokens=hit,
        hit_share=share(names.hit_share),
        prompt_tokens=_sum(page, names.prompt_tokens),
        capacity_tokens=_capacity(page, names),
        awake=_awake(page, names),
        started_s=max((each.value for each in page.series.get(PROCESS_START, ())), default=None),
    )


def restarted(earlier: EngineState, later: EngineState) -> bool:
    """Did a counter go down, or is its process younger? Then the engine began anew in between, and its
    cache is empty.
    """
    if earlier.started_s is not None and later.started_s is not None:
        younger = later.started_s - earlier.started_s > _SAME_START_S
    else:
        younger = False
    return younger or any(
        before is not None and after is not None and after < before
        for before, after in (
            (earlier.queried_tokens, later.queried_tokens),
            (earlier.hit_tokens, later.hit_tokens),
            (earlier.prompt_tokens, later.prompt_tokens),
        )
    )


def fell_asleep(earlier: EngineState, later: EngineState) -> bool:
    """Did it give its KV cache away in between?"""
    return later.awake is False and earlier.awake is not False


def hit_share(later: EngineState, earlier: EngineState | None = None) -> float | None:
    """Which part of the prompt tokens was read from the cache between two pages, or since the engine
    started; None where nothing was looked up, or nothing is told.
    """
    queried, hit = later.queried_tokens, later.hit_tokens
    if queried is None or hit is None:
        return None
    if earlier is not None:
        if earlier.queried_tokens is None or earlier.hit_tokens is None:
            return None
        queried, hit = queried - earlier.queried_tokens, hit - earlier.hit_tokens
    # Lookups and hits are not written at one moment.
    return min(1.0, max(0.0, hit / queried)) if queried > 0 else None


# --- what the series come to ----------------------------------------------------------------------


def _gauges(page: _Page, of: tuple[Named, ...], names: EngineMetrics) -> list[float] | None:
    """One value for each engine of the page."""
    for named in of:
        best: dict[tuple[tuple[str, str], ...], float] = {}
        for labels, value in page.of(named.name):
            if value < 0 or any(labels.get(part) for part in names.parts):
                continue
            whose = tuple(sorted(i for i in labels.items() if i[0] not in names.same_work))
            best[whose] = max(value, best.get(whose, 0.0))
        if best:
            return list(best.values())
    return None


def _capacity(page: _Page, names: EngineMetrics) -> int | None:
    """In tokens, of all engines of the page; None where it isn't told."""
    if values := _gauges(page, names.capacity, names):
        return round(sum(values)) or None
    metric, blocks = names.block_count or ("", "")
    _, size = names.block_size or ("", "")
    total = sum(
        (_whole(labels.get(blocks)) or 0) * (_whole(labels.get(size)) or 0)
        for labels, _ in page.series.get(metric, ())
    )
    return total or None


def _awake(page: _Page, names: EngineMetrics) -> bool | None:
    """Is any engine of the page awake? None where it isn't told."""
    if names.awake is None:
        return None
    named, label = names.awake
    told = [value for labels, value in page.of(named.name) if labels.get(label) == "awake"]
    return any(told) if told else None


def _sum(page: _Page, of: Iterable[Named]) -> float | None:
    """Of the first of these that is told."""
    for named in of:
        if series := page.of(named.name):
            return sum(value for _, value in series)
    return None


def _cache(page: _Page, names: EngineMetrics) -> tuple[float | None, float | None]:
    """Tokens looked up, and found. Both from one generation of names, if any tells both."""
    half: tuple[float | None, float | None] = (None, None)
    for counters in names.cache:
        queried = _all(page, counters.queried)
        if queried is None:
            continue
        hit = _all(page, counters.hit)
        if hit is None:
            half = (queried, None) if half[0] is None else half
            continue
        hit += sum(_sum(page, (named,)) or 0.0 for named in counters.hit_elsewhere)
        tokens = _tokens(page, counters, names)
        return queried * tokens, hit * tokens
    return half


def _all(page: _Page, of: tuple[Named, ...]) -> float | None:
    """The sum of all these; None where one is not told."""
    sums = [_sum(page, (named,)) for named in of]
    told = [each for each in sums if each is not None]
    return sum(told) if len(told) == len(sums) else None


def _tokens(page: _Page, counters: CacheCounters, names: EngineMetrics) -> float:
    """How many tokens one count is."""
    spelled = [f"{named.name}{end}" for named in counters.queried for end in ("_total", "")]
    if not counters.maybe_blocks or not any(
        _BLOCKS.search(page.helps.get(name, "")) for name in spelled
    ):
        return 1
    metric, label = names.block_size or ("", "")
    for labels, _ in page.series.get(metric, ()):
        if size := _whole(labels.get(label)):
            return size
    return BLOCK_TOKENS


def _whole(text: str | None) -> int | None:
    """A label that is a number of things; None for whatever else it is."""
    return int(text[:9]) if text is not None and text.isascii() and text.isdigit() else None


# --- the text -------------------------------------------------------------------------------------


def _read(text: str, names: EngineMetrics) -> _Page:
    wanted = _wanted(names)
    page = _Page({}, set(), {})
    left = MOST_SERIES
    for raw in text.split("\n"):
        line = raw.strip()
        if line.startswith("# "):
            _comment(line, names.prefix, wanted, page)
            continue
        if not line.startswith((names.prefix, PROCESS_START)) or len(line) > _LONGEST_LINE:
            continue
        name = line.partition("{")[0].partition(" ")[0].partition("\t")[0]
        if name not in wanted:
            continue
        series = _sample(line[len(name) :])
        if series is None:
            continue
        if not left:
            break
        left -= 1
        page.series.setdefault(name, []).append(series)
    return page


def _wanted(names: EngineMetrics) -> set[str]:
    known = {*names.running, *names.waiting, *names.kv_usage, *names.prompt_tokens}
    known |= {*names.hit_share, *names.capacity}
    known |= {names.awake[0]} if names.awake else set()
    for counters in names.cache:
        known |= {*counters.queried, *counters.hit, *counters.hit_elsewhere}
    spelled = {f"{named.name}{end}" for named in known for end in ("", "_total")}
    return spelled | {PROCESS_START} | ({names.block_size[0]} if names.block_size else set())


def _comment(line: str, prefix: str, wanted: set[str], page: _Page) -> None:
    """`# HELP name words` or `# TYPE name kind`."""
    _, _, rest = line.partition(" ")
    keyword, _, rest = rest.partition(" ")
    name, _, said = rest.partition(" ")
    if not name.startswith(prefix) or name not in wanted:
        return
    if keyword == "TYPE" and said.strip() == "counter":
        page.counters.add(name)
    elif keyword == "HELP":
        page.helps[name] = said[:_LONGEST_LINE]


def _sample(rest: str) -> _Series | None:
    """What stands behind a name: labels, a value, and perhaps a time or an exemplar."""
    labels: dict[str, str] = {}
    rest = rest.lstrip()
    if rest.startswith("{"):
        rest = rest[1:].lstrip()
        at = 0
        while (found := _LABEL.match(rest, at)) is not None:
            labels[found[1]] = found[2]
            at = found.end()
        if rest[at : at + 1] != "}":
            return None
        rest = rest[at + 1 :]
    words = rest.split(None, 1)
    try:
        value = float(words[0]) if words else math.nan
    except ValueError:
        return None
    return _Series(labels, value) if math.isfinite(value) else None
