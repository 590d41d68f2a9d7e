"""Prompts that begin as others did: what was read of those is not read again.

A conversation is sent whole in each turn, and all but its end is the same, byte by byte. So what
its messages were read as is remembered by the bytes of the body up to there, and the next turn is
read without them.

Rule 1: bytes that are the same up to a place stand for the same messages before it: the place where
a message begins is only taken over with all bytes in front of it, the first of the body included.
Rule 2: what is remembered are blocks (fingerprints, sizes, places), no content; bounded in bytes.
Rule 3: what is read is the same with a memory as without.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import orjson
import xxhash

from gateway.core.prefix import Kind
from gateway.wire import anthropic_messages_blocks, openai_chat_blocks, openai_responses_blocks
from gateway.wire.block_parts import Skipped
from gateway.wire.lenient import items, members
from gateway.wire.openai_chat_blocks import leads
from gateway.wire.prompt_blocks import cache_prompt
from gateway.wire.seek import NotThere, Seeker

if TYPE_CHECKING:
    from gateway.core.canonical import Json
    from gateway.core.prefix import CachePrompt, PrefixBlock
    from gateway.providers.prompt_cache import CacheRules

BUDGET_BYTES = 16 * 1024 * 1024
BLOCK_BYTES = 360
"""What a remembered block takes, its path and numbers included; a test holds it to what the process
really pays."""

_BEGINNING_BYTES = 2048
# Where bodies are compared: each 4 KiB at first, then each 8 KiB.
_STEP, _LONG_STEP = 4096, 8 * 1024
_LONG_FROM = 64 * 1024
_MOST_PLACES = 6
"""Places of one conversation at which it may be taken up."""
_PLACES_AT_ONCE = 2
"""Clients change the end of a conversation: markers of their own move on, drafts are dropped."""
_FEW_BLOCKS = 24
"""So many are given up where a conversation goes on otherwise; with more it is another one."""

_LISTS = {
    anthropic_messages_blocks.API: "messages",
    openai_chat_blocks.API: "messages",
    openai_responses_blocks.API: "input",
}


_MESSAGES = anthropic_messages_blocks.API
_OBJECT, _LIST = b"{["
_Key: TypeAlias = tuple[bytes, int]
"""Digest of a body up to a place, and the number of its API and rules."""


class Landmark(NamedTuple):
    """Where the last items of one of the body's lists begin."""

    seeker: Seeker
    """In the body."""
    name: str
    """The member of the body that is the list."""
    first: int
    """Index of the first item whose place is given; those of all behind it are."""
    places: list[int]
    """The bytes at which they begin."""


class Reading(NamedTuple):
    """What a body was read as."""

    document: Json
    """The body, parsed; without the messages that are known and stand behind the first of the
    conversation, if any."""
    prompt: CachePrompt
    landmark: Landmark | None
    """Of the messages, where they were looked for."""
    first_at: int
    """The byte at which the second message of the conversation begins; -1 where there is none, or
    it was not looked for."""


class _Beginning:
    """One conversation, as far as it is known: the blocks of its messages behind the first."""

    __slots__ = ("blocks", "first", "first_at", "number", "places")

    def __init__(self, number: int, first: int, first_at: int) -> None:
        self.number = number
        self.first = first
        """Index of the first message whose blocks are remembered, and the byte it begins at."""
        self.first_at = first_at
        self.blocks: list[PrefixBlock] = []
        self.places: OrderedDict[_Key, _Place] = OrderedDict()

    @property
    def size(self) -> int:
        return _BEGINNING_BYTES + BLOCK_BYTES * len(self.blocks)


class _Place(NamedTuple):
    """Where a conversation can be taken up."""

    owner: _Beginning
    before: int
    """Blocks of its owner before this place."""
    message: int
    """Index of the message that begins here."""
    at: int
    """The byte it begins at."""
    thinks: bool
    """One of those blocks is of thinking."""
    plain: bool
    """So is the text up to here, as a `Seeker` takes it."""


class Start(NamedTuple):
    """A body that is about to be read, and what is known of its beginning."""

    api: str
    body: bytes
    rules: CacheRules | None
    keys: list[_Key]
    known: _Place | None
    skipped: Skipped | None

    def read(self) -> Reading:
        """Read it, in any thread. Raises what parsing or `cache_prompt` raises."""
        api, body, rules, _, known, skipped = self
        text = body
        if known is not None:
            text = body[: known.owner.first_at] + body[known.at :]
        document: Json = orjson.loads(text)
        prompt = cache_prompt(api, document, rules, skipped)
        if not self.keys or not prompt.text_only:
            # What media change depends on where they stand: read each time.
            return Reading(document, prompt, None, -1)
        name = _LISTS[api]
        try:
            if known is not None:
                seeker = Seeker(body, known.at if known.plain else 0)
                landmark = _landmark(seeker, name, known.message, known.at)
                return Reading(document, prompt, landmark, known.owner.first_at)
            first = 1 if api == _MESSAGES else leads(items(members(document).get(name))) + 1
            landmark = _landmark(Seeker(body), name)
            return Reading(document, prompt, landmark, landmark.places[first])
        except (NotThere, IndexError):
            # Too short to be known, or a text instead of a list.
            return Reading(document, prompt, None, -1)


class Beginnings:
    """Remembers what messages were read as. A body is read in three steps, the second one wherever
    there is time: `begin`, `Start.read`, `keep`.
    """

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        """Of what is remembered, about so many bytes are kept: the latest."""
        self._budget = budget_bytes
        self._numbers: dict[tuple[str, CacheRules | None], int] = {}
        self._places: dict[_Key, _Place] = {}
        self._owners: OrderedDict[int, _Beginning] = OrderedDict()
        self._begun = 0
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<Beginnings of {len(self._owners)} conversations, {self._bytes} B>"

    @property
    def size_bytes(self) -> int:
        """About what is remembered takes."""
        return self._bytes

    def begin(self, api: str, body: bytes, rules: CacheRules | None) -> Start:
        """What is known of a body."""
        if api not in _LISTS or len(body) < 2 * _STEP:
            return Start(api, body, rules, [], None, None)
        number = self._numbers.setdefault((api, rules), len(self._numbers))
        keys = _keys(body, number)
        for key in reversed(keys):
            known = self._places.get(key)
            if known is not None:
                owner = known.owner
                self._owners.move_to_end(owner.number)
                skipped = Skipped(
                    owner.first,
                    known.message - owner.first,
                    owner.blocks[: known.before],
                    known.thinks,
                )
                return Start(api, body, rules, keys, known, skipped)
        return Start(api, body, rules, keys, None, None)

    def keep(self, start: Start, reading: Reading) -> None:
        """Remember what was read, up to the last places of comparison before the last message."""
        landmark, keys, known = reading.landmark, start.keys, start.known
        if landmark is None:
            return
        at, name = landmark.places, landmark.name
        numbers = range(bisect_right(range(len(keys)), at[-1], key=_end))[-_PLACES_AT_ONCE:]
        first = known.owner.first if known is not None else at.index(reading.first_at)
        # Of the last message that begins before each place, and behind the first one.
        found = {
            keys[number]: bisect_right(at, _end(number)) - 1
            for number in numbers
            if keys[number] not in self._places
        }
        found = {key: n for key, n in found.items() if n >= 0 and landmark.first + n > first}
        if not found:
            return
        prompt = reading.prompt
        blocks = prompt.blocks
        # The tools come first, then what leads; then come the messages in their order.
        begun = next(
            (n for n, b in enumerate(blocks) if b.path[0] == name and _index(b) >= first),
            len(blocks),
        )

        def count(message: int) -> int:
            return bisect_left(blocks, message, lo=begun, key=_index) - begun

        owner = self._owner(first, reading.first_at, known)
        self._bytes -= owner.size
        deepest = count(landmark.first + max(found.values()))
        owner.blocks += blocks[begun + len(owner.blocks) : begun + deepest]
        self._bytes += owner.size
        for key, n in found.items():
            size = count(landmark.first + n)
            thinks = prompt.thinks and any(b.kind is Kind.THINKING for b in owner.blocks[:size])
            plain = landmark.seeker.plain
            place = _Place(owner, size, landmark.first + n, at[n], thinks, plain)
            self._places[key] = owner.places[key] = place
            if len(owner.places) > _MOST_PLACES:
                del self._places[owner.places.popitem(last=False)[0]]
        while self._bytes > self._budget and self._owners:
            self._drop(next(iter(self._owners.values())))

    def _owner(self, first: int, first_at: int, known: _Place | None) -> _Beginning:
        """Whom new places belong to: the conversation that went on, or a new one."""
        if known is not None and any(each is known for each in known.owner.places.values()):
            owner = known.owner
            more = len(owner.blocks) - known.before
            if more <= _FEW_BLOCKS:
                for key, place in list(owner.places.items()):
                    if place.before > known.before:
                        del owner.places[key], self._places[key]
                self._bytes -= BLOCK_BYTES * more
                del owner.blocks[known.before :]
                return owner
        self._begun += 1
        owner = self._owners[self._begun] = _Beginning(self._begun, first, first_at)
        self._bytes += owner.size
        return owner

    def _drop(self, owner: _Beginning) -> None:
        del self._owners[owner.number]
        self._bytes -= owner.size
        for key in owner.places:
            del self._places[key]


def _keys(body: bytes, number: int) -> list[_Key]:
    """Of the body up to each place of comparison."""
    seen = xxhash.xxh3_128()
    view = memoryview(body)
    keys: list[_Key] = []
    start, size = 0, len(body)
    while (end := start + (_STEP if start < _LONG_FROM else _LONG_STEP)) <= size:
        seen.update(view[start:end])
        keys.append((seen.digest(), number))
        start = end
    return keys


def _end(number: int) -> int:
    """Where the place of comparison of that number is."""
    short = _LONG_FROM // _STEP
    if number < short:
        return (number + 1) * _STEP
    return _LONG_FROM + (number - short + 1) * _LONG_STEP


def _index(block: PrefixBlock) -> int:
    """Of the message that a block is of."""
    index = block.path[1]
    assert isinstance(index, int)
    return index


def _landmark(seeker: Seeker, name: str, index: int = 0, at: int = -1) -> Landmark:
    """The messages from this one on, which begins at byte `at` (-1: it is the first one)."""
    if at < 0:
        at = _list_at(seeker, name)
    places: list[int] = []
    while (item := seeker.item(at)) is not None:
        places.append(at)
        at = item[1]
    return Landmark(seeker, name, index, places)


def _list_at(seeker: Seeker, name: str) -> int:
    """Where the first item of a list of the body begins."""
    at = seeker.opened(seeker.begin(), _OBJECT)
    while (member := seeker.member(at)) is not None:
        if member.name == name:
            return seeker.opened(member.value, _LIST)
        at = seeker.next(seeker.end(member.value))
    raise NotThere(f"no {name}")
