"""The ledger in Redis: one hash for each day, added to by one script.

    <prefix>{ledger}:<day>        "<provider> <model> <scope> <cause> <amount>" -> sum, in whole
                                  numbers; the parts of the name stand between unit separators
    <prefix>{ledger}:days         sorted set of the days that are there, by date
    <prefix>{ledger}:by:<writer>  the number of the writer's last batch; lapses

Rule 1: all of it has one hash slot, so that a batch is counted at once or not at all in a cluster too.
Rule 2: sums are Redis' own 64-bit integers (HINCRBY): Lua's numbers would round beyond 2^53.
Rule 3: the writer's number is written first. If Redis has no room for it, nothing else is done; and it is
taken back where nothing else may be done.
Rule 4: days have no lifetime of Redis' own, so that a `volatile-*` policy never evicts them.
"""

from __future__ import annotations

import asyncio
import time
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from gateway.core.days import day_of, number_of
from gateway.core.ledger import OTHER, Amounts, Line, fold
from gateway.store.base import StoreUnavailable
from gateway.store.ledger import Batch, Kept, Spoiled
from gateway.store.redis_line import obeyed

if TYPE_CHECKING:
    from collections.abc import Collection

    from gateway.store.redis import RedisStore
    from gateway.store.redis_line import Line as Connection
    from gateway.store.redis_node import Command

DEADLINE_S = 2.0
"""Of a write; nobody waits for it."""
READ_S = 30.0
MOST_FIELDS = 100_000
"""Of one day, by all gateways together; what is new beyond them goes to `_other`."""

_WRITER_S = 30 * 86_400
_DAYS_AT_ONCE = 16
_FIELDS_AT_ONCE = 500
_BETWEEN = "\x1f"
_PARTS = 5
# Their order in a hash's name never changes, as names do not.
_NAMES = Amounts._fields

# KEYS: the writer's number, the days, a hash for each day. ARGV: number, lifetime of the writer's, most
# fields; then for each hash: its date, how many lines; and for each of these: its name, that of
# `_other`, how many amounts, and of each what it is and by how much it grows. `times` is always there.
_ADD = """
if tonumber(ARGV[1]) <= tonumber(redis.call('GET', KEYS[1]) or '0') then return 0 end
for k = 2, #KEYS do
  local kind = redis.call('TYPE', KEYS[k]).ok
  local due = k == 2 and 'zset' or 'hash'
  if kind ~= 'none' and kind ~= due then
    return redis.error_reply('ERR ' .. KEYS[k] .. ' is no ' .. due)
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
local most, at, added, refused = tonumber(ARGV[3]), 4, 0, 0
for k = 3, #KEYS do
  local key, lines = KEYS[k], tonumber(ARGV[at + 1])
  redis.pcall('ZADD', KEYS[2], ARGV[at], string.sub(key, -10))
  at = at + 2
  for _ = 1, lines do
    local name, amounts = ARGV[at], tonumber(ARGV[at + 2])
    if redis.call('HLEN', key) + amounts > most
      and redis.call('HEXISTS', key, name .. '\\31times') == 0 then
      name = ARGV[at + 1]
    end
    for i = at + 3, at + 1 + 2 * amounts, 2 do
      local sum = redis.pcall('HINCRBY', key, name .. '\\31' .. ARGV[i], ARGV[i + 1])
      if type(sum) ~= 'table' then
        added = added + 1
      elseif added == 0 and not string.find(sum.err, 'integer') and not string.find(sum.err, 'overflow') then
        redis.call('SET', KEYS[1], ARGV[1] - 1, 'EX', ARGV[2])
        return sum
      else
        refused = refused + 1
      end
    end
    at = at + 3 + 2 * amounts
  end
end
return refused
"""


class RedisLedger:
    """The ledger that all gateways on one Redis and prefix share."""

    kind = "redis"
    lasting = True

    def __init__(self, store: RedisStore, *, most_fields: int = MOST_FIELDS) -> None:
        """Reached as the store is, over a connection of its own."""
        self._store = store
        self._base = store.named("{ledger}:")
        self._most_fields = most_fields
        self._connection: Connection | None = None
        # One question at a time.
        self._asking = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<RedisLedger {self._base}*>"

    async def add(self, batch: Batch) -> None:
        """See `LedgerStore`."""
        by_day: dict[str, list[list[str | int]]] = {}
        for line, amounts in batch.cells.items():
            by_day.setdefault(line.day, []).append(_words(line, amounts))
        if not by_day:
            return
        keys = [f"{self._base}by:{batch.writer}", f"{self._base}days"]
        keys += [self._base + day for day in by_day]
        words: list[str | int] = [batch.number, _WRITER_S, self._most_fields]
        for day, lines in by_day.items():
            words += [_score(day), len(lines), *chain.from_iterable(lines)]
        (refused,) = await self._ask([("EVAL", _ADD, len(keys), *keys, *words)], DEADLINE_S)
        if refused:
            raise Spoiled(f"{refused} sums of the ledger can't be added to: no numbers of ours")

    async def read(self, since: str, until: str) -> Kept:
        """See `LedgerStore`."""
        rows: list[tuple[Line, Amounts]] = []
        missing: list[str] = []
        there = await self._there(since, until)
        for start in range(0, len(there), _DAYS_AT_ONCE):
            some = there[start : start + _DAYS_AT_ONCE]
            replies = await self._ask([("HGETALL", self._base + day) for day in some], READ_S)
            for day, reply in zip(some, replies, strict=True):
                found = _rows(day, reply)
                rows += found
                if not found:
                    missing.append(day)
        return Kept(rows, missing)

    async def sums(self, since: str, until: str, by: Collection[str]) -> Kept:
        """See `LedgerStore`."""
        rows: list[tuple[Line, Amounts]] = []
        missing: list[str] = []
        for day in await self._there(since, until):
            # Given up to the thread: to free it takes long as well.
            whole = [await self._scanned(self._base + day)]
            found = await asyncio.to_thread(_sums, day, whole, by)
            rows += found
            if not found:
                missing.append(day)
        return Kept(rows, missing)

    async def today(self) -> str:
        """See `LedgerStore`: by the server's clock."""
        (told,) = await self._ask([("TIME",)], DEADLINE_S)
        return day_of(int(told[0]))

    async def forget(self, before: str) -> None:
        """See `LedgerStore`."""
        listed = ("ZRANGEBYSCORE", f"{self._base}days", "-inf", f"({_score(before)}")
        (old,) = await self._ask([listed], DEADLINE_S)
        for day in old:
            name = day.decode(errors="replace")
            await self._ask([("UNLINK", self._base + name)], DEADLINE_S)
            await self._ask([("ZREM", f"{self._base}days", name)], DEADLINE_S)

    async def close(self) -> None:
        """See `LedgerStore`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    async def _scanned(self, key: str) -> dict[bytes, bytes]:
        """All of a hash, in portions, of which neither Redis nor this loop feels anything."""
        found: dict[bytes, bytes] = {}
        cursor: Any = b"0"
        at_least = None
        while at_least is None or cursor != b"0":
            there, (cursor, words) = await self._ask(
                [("HLEN", key), ("HSCAN", key, cursor, "COUNT", _FIELDS_AT_ONCE)], READ_S
            )
            at_least = there if at_least is None else at_least
            # (One may come twice: what is said last holds.)
            found.update(zip(words[::2], words[1::2], strict=True))
        if len(found) < at_least:
            # Fields never go one by one: another server answered, or the day went meanwhile.
            raise StoreUnavailable(f"{key} changed its place while it was read")
        return found

    async def _there(self, since: str, until: str) -> list[str]:
        if number_of(since) > number_of(until):
            return []
        listed = ("ZRANGEBYSCORE", f"{self._base}days", _score(since), _score(until))
        (known,) = await self._ask([listed], READ_S)
        return sorted(each.decode(errors="replace") for each in known)

    async def _ask(self, commands: list[Command], deadline_s: float) -> list[Any]:
        async with self._asking:
            if self._connection is None or not self._connection.is_usable:
                await self.close()
                self._connection = await self._store.line(f"{self._base}days")
            try:
                return [obeyed(each) for each in await self._connection.ask(commands, deadline_s)]
            except StoreUnavailable:
                await self.close()
                raise


def _score(day: str) -> int:
    return int(day.replace("-", ""))


def _words(line: Line, amounts: Amounts) -> list[str | int]:
    """Its name, the one that it is folded into, how many amounts, and those that aren't 0."""
    there = [(what, by) for what, by in zip(_NAMES, amounts, strict=True) if by]
    folded = line._replace(model=OTHER, scope=OTHER)
    names = (_BETWEEN.join(line[1:]), _BETWEEN.join(folded[1:]))
    told: list[str | int] = [*names, len(there)]
    for pair in there:
        told += pair
    return told


def _rows(day: str, reply: Any) -> list[tuple[Line, Amounts]]:
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    sums: dict[Line, dict[str, int]] = {}
    for field, value in pairs:
        parts = field.decode(errors="replace").split(_BETWEEN)
        # What a later version adds is not for us.
        if len(parts) != _PARTS or parts[-1] not in _NAMES:
            continue
        try:
            sums.setdefault(Line(day, *parts[:-1]), {})[parts[-1]] = int(value)
        except ValueError:
            continue
    return [(line, Amounts(**amounts)) for line, amounts in sums.items()]


def _sums(
    day: str, whole: list[dict[bytes, bytes]], by: Collection[str]
) -> list[tuple[Line, Amounts]]:
    """`_rows` of the only hash, folded; it lets go of the hash. For a thread: it lets others run now
    and then, who would have to wait for their turn otherwise.
    """
    fields = iter(whole.pop().items())
    found: dict[Line, Amounts] = {}
    while some := dict(islice(fields, _FIELDS_AT_ONCE)):
        fold(found, _rows(day, some), by)
        time.sleep(0)
    return list(found.items())
