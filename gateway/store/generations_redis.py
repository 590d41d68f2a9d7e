"""Marks in one hash in Redis, written by one script, told over one channel.

    <prefix>purges   name -> "<sequence> <before>",  "#" -> sequence,  "@" -> incarnation

One key, so that a cluster has it in one place. A message is `former version, version, sequence and
before of the one mark, its name`, in words; an empty one says to look.
"""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from gateway.core.purges import JITTER_BITS, MOST_NAMES, Mark
from gateway.store.base import StoreUnavailable
from gateway.store.generations import News, Version

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from gateway.store.redis import RedisStore

T = TypeVar("T")

NAME = "purges"
_SEQUENCE, _INCARNATION = b"#", b"@"
_NEW = "+"

# KEYS: the hash. ARGV: channel, most names, an incarnation for a new hash, a sequence to stay above,
# 1 to rise in any case, jitter; then name, sequence (+ for the new one) and before of each mark.
_WRITE = """
local key, channel, most = KEYS[1], ARGV[1], tonumber(ARGV[2])
local kind_of = function(name) return string.match(name, '^[^:]*:') or name end
local spelled = function(sequence, before) return string.format('%.0f %.6f', sequence, before) end
local read = function(text)
  if not text then return 0, 0 end
  local s, b = string.match(text, '^(%S+) (%S+)$')
  return tonumber(s), tonumber(b)
end
local held = function(name) return read(redis.call('HGET', key, name)) end

local former = tonumber(redis.call('HGET', key, '#') or '0')
local former_life = redis.call('HGET', key, '@') or '0'
local life = former_life
if life == '0' then life = ARGV[3] end
local time = redis.call('TIME')
local risen = math.max(math.max(former, tonumber(ARGV[4])) + 1 + tonumber(ARGV[6]),
  time[1] * 1000000 + time[2])
local rises = ARGV[5] == '1' or former < tonumber(ARGV[4])
local writes, last = {}, ''
for i = 7, #ARGV, 3 do
  local name, sequence, before = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  if sequence == '+' then sequence = risen else sequence = tonumber(sequence) end
  local s, b = held(name)
  if sequence > s or before > b then
    rises = true
    last = spelled(math.max(sequence, s), math.max(before, b))
    writes[#writes + 1] = name
    writes[#writes + 1] = last
  end
end
if not rises then return {string.format('%.0f', former)} end

local message = ''
if #writes == 2 then
  message = former_life .. ' ' .. string.format('%.0f', former) .. ' ' .. life .. ' '
    .. string.format('%.0f', risen) .. ' ' .. last .. ' ' .. writes[1]
end
redis.call('HSET', key, '#', string.format('%.0f', risen), '@', life)
for i = 1, #writes, 2 do redis.call('HSET', key, writes[i], writes[i + 1]) end

if redis.call('HLEN', key) - 2 > most then
  local all, marks, kinds, foldable = redis.call('HGETALL', key), {}, {}, {}
  for i = 1, #all, 2 do
    local name = all[i]
    if name ~= '#' and name ~= '@' then
      local s, b = read(all[i + 1])
      if kind_of(name) == name then kinds[name] = {s, b}
      else foldable[#foldable + 1] = {name, s, b, math.max(s, b * 1000000)} end
    end
  end
  table.sort(foldable, function(x, y) return x[4] < y[4] end)
  for i = 1, #foldable - math.floor(most * 3 / 4) do
    local name, s, b = unpack(foldable[i])
    local into = kinds[kind_of(name)] or {0, 0}
    kinds[kind_of(name)] = {math.max(into[1], s), math.max(into[2], b)}
    redis.call('HDEL', key, name)
  end
  for name, mark in pairs(kinds) do redis.call('HSET', key, name, spelled(mark[1], mark[2])) end
  message = ''
end
redis.pcall('PUBLISH', channel, message)
return {string.format('%.0f', risen)}
"""


class RedisRegister:
    """The marks that all replicas on one Redis and prefix share."""

    shared = True

    def __init__(self, store: RedisStore, most: int = MOST_NAMES) -> None:
        """Over the store's connections, within its deadline; at most about `most` names."""
        self._store = store
        self._most = most
        self._key = store.named(NAME)

    async def look(self) -> Version:
        """Its version; (0, 0) where there is none."""
        reply = await self._store.execute("HMGET", self._key, _INCARNATION, _SEQUENCE)
        return _understood(lambda: Version(int(reply[0] or 0), int(reply[1] or 0)))

    async def read(self) -> tuple[Version, dict[str, Mark]]:
        """All of it."""
        reply = await self._store.execute("HGETALL", self._key)
        fields = dict(zip(reply[::2], reply[1::2], strict=True))
        return _understood(lambda: _read(fields))

    async def purge(self, names: Sequence[str], before: float | None, above: int) -> int:
        """Mark the names; the sequence."""
        triples: list[str | int] = []
        for name in names:
            triples += [name, _NEW, 0] if before is None else [name, 0, f"{before:.6f}"]
        return await self._write(above, 1, triples)

    async def join(self, marks: Mapping[str, Mark], above: int) -> None:
        """Take over marks that it lacks."""
        triples: list[str | int] = []
        for name, mark in marks.items():
            triples += [name, mark.sequence, f"{mark.before:.6f}"]
        await self._write(above, 0, triples)

    @asynccontextmanager
    async def news(self) -> AsyncIterator[AsyncIterator[News | None]]:
        """What is published."""
        async with self._store.subscription(self._key) as messages:
            yield (_heard(message) async for message in messages)

    async def _write(self, above: int, rise: int, triples: list[str | int]) -> int:
        reply = await self._store.execute(
            *("EVAL", _WRITE, 1, self._key, self._key, self._most),
            *(secrets.randbits(62), above, rise, secrets.randbits(JITTER_BITS), *triples),
        )
        return _understood(lambda: int(reply[0]))


def _read(fields: dict[bytes, bytes]) -> tuple[Version, dict[str, Mark]]:
    version = Version(int(fields.pop(_INCARNATION, b"0")), int(fields.pop(_SEQUENCE, b"0")))
    marks = {}
    for name, value in fields.items():
        sequence, before = value.split()
        marks[name.decode()] = Mark(int(sequence), float(before))
    return version, marks


def _heard(message: bytes) -> News | None:
    words = message.decode(errors="replace").split(" ", 6)
    if len(words) != 7:
        return None
    try:
        former_life, former, life, now, sequence = map(int, words[:5])
        mark = Mark(sequence, float(words[5]))
    except ValueError:
        return None
    return News(Version(former_life, former), Version(life, now), words[6], mark)


def _understood(read: Callable[[], T]) -> T:
    try:
        return read()
    except (ValueError, TypeError, IndexError, AttributeError) as exc:
        # Somebody else's key: the same as having none, but for what is said.
        raise StoreUnavailable(f"the register of purges can't be read: {exc!r}") from exc
