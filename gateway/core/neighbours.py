"""Recent prompts, and where the one that is likest to a new one parts from it: `Neighbours`.

Rule 1: what is kept of a prompt are the fingerprints and sizes of its blocks, no content; bounded
in bytes: what was sent longest ago is forgotten first.
Rule 2: a prompt that goes on from a known one takes its place: a conversation is kept once.
Rule 3: prompts of one owner (a credential at one API) are compared, whatever their models: a change
of the model is a difference like others.
Rule 4: looking costs in proportion to the new prompt's blocks, however many are known.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from itertools import accumulate
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, NamedTuple

from gateway.core.blocks import BYTES_PER_TOKEN, Section
from gateway.core.lineup import BLOCK, KEY, MESSAGES, MODEL, SEED, parts_at
from gateway.core.prefix import shown

if TYPE_CHECKING:
    from collections.abc import Hashable

    from gateway.core.lineup import Lineup
    from gateway.core.prefix import CachePrompt

BUDGET_BYTES = 8 * 1024 * 1024

PROMPT_BYTES = 900
"""What a known prompt takes beside its blocks."""
BLOCK_BYTES = 28
"""A block of one: its fingerprint, its size, its place."""
PLACE_BYTES = 230
"""A block that no other known prompt has."""
END_BYTES = 130
"""A turn that a conversation may be taken up at."""

_MOST_ALIKE = 16
"""Prompts that are remembered to hold the same block: the latest, and up to twice as many meanwhile."""
_MOST_COMPARED = 24
_MOST_BLOCKS_COMPARED = 16_384
"""Of a prompt and those that it is compared with: few of many blocks, or many of few."""
_PART = 0.25
_MOST_ENDS = 64
_LAST = attrgetter("last")


class Difference(NamedTuple):
    """Where a prompt parts from the likest one before it."""

    path: str
    """JSON path of what is different, in the new request: `$.system[0]`, `$.tools[3]`, `$.model`."""
    kind: str
    """`cache_key`, `model`, `settings`, `tool_choice`, `images`, `tool_order`, `tools`, `system`, `history`
    (an earlier turn of a conversation), `message`; or, where its text has been looked at, a kind of
    volatile text: `timestamp`, `uuid`, ..."""
    block: int
    """Index of the new prompt's block that differs, or that follows the setting that does."""
    recurring_tokens: int
    """Estimated tokens behind it that both have, and that could have been read but for it."""
    neighbour: str
    """Our id of the request that it was compared with."""
    was_size: int = 0
    """UTF-8 bytes of that block in the earlier one; 0 where it is a setting."""
    is_size: int = 0
    """The same in the new one."""


class _Known:
    """One prompt; of a conversation its latest."""

    __slots__ = ("ends", "last", "line", "owner", "request_id", "size")

    def __init__(self, owner: _Owner, line: Lineup, request_id: str, last: int) -> None:
        self.owner = owner
        self.line = line
        self.request_id = request_id
        self.ends: list[tuple[int, int]] = []
        self.last = last
        self.size = 0


class _Owner:
    """All known prompts of one."""

    __slots__ = ("ends", "key", "places")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.places: dict[int, list[_Known]] = {}
        """By a block, the latest prompts that hold it."""
        self.ends: dict[int, dict[int, _Known]] = {}
        """By key and model, and fingerprint of a whole prompt, who went on from there, or is it."""


class Neighbours:
    """Remembers prompts, of all owners together within `budget_bytes`."""

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._budget = budget_bytes
        self._owners: dict[Hashable, _Owner] = {}
        self._known: OrderedDict[_Known, None] = OrderedDict()
        self._bytes = 0
        self._count = 0

    def __repr__(self) -> str:
        return f"<Neighbours {len(self._known)} prompts, {self._bytes} B>"

    def __len__(self) -> int:
        return len(self._known)

    @property
    def size_bytes(self) -> int:
        """About what is remembered takes."""
        return self._bytes

    def add(self, owner: Hashable, line: Lineup, request_id: str) -> None:
        """Remember a prompt: its answer has begun."""
        if not line.labels:
            return
        whose = self._owners.get(owner)
        if whose is None:
            whose = self._owners[owner] = _Owner(owner)
        known = self._goes_on_from(whose, line)
        self._count += 1
        if known is None:
            known = _Known(whose, line._replace(chain=()), request_id, self._count)
            self._known[known] = None
            self._count_size(known, PROMPT_BYTES)
            self._place(known, 0)
        else:
            before = len(known.line.labels)
            known.line = line._replace(chain=())
            known.request_id, known.last = request_id, self._count
            self._place(known, before)
            self._known.move_to_end(known)
        self._end(known, (line.key ^ line.model, line.chain[-1]))
        while self._bytes > self._budget and self._known:
            self._forget(next(iter(self._known)))

    def find(
        self,
        owner: Hashable,
        prompt: CachePrompt,
        line: Lineup,
        minimum_tokens: int,
        read: int = -1,
    ) -> Difference | None:
        """Where the likest earlier prompt parts from this one, of those that have enough in common
        with it behind that place, and behind block `read` (what is read up to its end is not lost):
        `minimum_tokens`, and a quarter of what is left. Likest is who has most bytes in common,
        before and behind; of those alike who parts last, and came last.

        One that parts before the end of an earlier prompt that this one wholly goes on from is not
        what it was changed from: None for the next turn of a conversation.
        """
        whose = self._owners.get(owner)
        if whose is None or not line.labels:
            return None
        least = max(1, minimum_tokens * BYTES_PER_TOKEN)
        candidates = _candidates(whose, line, read + 1, least)
        if not candidates:
            return None
        floor = self._extended(whose, line)
        ground = _Ground(line, read + 1)
        best: tuple[int, int, int] | None = None
        found: tuple[_Known, int, int, int] | None = None
        at = -1
        for known in candidates:
            # (Those that are likest mostly part at the same place.)
            stage, at = parts_at(known.line, line, at)
            if at < floor:
                continue
            size, rest = ground.recurring(known.line, at), ground.bytes_from(at)
            if size < least or size < _PART * rest:
                continue
            rank = ground.bytes_before(at) + size, at + stage, known.last
            if best is None or rank > best:
                best, found = rank, (known, stage, at, size)
        if found is None:
            return None
        known, stage, at, size = found
        path, kind = _named(prompt, line, known.line, stage, at)
        is_block = stage == BLOCK
        was = known.line.sizes[at] if is_block and at < len(known.line.sizes) else 0
        now = line.sizes[at] if is_block else 0
        return Difference(path, kind, at, size // BYTES_PER_TOKEN, known.request_id, was, now)

    # --- remembering ----------------------------------------------------------------------------

    @staticmethod
    def _extended(whose: _Owner, line: Lineup) -> int:
        """Blocks of the longest earlier prompt that this one begins with, or is."""
        ends, chain = whose.ends.get(line.key ^ line.model), line.chain
        if not ends or ends.keys().isdisjoint(chain):
            return 0
        return next(at for at in range(len(chain), 0, -1) if chain[at - 1] in ends)

    def _goes_on_from(self, whose: _Owner, line: Lineup) -> _Known | None:
        """Whose place it takes: the latest turn of its conversation, as it was sent."""
        length = self._extended(whose, line)
        if not length:
            return None
        known = whose.ends[line.key ^ line.model][line.chain[length - 1]]
        old = known.line
        same = len(old.labels) <= len(line.labels) and old.labels == line.labels[: len(old.labels)]
        is_one = same and (old.model, old.seed) == (line.model, line.seed)
        return known if is_one and old.messages_seed == line.messages_seed else None

    def _place(self, known: _Known, begun: int) -> None:
        labels = known.line.labels
        places = known.owner.places
        size = BLOCK_BYTES * (len(labels) - begun)
        for label in labels[begun:]:
            holders = places.get(label)
            if holders is None:
                places[label] = [known]
                size += PLACE_BYTES
            elif holders[-1] is not known and not (begun and known in holders):
                holders.append(known)
                if len(holders) >= 2 * _MOST_ALIKE:
                    self._thin(holders)
        self._count_size(known, size)

    def _thin(self, holders: list[_Known]) -> None:
        """Keep the latest."""
        paid = holders[0]
        latest = sorted(holders, key=_LAST)[-_MOST_ALIKE:]
        holders[:] = latest
        if holders[0] is not paid:
            self._count_size(paid, -PLACE_BYTES)
            self._count_size(holders[0], PLACE_BYTES)

    def _leave(self, holders: list[_Known], known: _Known) -> None:
        """The first one pays for the place."""
        pays = holders[0] is known
        holders.remove(known)
        if pays:
            self._count_size(known, -PLACE_BYTES)
            if holders:
                self._count_size(holders[0], PLACE_BYTES)

    def _end(self, known: _Known, end: tuple[int, int]) -> None:
        key, fingerprint = end
        ends = known.owner.ends.setdefault(key, {})
        before = ends.get(fingerprint)
        if before is known:
            return
        if before is not None:
            before.ends.remove(end)
            self._count_size(before, -END_BYTES)
        ends[fingerprint] = known
        known.ends.append(end)
        self._count_size(known, END_BYTES)
        if len(known.ends) > _MOST_ENDS:
            self._unend(known.owner, known.ends.pop(0))
            self._count_size(known, -END_BYTES)

    @staticmethod
    def _unend(owner: _Owner, end: tuple[int, int]) -> None:
        key, fingerprint = end
        ends = owner.ends[key]
        del ends[fingerprint]
        if not ends:
            del owner.ends[key]

    def _count_size(self, known: _Known, size: int) -> None:
        known.size += size
        self._bytes += size

    def _forget(self, known: _Known) -> None:
        del self._known[known]
        owner = known.owner
        for label in set(known.line.labels):
            holders = owner.places.get(label)
            if holders is None or known not in holders:
                continue
            self._leave(holders, known)
            if not holders:
                del owner.places[label]
        for end in known.ends:
            self._unend(owner, end)
        self._bytes -= known.size
        if not owner.places:
            self._owners.pop(owner.key, None)


class _Ground:
    """What of a new prompt is counted, by the place where another parts from it."""

    def __init__(self, line: Lineup, behind: int) -> None:
        self._line = line
        self._behind = behind
        self._sizes = dict(zip(line.labels, line.sizes, strict=True))
        self._sums = [0, *accumulate(line.sizes)]
        self._from: dict[int, Counter[int]] = {}

    def _counts(self, at: int) -> Counter[int]:
        start = max(at, self._behind)
        found = self._from.get(start)
        if found is None:
            found = self._from[start] = Counter(self._line.labels[start:])
        return found

    def bytes_from(self, at: int) -> int:
        return self.bytes_behind(max(at, self._behind))

    def bytes_before(self, at: int) -> int:
        return self._sums[at]

    def bytes_behind(self, at: int) -> int:
        return self._sums[-1] - self._sums[at]

    def recurring(self, other: Lineup, at: int) -> int:
        """Bytes from there on that the other one has behind it, too, each block as often as both."""
        ours, their = self._line.labels, other.labels
        if self._behind <= at < min(len(ours), len(their)) and ours[at + 1 :] == their[at + 1 :]:
            # All behind one block, which, if it is another, can't recur there once more.
            return self.bytes_behind(at + (ours[at] != their[at]))
        counts = self._counts(at)
        theirs, sizes = Counter(other.labels[at:]), self._sizes
        both = counts.keys() & theirs.keys()
        return sum(sizes[label] * min(counts[label], theirs[label]) for label in both)


def _candidates(whose: _Owner, line: Lineup, behind: int, least: int) -> list[_Known]:
    """Who has most of the blocks from there on."""
    votes: dict[_Known, int] = {}
    total = run = 0
    # What follows each other is mostly held by the same ones: they are counted together.
    alike: list[_Known] = []
    get = whose.places.get
    for label, size in zip(line.labels[behind:], line.sizes[behind:], strict=True):
        holders = get(label)
        if holders is None:
            continue
        total += size
        if holders != alike:
            for known in alike:
                votes[known] = votes.get(known, 0) + run
            alike, run = holders, 0
        run += size
    if total < least:
        return []
    for known in alike:
        votes[known] = votes.get(known, 0) + run
    found = [(size, known.last, known) for known, size in votes.items() if size >= least]
    found.sort(key=itemgetter(0, 1), reverse=True)
    compared: list[_Known] = []
    left = _MOST_BLOCKS_COMPARED
    for _, _, known in found[:_MOST_COMPARED]:
        left -= len(line.labels) + len(known.line.labels)
        if compared and left < 0:
            break
        compared.append(known)
    return compared


def _named(
    prompt: CachePrompt, line: Lineup, other: Lineup, stage: int, at: int
) -> tuple[str, str]:
    """Path and kind."""
    if stage == KEY:
        return "$.prompt_cache_key", "cache_key"
    if stage == MODEL:
        return "$.model", "model"
    if stage == SEED:
        return "$", "settings"
    if stage == MESSAGES:
        if prompt.api == "openai_responses":
            # What it goes on from: nothing else changes the messages alone there.
            return "$.previous_response_id", "settings"
        if line.images != other.images:
            return "$.messages", "images"
        return "$.tool_choice", "tool_choice"
    block = prompt.blocks[at]
    path = shown(block.path)
    if block.section is Section.TOOLS or at < other.tools:
        same = Counter(line.labels[: line.tools]) == Counter(other.labels[: other.tools])
        return path, "tool_order" if same else "tools"
    if block.section is Section.SYSTEM:
        return path, "system"
    recurs = set(other.labels[at:])
    behind = zip(prompt.blocks[at:], line.labels[at:], strict=True)
    told = any(b.role == "assistant" and label in recurs for b, label in behind)
    return path, "history" if told else "message"
