"""Which machine of a provider should get a prompt: keys that hold one prefix together.

OpenAI routes by the first tokens of a prompt and `prompt_cache_key`. Requests that share a prefix
should share a key, but "keep each key at about 15 requests per minute": what goes beyond is sent to
other machines, where nothing is cached. So a prefix has one key while it is asked for seldom, and as
many as its rate takes when it is not; a conversation stays with its key as long as that has room.
"""

from __future__ import annotations

from collections import OrderedDict, deque

import xxhash

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

    __slots__ = ("full_at", "homes", "used")

    def __init__(self, now: float) -> None:
        self.homes = 1
        self.full_at = now
        self.used: dict[int, deque[float]] = {}


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
    if known.homes > 1 and now - known.full_at > _CALM_S:
        known.full_at = now
        known.used = {shard: times for shard, times in known.used.items() if _left(times, now)}
        if sum(map(len, known.used.values())) < known.homes * limit * _QUIET:
            known.homes //= 2
    home = conversation % known.homes
    if _take(known, home, limit, now):
        return home
    if sum(_left(times, now) for times in known.used.values()) >= known.homes * limit * _CROWDED:
        # Not one conversation alone: there are twice as many keys, and half of them move.
        known.homes = min(MOST_SHARDS, known.homes * 2)
        home = conversation % known.homes
    if known.homes > 1:
        known.full_at = now
    for step in range(MOST_SHARDS):
        shard = (home + step) % MOST_SHARDS
        if _take(known, shard, limit, now):
            return shard
    idlest = min(known.used, key=lambda shard: known.used[shard][0])
    known.used[idlest].popleft()
    known.used[idlest].append(now)
    return idlest


def _take(known: _Prefix, shard: int, limit: int, now: float) -> bool:
    """Use the key, if it has room in the minute that ends now."""
    times = known.used.setdefault(shard, deque())
    if _left(times, now) >= limit:
        return False
    times.append(now)
    return True


def _left(times: deque[float], now: float) -> int:
    """How many of them are of the minute that ends now; the others are dropped."""
    while times and now - times[0] >= WINDOW_S:
        times.popleft()
    return len(times)
