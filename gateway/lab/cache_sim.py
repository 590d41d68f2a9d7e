"""A provider's prompt cache, simulated: what is read, written and refused, and nothing else.

Rule 1. Something is stored only where a marker stands (or where the provider places its own), and
only from `minimum_tokens` on.
Rule 2. A marker finds the longest entry within its look-back; the highest hit of all counts.
Rule 3. An entry can be read once the answer to the request that wrote it has begun.
Rule 4. Its lifetime counts from the start of the request that wrote it or last hit it; only the
entry that was hit is renewed, by its own lifetime, whatever the marker asks for.
Rule 5. A request that fails stores nothing, renews nothing and costs nothing.
Rule 6. Where losses are asked for (`sim_losses`), an entry may be gone before its time.

Pure: the clock is an argument, in seconds of any origin, and must not run backwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from gateway.core.blocks import Section
from gateway.core.model import Usage
from gateway.core.prefix import CachePrompt, Kind, PrefixBlock, chain
from gateway.lab import sim_causes
from gateway.providers.prompt_cache import MarkerForm

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from gateway.lab.sim_causes import Case, Causes
    from gateway.lab.sim_losses import Losses
    from gateway.providers.prompt_cache import CacheRules

_HOUR_S = 3600
_RUNS = (Kind.TOOL_USE, Kind.TOOL_RESULT)
_UNSPLIT = 0x9E3779B97F4A7C15
"""Makes the end of a piece that was not split off differ from the end of a block."""

# OpenAI's guide, 2026-09: "first 2 + latest 50 explicit" breakpoints are looked up.
_FIRST_LOOKED_UP = 2
_LATEST_LOOKED_UP = 50
# Models before breakpoints: "rounded down to 128".
GRAIN = 128
"""Tokens: what is read of an automatic cache is so many times these."""
_SWEEP_FROM = 4096


class MarksRefused(ValueError):
    """The provider answers 400: what is marked breaks its rules. The message says how."""


@dataclass(slots=True)
class _Entry:
    ttl_s: float
    used: float
    readable: float


class _Asked(NamedTuple):
    now: float
    scope: Hashable
    chain: Sequence[int]
    tokens: Sequence[int]
    first_byte_at: float
    case: Case | None
    looked: set[int]
    """Blocks at whose ends an entry was looked for."""
    hits: list[int]
    """Those where one was found, in the order of the search."""

    @property
    def total(self) -> int:
        return self.tokens[-1] if self.tokens else 0


def rendered_chain(prompt: CachePrompt) -> list[int]:
    """Fingerprints as a provider takes them: a text counts as split only where it really is."""
    if not any(block.until for block in prompt.blocks):
        return chain(prompt)
    blocks = tuple(
        block._replace(digest=block.digest ^ _UNSPLIT) if block.until else block
        for block in prompt.blocks
    )
    return chain(prompt._replace(blocks=blocks))


class CacheSim:
    """One provider's cache, for all scopes. Models are kept apart by the prompts' fingerprints."""

    def __init__(
        self, rules: CacheRules, causes: Causes | None = None, losses: Losses | None = None
    ) -> None:
        """`causes` judges the requests that bring a case; it may be shared by the caches of one
        provider. `losses` says which entries are gone before their time.
        """
        self.rules = rules
        self._causes = causes
        self._losses = losses
        self._entries: dict[tuple[Hashable, int], _Entry] = {}
        self._sweep_at = _SWEEP_FROM
        self._longest_s = max((life.ttl_s for life in rules.lifetimes), default=0)

    def __len__(self) -> int:
        return len(self._entries)

    def request(
        self,
        now: float,
        scope: Hashable,
        chain: Sequence[int],
        tokens: Sequence[int],
        *,
        blocks: Sequence[PrefixBlock],
        marks: Sequence[tuple[int, int]],
        automatic_ttl: int = 0,
        mode: str = "",
        first_byte_at: float | None,
        case: Case | None = None,
    ) -> Usage:
        """What one request reads and writes, in tokens; `output` stays 0.

        `chain` and `tokens` give the fingerprint and the cumulative tokens at each block's end;
        `marks` (block, lifetime in seconds) all that stand in the body, `automatic_ttl` the
        top-level one, `mode` OpenAI's, "" for its default. `first_byte_at` None: it failed.
        `case` is judged, if it is answered. Raises MarksRefused.
        """
        marks = sorted(marks)
        self._check(blocks, marks, automatic_ttl)
        if first_byte_at is None:
            return Usage()
        if len(self._entries) >= self._sweep_at:
            self._sweep(now)
        asked = _Asked(now, scope, chain, tokens, first_byte_at, case, set(), [])
        causes = self._causes
        if case is None or causes is None or not blocks:
            return self._answered(asked, blocks, marks, automatic_ttl, mode)
        grain = GRAIN if self.rules.form is MarkerForm.NONE else 1
        judged = sim_causes.Asked(
            now, first_byte_at, chain, tokens, blocks, self.rules.minimum_tokens, grain
        )
        kept = causes.kept(case, judged)
        usage = self._answered(asked, blocks, marks, automatic_ttl, mode)
        causes.judge(case, judged, kept, asked.looked, max(asked.hits, default=-1))
        return usage

    def _answered(
        self,
        asked: _Asked,
        blocks: Sequence[PrefixBlock],
        marks: Sequence[tuple[int, int]],
        automatic_ttl: int,
        mode: str,
    ) -> Usage:
        form = self.rules.form
        if form is MarkerForm.NONE:
            return self._by_itself(asked)
        if form is MarkerForm.BREAKPOINT:
            return self._with_breakpoints(asked, blocks, [index for index, _ in marks], mode)
        if automatic_ttl:
            last = _last_markable(blocks)
            if last is not None and all(index != last for index, _ in marks):
                marks = sorted([*marks, (last, automatic_ttl)])
        hit = -1
        for index, _ in reversed(marks):
            hit = self._find(asked, self._window(blocks, index))
            if hit >= 0:
                break
        return self._bill(asked, hit, marks)

    # --- what is refused

    def _check(
        self, blocks: Sequence[PrefixBlock], marks: Sequence[tuple[int, int]], automatic_ttl: int
    ) -> None:
        rules = self.rules
        if not rules.takes_markers:
            if marks or automatic_ttl:
                raise MarksRefused("this model takes no markers")
            return
        allowed = {life.ttl_s for life in rules.lifetimes}
        for index, ttl_s in marks:
            block = blocks[index]
            if not block.can_mark or block.until:
                raise MarksRefused(f"block {index} ({block.kind}) can't carry a marker")
            if ttl_s not in allowed:
                raise MarksRefused(f"no lifetime of {ttl_s} s")
        if automatic_ttl and (not rules.automatic or automatic_ttl not in allowed):
            raise MarksRefused(f"no top-level marker of {automatic_ttl} s")
        # OpenAI drops those beyond the limit silently, and has one lifetime.
        if rules.form is not MarkerForm.BREAKPOINT:
            self._check_together(marks, automatic_ttl, _last_markable(blocks))

    def _check_together(
        self, marks: Sequence[tuple[int, int]], automatic_ttl: int, last: int | None
    ) -> None:
        most, found = self.rules.max_marks, len(marks) + bool(automatic_ttl)
        if found > most:
            raise MarksRefused(
                f"A maximum of {most} blocks with cache_control may be provided. Found {found}."
            )
        lifetimes = [ttl_s for _, ttl_s in marks]
        if automatic_ttl and last is not None:
            if any(index == last and ttl_s != automatic_ttl for index, ttl_s in marks):
                raise MarksRefused("the top-level marker and the last block's differ in lifetime")
            lifetimes.append(automatic_ttl)
        if lifetimes != sorted(lifetimes, reverse=True):
            raise MarksRefused("a longer lifetime must not come after a shorter one")

    # --- lookup

    def _window(self, blocks: Sequence[PrefixBlock], index: int) -> Iterator[int]:
        """The marked block and what comes before it, `look_back` positions in all."""
        left = self.rules.look_back
        runs = self.rules.runs_count_once
        yield index
        while index > 0:
            before, block = blocks[index - 1], blocks[index]
            same = before.until > 0 or (runs and before.kind is block.kind and block.kind in _RUNS)
            if not same:
                left -= 1
                # No limit starts at 0 and is below it by now.
                if left == 0:
                    return
            index -= 1
            yield index

    def _find(self, asked: _Asked, places: Iterable[int]) -> int:
        """The first of the places where a readable entry lies, renewed; -1 for none."""
        losses = self._losses
        for index in places:
            if asked.case is not None:
                asked.looked.add(index)
            key = asked.scope, asked.chain[index]
            entry = self._entries.get(key)
            if entry and entry.readable <= asked.now <= entry.used + entry.ttl_s:
                if losses is not None and losses.lost(key):
                    del self._entries[key]
                    continue
                entry.used = asked.now
                asked.hits.append(index)
                return index
        return -1

    # --- bill

    def _bill(self, asked: _Asked, hit: int, writes: Sequence[tuple[int, int]]) -> Usage:
        """Store at each write beyond the hit; each pays for what lies between it and the last."""
        tokens = asked.tokens
        read = at = tokens[hit] if hit >= 0 else 0
        short = hour = 0
        for index, ttl_s in writes:
            end = tokens[index]
            if index <= hit or end < self.rules.minimum_tokens:
                continue
            if ttl_s >= _HOUR_S:
                hour += end - at
            else:
                short += end - at
            at = end
            self._store(asked, index, ttl_s)
        return Usage(
            uncached_input=asked.total - at,
            cache_read=read,
            cache_write_5m=short,
            cache_write_1h=hour,
        )

    def _store(self, asked: _Asked, index: int, ttl_s: float) -> None:
        key = (asked.scope, asked.chain[index])
        readable = asked.first_byte_at
        old = self._entries.get(key)
        if old and asked.now <= old.used + old.ttl_s:
            # Written again before the first answer began: who of both begins first makes it
            # readable, and the longer lifetime holds.
            ttl_s, readable = max(ttl_s, old.ttl_s), min(readable, old.readable)
        entry = self._entries[key] = _Entry(ttl_s, asked.now, readable)
        if asked.case is not None and self._causes is not None:
            self._causes.wrote(asked.case, asked.chain[index], entry, asked.now)
        if self._losses is not None:
            for gone in self._losses.displaced(key):
                self._entries.pop(gone, None)

    # --- OpenAI

    def _with_breakpoints(
        self, asked: _Asked, blocks: Sequence[PrefixBlock], explicit: list[int], mode: str
    ) -> Usage:
        rules = self.rules
        looked_up = {*explicit[:_FIRST_LOOKED_UP], *explicit[-_LATEST_LOOKED_UP:]}
        writes = set(explicit[-rules.max_marks :])
        implicit = mode == "implicit" or (not mode and rules.implicit)
        if implicit and (endings := eligible_endings(blocks)):
            looked_up |= {endings[-1], *endings[:-1][-rules.implicit_look_back :]}
            if blocks[endings[0]].section is Section.SYSTEM:
                looked_up.add(endings[0])
            writes = {endings[-1], *explicit[-(rules.max_marks - 1) :]}
        ttl_s = rules.lifetimes[0].ttl_s
        hit = self._find(asked, sorted(looked_up, reverse=True))
        return self._bill(asked, hit, [(index, ttl_s) for index in sorted(writes)])

    def _by_itself(self, asked: _Asked) -> Usage:
        """A cache of whole blocks that asks nobody and bills no write: OpenAI before GPT-5.6."""
        total, minimum = asked.total, self.rules.minimum_tokens
        if not self._longest_s or total < minimum:
            return Usage(uncached_input=total)
        hit = -1
        for index in range(len(asked.chain)):
            if self._find(asked, (index,)) == index:
                hit = index
            else:
                self._store(asked, index, self._longest_s)
        read = asked.tokens[hit] // GRAIN * GRAIN if hit >= 0 else 0
        read = read if read >= minimum else 0
        return Usage(uncached_input=total - read, cache_read=read)

    # --- memory

    def _sweep(self, now: float) -> None:
        self._entries = {
            key: entry for key, entry in self._entries.items() if now <= entry.used + entry.ttl_s
        }
        self._sweep_at = max(_SWEEP_FROM, 2 * len(self._entries))


def eligible_endings(blocks: Sequence[PrefixBlock]) -> list[int]:
    """Blocks at which OpenAI's implicit mode may write and looks for entries: the end of the first
    system or developer messages, of each user message, of each group of tool results.
    """
    found: list[int] = []
    count = len(blocks)
    for index, block in enumerate(blocks):
        following = blocks[index + 1] if index + 1 < count else None
        if block.section is Section.SYSTEM:
            ends = following is None or following.section is not Section.SYSTEM
        elif block.section is Section.TOOLS or not block.ends_message:
            ends = False
        elif block.role == "user":
            ends = True
        else:
            ends = block.kind is Kind.TOOL_RESULT and (
                following is None or following.kind is not Kind.TOOL_RESULT
            )
        if ends:
            found.append(index)
    return found


def _last_markable(blocks: Sequence[PrefixBlock]) -> int | None:
    for index in range(len(blocks) - 1, -1, -1):
        if blocks[index].can_mark and not blocks[index].until:
            return index
    return None
