"""What a provider's prompt cache should give for a request, and why it gave less: `Foresight`.

Rule 1: what each cause means stands in `core.miss`; one request has one cause.
Rule 2: before the answer it is said what is to be expected, afterwards what came. What can't be told
from fingerprints, times and what answers say is not told.
Rule 3: what is kept are fingerprints, counts and times, bounded in bytes.

The time is an argument, seconds from any origin, and never goes back.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from xxhash import xxh3_64_intdigest

from gateway.core.blocks import BYTES_PER_TOKEN
from gateway.core.foreseen import Foreseen
from gateway.core.kept import Entry, Kept
from gateway.core.lineup import lineup
from gateway.core.lookups import Lookups
from gateway.core.machines import Machines
from gateway.core.miss import CacheOutcome, Miss, MissCause
from gateway.core.neighbours import Neighbours
from gateway.core.prefix import SIZE, joined
from gateway.core.read_ends import GRAIN, ReadEnds, near
from gateway.core.standing import prefixes, standing
from gateway.providers.prompt_cache import MarkerForm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.model import Usage
    from gateway.core.plan import Plan
    from gateway.core.prefix import CachePrompt
    from gateway.providers.prompt_cache import CacheRules

BUDGET_BYTES = 16 * 1024 * 1024

_ROUTED_BYTES = 1024
"""Of a prompt, that choose the machine it goes to."""
_SHORTEST_PART = 0.8
"""Of the minimum: what is estimated shorter is not noted as kept."""
_MOST_MODELS = 1000
_MOST_OWNERS = 10_000


class Sent(NamedTuple):
    """A request as it goes out."""

    owner: bytes
    """Whose cache it is: provider and credential."""
    prompt: CachePrompt
    """Of the client's request, as rewritten."""
    rules: CacheRules
    plan: Plan | None
    """What was added to it; None: nothing."""
    key: str
    """The `prompt_cache_key` (or the like) that it goes out with; empty without one."""
    chain: Sequence[int]
    """`core.prefix.chain` of the prompt."""
    pool: bool = False
    """It goes to one of several replicas, and is told which one when it is answered."""
    asker: bytes = b""
    """Whose prompts it may be compared with: who shares a cache learns nothing of the others'."""


class Foresight:
    """Foresees and judges, for all caches of one gateway."""

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self.neighbours = Neighbours(budget_bytes // 2)
        self._kept = Kept(budget_bytes // 2)
        self._machines = Machines()
        self._ratios: dict[tuple[str, str], float] = {}
        """Tokens per byte, by API and model."""
        self._reports: set[int] = set()
        """Owners and models whose answers have told of tokens read from a cache, or written."""

    def __repr__(self) -> str:
        return f"<Foresight {self._kept}, {self.neighbours}>"

    @property
    def size_bytes(self) -> int:
        """About what is remembered takes."""
        return self.neighbours.size_bytes + self._kept.size_bytes

    # --- before ---------------------------------------------------------------------------------

    def foresee(self, sent: Sent, request_id: str, now: float) -> Foreseen | None:
        """What is to be expected; None for a prompt without blocks. To be asked for once, before
        the request is sent, and told of what comes of it (`begun`, `judge`).
        """
        prompt, rules = sent.prompt, sent.rules
        if not prompt.blocks:
            return None
        apart = sent.key if rules.form is MarkerForm.BREAKPOINT else ""
        owner = joined(xxh3_64_intdigest(sent.owner), xxh3_64_intdigest(prompt.api.encode()))
        line = lineup(prompt, sent.chain, apart)
        found = Foreseen(sent, request_id, (owner, prompt.api, sent.asker), line, now)
        salt = joined(joined(owner, line.key), line.model)
        found.prefixes = prefixes(prompt, sent.plan, sent.chain, salt)
        explicit, found.marks, implicit = standing(prompt, sent.plan, rules)
        ratio = self._ratios.get((prompt.api, prompt.model), 1.0 / BYTES_PER_TOKEN)
        found.tokens = [int(size * ratio + 0.5) for size in accumulate(map(SIZE, prompt.blocks))]
        found.machine = self._machine(sent, found.prefixes, now)
        found.lookups = Lookups(prompt.blocks, explicit, rules, implicit=implicit)
        self._look(found, now)
        found.is_short = self._shares_little(found)
        self._compare(found)
        found.outcome = CacheOutcome(found.expected_tokens, None, None, found.foreseen())
        return found

    def _machine(self, sent: Sent, prefixes: Sequence[int], now: float) -> str:
        if sent.pool:
            return ""
        size = head = 0
        for block, prefix in zip(sent.prompt.blocks, prefixes, strict=True):
            size, head = size + block.size, prefix
            if size >= _ROUTED_BYTES:
                break
        if sent.key:
            head = xxh3_64_intdigest(sent.key.encode("utf-8", "surrogatepass"))
        whose = joined(xxh3_64_intdigest(sent.owner), head)
        number = self._machines.asked(whose, sent.rules.hint_rpm, now)
        keyed = sent.rules.form is MarkerForm.NONE and sent.key
        return f"{sent.key}#{number}" if keyed else f"#{number}"

    def _look(self, found: Foreseen, now: float) -> None:
        """What was kept of it, and what of that is to be read."""
        automatic = found.sent.rules.form is MarkerForm.NONE
        minimum = found.sent.rules.minimum_tokens
        for block in self._kept.known(found.prefixes):
            entries = self._kept.find(found.prefixes[block])
            ready = [each for each in entries if each.ready_at <= now]
            if not ready:
                continue
            tokens = _told(ready, found.tokens[block])
            if automatic and tokens < minimum * _SHORTEST_PART:
                break
            alive = [each for each in ready if each.is_alive(now)]
            if found.available < 0:
                found.available, found.at_available = block, tuple(entries)
                found.alive_on = frozenset(each.machine for each in alive)
            alive = [each for each in alive if not each.lost]
            if not found.sent.pool:
                alive = [each for each in alive if each.machine == found.machine]
            if alive and found.lookups is not None and found.lookups.reach(block):
                found.expected = block
                found.expected_tokens = tokens if tokens >= minimum or not automatic else 0
                self._renew(found, alive)
                break

    def _renew(self, found: Foreseen, read: Sequence[Entry]) -> None:
        """They live on from now; with an automatic cache all before them do."""
        rules = found.sent.rules
        if not rules.refreshes or found.sent.pool:
            return
        renewed = list(read)
        if rules.form is MarkerForm.NONE:
            for prefix in found.prefixes[: found.expected]:
                entry = self._kept.on(prefix, found.machine)
                if entry is not None and entry.is_alive(found.at) and not entry.lost:
                    renewed.append(entry)
        for each in renewed:
            found.renewed.append((each, each.used_at))
            each.used_at = max(each.used_at, found.at)

    def _compare(self, found: Foreseen) -> None:
        """With the prompts before it, if nothing that was kept is missed."""
        if found.expected < found.available:
            return
        sent, minimum = found.sent, found.sent.rules.minimum_tokens
        found.difference = self.neighbours.find(
            found.owner, sent.prompt, found.line, minimum, found.available
        )
        found.compared = True

    def _shares_little(self, found: Foreseen) -> bool:
        """It begins as an earlier one did, and not far enough."""
        least, size = found.sent.rules.minimum_tokens * BYTES_PER_TOKEN, 0
        for block, prefix in zip(found.sent.prompt.blocks, found.prefixes, strict=True):
            if not size and not self._kept.knows(prefix):
                return False
            size += block.size
            if size >= least:
                return not self._kept.knows(prefix)
        return True

    # --- when the answer begins -----------------------------------------------------------------

    def begun(self, found: Foreseen, now: float) -> None:
        """The first byte of a successful answer came: what it wrote can be read from now on."""
        if found.begun_at is not None:
            return
        found.begun_at = now
        if not found.sent.pool:
            self._write(found, found.expected)
        self._note(found)
        self.neighbours.add(found.owner, found.line, found.request_id)

    def _note(self, found: Foreseen) -> None:
        """What stands at the beginning, for who shares less than the minimum."""
        least, size = found.sent.rules.minimum_tokens * BYTES_PER_TOKEN, 0
        for block, prefix in zip(found.sent.prompt.blocks, found.prefixes, strict=True):
            if not size:
                self._kept.note(prefix)
            size += block.size
            if size >= least:
                self._kept.note(prefix)
                return

    def _write(self, found: Foreseen, read: int) -> None:
        """Entries behind what was read."""
        assert found.begun_at is not None
        rules, at = found.sent.rules, found.at
        if rules.form is not MarkerForm.NONE:
            for block, ttl_s in found.marks:
                if block > read and found.tokens[block] >= rules.minimum_tokens:
                    entry = Entry(found.machine, ttl_s, at, found.begun_at)
                    found.written[block] = self._kept.write(found.prefixes[block], entry)
            return
        if found.tokens[-1] < rules.minimum_tokens * _SHORTEST_PART:
            return
        longest_s = max((float(life.ttl_s) for life in rules.lifetimes), default=math.inf)
        least = rules.minimum_tokens * _SHORTEST_PART
        for block in range(read + 1, len(found.prefixes)):
            if found.tokens[block] >= least:
                entry = Entry(found.machine, longest_s, at, found.begun_at)
                found.written[block] = self._kept.write(found.prefixes[block], entry)

    # --- after ----------------------------------------------------------------------------------

    def judge(
        self,
        found: Foreseen,
        usage: Usage | None,
        machine: str,
        now: float,
        *,
        states_read: bool = False,
    ) -> CacheOutcome:
        """What came. `usage` is what the answer says; None where it failed or said nothing: then
        nothing is known to be missed. `machine` is the replica of a pool that was asked; else it is
        empty. `states_read`: the answer says how many tokens were read, were it none. Where it does
        not, and this owner's answers of the model never told of any, it is not known what was read: only
        what no read could change is told then.
        """
        if usage is None or not usage.input:
            return found.outcome._replace(miss=None)
        if found.sent.pool:
            found.machine = machine
        self.begun(found, now)
        self._learn_size(found, usage)
        wrote = usage.cache_write_5m + usage.cache_write_1h
        ends = ReadEnds(self._kept, found, usage)
        expected = ends.expected()
        is_told = self._is_told(found, usage.cache_read + wrote) or states_read
        miss, hit = None, -1
        if is_told or found.available < 0:
            # (Where nothing was kept it need not be told that nothing was read.)
            hit, is_sure = ends.hit()
            miss = self._miss(found, usage, ends, hit if is_sure else None)
        if is_told:
            self._settle(found, usage, hit)
            found.outcome = CacheOutcome(expected, usage.cache_read, wrote, miss)
        else:
            self._leave(found, usage)
            found.outcome = CacheOutcome(expected, None, None, miss)
        for block, entry in found.written.items():
            entry.about = found.tokens[block]
        return found.outcome

    def _is_told(self, found: Foreseen, cached: int) -> bool:
        """Who answers tells of what is read, as far as is known."""
        who = joined(found.owner[0], found.line.model)
        if cached and who not in self._reports:
            if len(self._reports) >= _MOST_OWNERS:
                self._reports.clear()
            self._reports.add(who)
        return who in self._reports

    def _leave(self, found: Foreseen, usage: Usage) -> None:
        """Nobody knows what was read: an engine that was not told to count says nothing."""
        if found.sent.pool:
            self._write(found, -1)
        rules = found.sent.rules
        if rules.form is not MarkerForm.NONE or usage.input < rules.minimum_tokens:
            self._unwrite(found, 0, 0)

    def _learn_size(self, found: Foreseen, usage: Usage) -> None:
        prompt, name = found.sent.prompt, (found.sent.prompt.api, found.sent.prompt.model)
        size = sum(map(SIZE, prompt.blocks))
        if prompt.text_only and size:
            if len(self._ratios) > _MOST_MODELS:
                self._ratios.clear()
            old = self._ratios.get(name, usage.input / size)
            self._ratios[name] = old + 0.1 * (usage.input / size - old)
        estimated = found.tokens[-1]
        if estimated:
            scale = usage.input / estimated
            found.tokens = [int(each * scale + 0.5) for each in found.tokens]

    def _miss(self, found: Foreseen, usage: Usage, ends: ReadEnds, hit: int | None) -> Miss | None:
        """`hit`: the block up to whose end it was read, where that is sure."""
        read, rules = usage.cache_read, found.sent.rules
        if found.available >= 0:
            tokens, slack = ends.available()
            if rules.form is MarkerForm.NONE and tokens // GRAIN * GRAIN < rules.minimum_tokens:
                # It was too short to be kept.
                found.available, found.compared = -1, False
            elif (
                read < tokens - slack
                or (hit is not None and hit < found.available)
                or (slack and ends.is_as_foreseen(tokens))
            ):
                return Miss(found.why(), max(1, tokens - read))
        if not found.compared:
            found.expected = found.available
            self._compare(found)
        difference = found.difference
        if difference is not None and not (read and found.tokens[difference.block] < read):
            return self._scaled(found, found.changed(), usage)
        if read:
            return None
        too_short = usage.input < rules.minimum_tokens or found.is_short
        return Miss(MissCause.BELOW_MINIMUM if too_short else MissCause.COLD, 0)

    @staticmethod
    def _scaled(found: Foreseen, miss: Miss, usage: Usage) -> Miss:
        """What was counted by bytes, as a part of the tokens that the prompt came to."""
        counted = sum(map(SIZE, found.sent.prompt.blocks)) // BYTES_PER_TOKEN
        lost = miss.lost_tokens * usage.input // max(1, counted)
        return miss._replace(lost_tokens=min(lost, usage.input - usage.cache_read))

    def _settle(self, found: Foreseen, usage: Usage, hit: int) -> None:
        """What is known to be kept, and not to be, since the answer has said what it read."""
        read, wrote = usage.cache_read, usage.cache_write_5m + usage.cache_write_1h
        automatic = found.sent.rules.form is MarkerForm.NONE
        if hit < found.expected:
            self._lose(found, hit)
        if hit < found.expected or found.sent.pool:
            self._write(found, hit)
        if automatic and usage.input < found.sent.rules.minimum_tokens:
            wrote = read = 0
        if not automatic or not usage.input >= found.sent.rules.minimum_tokens:
            self._unwrite(found, read, wrote)
        end = len(found.prefixes) - 1 if automatic else max(found.written, default=-1)
        if end in found.written and (automatic or wrote):
            found.written[end].tokens = usage.input if automatic else read + wrote
        if hit >= 0 and not automatic:
            entry = self._kept.on(found.prefixes[hit], found.machine)
            if entry is not None:
                entry.lost = False
                entry.used_at = max(entry.used_at, found.at)
                if not entry.tokens and abs(found.tokens[hit] - read) <= near(read):
                    entry.tokens = read

    def _lose(self, found: Foreseen, hit: int) -> None:
        """What was to be read behind that block was not there."""
        for entry, before in found.renewed:
            if entry.used_at == found.at:
                entry.used_at = before
        for block in range(hit + 1, found.expected + 1):
            entry_here = self._kept.on(found.prefixes[block], found.machine)
            if entry_here is not None and entry_here.used_at < found.at:
                entry_here.lost = True
        if found.sent.rules.form is MarkerForm.NONE:
            for prefix in found.prefixes[: hit + 1]:
                entry_here = self._kept.on(prefix, found.machine)
                if entry_here is not None:
                    entry_here.used_at = max(entry_here.used_at, found.at)

    def _unwrite(self, found: Foreseen, read: int, wrote: int) -> None:
        """The last of what was to be written ends where the answer says; without a word of it,
        nothing was.
        """
        until = read + wrote
        far = until + near(until) if wrote else 0
        for block, entry in list(found.written.items()):
            if found.tokens[block] > far and entry.used_at == found.at:
                self._kept.remove(found.prefixes[block], entry)
                del found.written[block]


def _told(entries: Sequence[Entry], estimated: int) -> int:
    exact = max((each.tokens for each in entries), default=0)
    return exact or max((each.about for each in entries), default=0) or estimated
