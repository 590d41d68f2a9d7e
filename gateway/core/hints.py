"""Which machine of a provider should get a prompt: keys that hold one prefix together.

OpenAI routes by the first tokens of a prompt and `prompt_cache_key`. Requests that share a prefix
should share a key, but "keep each key at about 15 requests per minute": what goes beyond is sent to
other machines, where nothing is cached. So a prefix has one key while it is asked for seldom, and as
many as its rate takes when it is not; a conversation stays with its key as long as that has room.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import OrderedDict
from typing import TYPE_CHECKING

import xxhash

from gateway.core.blocks import BYTES_PER_TOKEN, Section
from gateway.core.prefix import SIZE, chain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.canonical import Json
    from gateway.core.prefix import CachePrompt
    from gateway.core.ticket import Ticket
    from gateway.providers.prompt_cache import CacheRules

KEY = "prompt_cache_key"
SALT = "cache_salt"

# Members by which clients say the same as a header.
_SAME = {
    "x-session-id": ("session_id", KEY),
    "x-session-affinity": (KEY, "user"),
    "x-grok-conv-id": (KEY,),
}

_SEPARATED_BY_KEY = frozenset({"openai", "azure"})
_WITH_KEY = frozenset({"openai_chat", "openai_responses"})

WINDOW_S = 60.0
MOST_SHARDS = 256
"""Of one prefix: beyond `MOST_SHARDS` times the limit a minute the least busy key is taken."""

# A prefix whose homes have had room for so long may do with half as many.
_CALM_S = 10 * WINDOW_S

# So full are all homes together when there have to be more of them: one conversation may be faster
# than its home allows, and moves on by itself.
_CROWDED = 0.7
# Half as many must not be crowded at once.
_QUIET = 0.2


class _Prefix:
    """The keys of one prefix: when each was used in the last minute, at most `limit` times."""

    __slots__ = ("_shards", "_times", "full_at", "homes")

    def __init__(self, now: float) -> None:
        self.homes = 1
        self.full_at = now
        # Side by side, in their order, and nothing that is older: most prefixes are used once, and
        # there are thousands of them.
        self._times = array("d")
        self._shards = bytearray()

    def pass_to(self, now: float) -> None:
        """What is not of the minute that ends now is dropped."""
        past = bisect_right(self._times, now - WINDOW_S)
        if past:
            del self._times[:past], self._shards[:past]

    @property
    def uses(self) -> int:
        """Of all keys together."""
        return len(self._times)

    def take(self, shard: int, limit: int, now: float) -> bool:
        """Use the key, if it has room."""
        if self._shards.count(shard) >= limit:
            return False
        self._times.append(now)
        self._shards.append(shard)
        return True

    def take_idlest(self, now: float) -> int:
        """Where none has room: the key whose uses go back farthest is used in place of the first."""
        shard = self._shards.pop(0)
        del self._times[0]
        self._times.append(now)
        self._shards.append(shard)
        return shard


class CacheKeys:
    """Gives keys to requests. Bounded: the prefixes seen longest ago are forgotten, and begin with
    one key again.
    """

    def __init__(self, prefixes: int = 2048) -> None:
        """Remember at most so many prefixes."""
        self._prefixes: OrderedDict[bytes, _Prefix] = OrderedDict()
        self._most = prefixes

    def __repr__(self) -> str:
        return f"<CacheKeys of {len(self._prefixes)} prefixes>"

    def key(
        self, domain: bytes, prefix: int, conversation: int, per_minute: int, now: float
    ) -> str:
        """The key for a request now: at most 64 characters of `0-9a-z-`.

        `domain` is the provider's cache domain, `prefix` the fingerprint of what requests share,
        `conversation` that of what only the turns of one share; `per_minute` is the most that one
        key is given in any minute, 0 for no limit; `now` are seconds of any clock that goes on.
        """
        name = domain + prefix.to_bytes(8, "big")
        stem = f"wg-{xxhash.xxh3_64_hexdigest(name)}"
        if per_minute <= 0:
            return f"{stem}-0"
        known = self._prefixes.get(name)
        if known is None:
            known = self._prefixes[name] = _Prefix(now)
            if len(self._prefixes) > self._most:
                self._prefixes.popitem(last=False)
        self._prefixes.move_to_end(name)
        return f"{stem}-{_shard(known, conversation, per_minute, now):x}"


def _shard(known: _Prefix, conversation: int, limit: int, now: float) -> int:
    known.pass_to(now)
    if known.homes > 1 and now - known.full_at > _CALM_S:
        known.full_at = now
        if known.uses < known.homes * limit * _QUIET:
            known.homes //= 2
    home = conversation % known.homes
    if known.take(home, limit, now):
        return home
    if known.uses >= known.homes * limit * _CROWDED:
        # Not one conversation alone: there are twice as many keys, and half of them move.
        known.homes = min(MOST_SHARDS, known.homes * 2)
        home = conversation % known.homes
    if known.homes > 1:
        known.full_at = now
    if known.uses >= MOST_SHARDS * limit:
        return known.take_idlest(now)
    # Somebody has room.
    shards = ((home + step) % MOST_SHARDS for step in range(MOST_SHARDS))
    return next(shard for shard in shards if known.take(shard, limit, now))


class Hinting:
    """Which hint goes with a request, and its value."""

    def __init__(self, keys: CacheKeys, *, hints: bool, isolates: bool) -> None:
        """`hints`: send what keeps one prefix on one machine; `isolates`: and what keeps those who
        share a credential apart in its cache.
        """
        self._keys = keys
        self._hints = hints
        self._isolates = isolates

    def hint(self, rules: CacheRules, api: str) -> str:
        """The member or header to add, empty for none."""
        if self._isolates and rules.provider in _SEPARATED_BY_KEY and api in _WITH_KEY:
            # From GPT-5.6 on no key is needed for routing, but another key is another cache.
            return KEY
        if rules.hint == SALT:
            return SALT if self._isolates else ""
        return rules.hint if self._hints else ""

    @staticmethod
    def is_given(hint: str, document: Mapping[str, Json], headers: Mapping[str, str]) -> bool:
        """Has the client said it itself?"""
        if hint in document or hint in headers:
            return True
        return any(member in document for member in _SAME.get(hint, ()))

    def value(self, hint: str, domain: bytes, ticket: Ticket, now: float) -> str:
        """The hint's value; empty where the prompt is too short to be cached."""
        prompt, rules = ticket.prompt, ticket.rules
        if hint == SALT:
            return f"wg-{xxhash.xxh3_128_hexdigest(domain)}"
        if not prompt.blocks or rules is None:
            return ""
        tokens = ticket.tokens[-1] if ticket.tokens else _tokens(prompt)
        if tokens < rules.minimum_tokens:
            return ""
        first = next(
            (at for at, each in enumerate(prompt.blocks) if each.section is Section.MESSAGES),
            len(prompt.blocks) - 1,
        )
        # Nothing behind the first message of the conversation matters.
        fingers = ticket.chain or chain(prompt._replace(blocks=prompt.blocks[: first + 1]))
        conversation = fingers[first]
        if hint != KEY:
            name = domain + conversation.to_bytes(8, "big")
            return f"wg-{xxhash.xxh3_128_hexdigest(name)}"
        shared = fingers[first - 1] if first else conversation
        return self._keys.key(domain, shared, conversation, rules.hint_rpm, now)


def _tokens(prompt: CachePrompt) -> int:
    return int(sum(map(SIZE, prompt.blocks)) / BYTES_PER_TOKEN)
