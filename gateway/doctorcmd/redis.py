"""Redis, asked as the gateway asks it: the same address, TLS and credentials, its own connection.

One key is written, read and deleted: `<store.key_prefix>doctor:<16 hex digits>`, with an expiry of five
seconds; nothing else is changed.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from copy import copy
from statistics import median
from typing import TYPE_CHECKING, Any

from redis.asyncio.sentinel import MasterNotFoundError
from redis.crc import key_slot
from redis.exceptions import InvalidResponse, RedisError, ResponseError

from gateway.doctorcmd.finding import fine, look, mend
from gateway.doctorcmd.redis_said import eviction, memory_use, persistence, version
from gateway.store.open import redis_access
from gateway.store.redis_address import Address
from gateway.store.redis_finders import ClusterFinder, ServiceFinder
from gateway.store.redis_replies import in_words, judge
from gateway.store.redis_topology import Shard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.config import Store
    from gateway.doctorcmd.clock import Clocks
    from gateway.doctorcmd.finding import Finding
    from gateway.store.connections import Abortable
    from gateway.store.redis_address import Place

_PINGS = 9
_LIVES_MS = 5000
_TRIES = 10_000
_ALL_SLOTS = 16_384
_HOW = {
    "tls": "see store.tls.*: the CA that signed the server's certificate, and the name in it",
    "not_authenticated": "see store.username and store.password (or the URL's)",
    "not_permitted": "give the ACL user the commands and keys of docs/explanation/redis.md, with the "
    "store.key_prefix that is configured",
    "loading": "wait: it reads its data from the disk",
    "late": "see whether it is overloaded, and whether a NetworkPolicy lets this pod out to it",
    "unreachable": "see that it runs, and that the URL's host and port are its own",
    "moving": "write redis+cluster:// in place of redis://, or look again where slots are moved",
    "read_only": "the URL names a replica: name the primary, or use redis+sentinel://",
    "cluster_down": "see CLUSTER INFO: slots without a primary",
    "full": "raise maxmemory, or set maxmemory-policy volatile-lru",
}


class RedisDoctor:
    """Everything about one store."""

    def __init__(self, settings: Store, url: str, clocks: Clocks, timeout_s: float) -> None:
        """Raises ValueError for a URL that can't be used."""
        self._settings = settings
        self._address = Address(url, redis_access(settings))
        self._clocks = clocks
        self._timeout_s = timeout_s

    async def look(self) -> list[Finding]:
        """Where the servers are, then each primary."""
        findings: list[Finding] = []
        try:
            shards = await self._found(findings)
        except (RedisError, OSError, TimeoutError) as problem:
            return [*findings, _not_found(self._address, problem)]
        slots: dict[Place, list[Shard]] = {}
        for shard in shards:
            slots.setdefault(shard.primary, []).append(shard)
        several = len(slots) > 1
        told = await asyncio.gather(
            *(
                self._server(f"store.redis.{place}" if several else "store.redis", place, its)
                for place, its in slots.items()
            )
        )
        return [*findings, *(finding for each in told for finding in each)]

    # --- where they are ---------------------------------------------------------------------------

    async def _found(self, findings: list[Finding]) -> Sequence[Shard]:
        match self._address.topology:
            case "sentinel":
                return await self._sentinels(findings)
            case "cluster":
                return await self._cluster(findings)
            case _:
                return (Shard(0, _ALL_SLOTS - 1, self._address.places[0]),)

    async def _sentinels(self, findings: list[Finding]) -> Sequence[Shard]:
        places = self._address.places
        answers = await asyncio.gather(*map(self._sentinel, places), return_exceptions=True)
        found = [each for each in answers if not isinstance(each, BaseException)]
        if not found:
            problem = answers[0]
            assert isinstance(problem, BaseException)
            raise problem
        named = {each[0].primary for each in found}
        silent = [
            str(place)
            for place, each in zip(places, answers, strict=True)
            if isinstance(each, BaseException)
        ]
        check, facts = "store.redis.topology", {"sentinels": len(places), "silent": silent}
        at = ", ".join(map(str, sorted(named)))
        said = f"{len(found)} of {len(places)} Sentinels name {at} as primary"
        if len(named) > 1:
            how = "wait for the failover to end; where that lasts, see SENTINEL CKQUORUM of each"
            findings.append(mend(check, f"{said}: they don't agree", how, **facts))
        elif silent:
            how = f"see {', '.join(silent)}: a failover needs most of them"
            findings.append(look(check, said, how, **facts))
        else:
            findings.append(fine(check, said, **facts))
        return found[0]

    async def _sentinel(self, place: Place) -> Sequence[Shard]:
        """What this one alone says."""
        alone = copy(self._address)
        alone.places = (place,)
        finder = ServiceFinder(alone)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await finder.find()
        finally:
            await finder.close()

    async def _cluster(self, findings: list[Finding]) -> Sequence[Shard]:
        finder = ClusterFinder(self._address)
        async with asyncio.timeout(self._timeout_s):
            shards = await finder.find()
        check = "store.redis.topology"
        covered = sum(shard.last - shard.first + 1 for shard in shards)
        primaries = {shard.primary for shard in shards}
        bare = sum(not shard.replicas for shard in shards)
        facts = {"primaries": len(primaries), "slots": covered, "shards_without_replica": bare}
        said = f"a Cluster of {len(primaries)} primaries"
        if covered < _ALL_SLOTS:
            findings.append(
                mend(
                    check,
                    f"{said}, and {_ALL_SLOTS - covered} of {_ALL_SLOTS} slots have none: entries "
                    "there are never found",
                    "redis-cli --cluster fix, or bring the missing servers back",
                    **facts,
                )
            )
        elif bare:
            findings.append(
                look(check, f"{said}, {bare} slot ranges have no replica", "add them", **facts)
            )
        else:
            findings.append(fine(check, f"{said}, all slots, replicas for each", **facts))
        return shards

    # --- one server -------------------------------------------------------------------------------

    async def _server(self, check: str, place: Place, shards: Sequence[Shard]) -> list[Finding]:
        connection = self._address.maker(place)()
        try:
            began = time.monotonic()
            async with asyncio.timeout(self._timeout_s):
                await connection.connect()  # type: ignore[no-untyped-call] # redis-py
            connect_s = time.monotonic() - began
            findings = [await self._latency(check, connection, connect_s)]
            findings += await self._info(check, connection)
            findings += await self._clock(str(place), connection)
            findings.append(await self._write(f"{check}.write", connection, shards))
        except (RedisError, OSError, TimeoutError) as problem:
            return [_troubled(check, problem, is_tls=self._address.is_tls)]
        finally:
            connection.abort()
        return findings

    async def _asked(self, connection: Abortable, *command: Any) -> Any:
        async with asyncio.timeout(self._timeout_s):
            await connection.send_command(*command, check_health=False)
            return await connection.read_response()

    async def _latency(self, check: str, connection: Abortable, connect_s: float) -> Finding:
        took = []
        for _ in range(_PINGS):
            began = time.monotonic()
            await self._asked(connection, "PING")
            took.append((time.monotonic() - began) * 1e3)
        usual, worst, deadline = median(took), max(took), self._settings.deadline_ms
        facts = {
            "ping_ms": round(usual, 2),
            "worst_ms": round(worst, 2),
            "connect_ms": round(connect_s * 1e3, 2),
            "deadline_ms": deadline,
        }
        said = f"PING takes {usual:.1f} ms, at most {worst:.1f} (store.deadline_ms {deadline:g})"
        name = f"{check}.latency"
        if usual > deadline:
            return mend(
                name,
                f"{said}: every lookup runs into its deadline and is a miss",
                "move Redis closer, see its SLOWLOG, or raise store.deadline_ms",
                **facts,
            )
        if worst > deadline / 2:
            how = "see its SLOWLOG and LATENCY DOCTOR, and this pod's CPU limit (host.cpu)"
            return look(name, f"{said}: some lookups will be late", how, **facts)
        return fine(name, said, **facts)

    async def _info(self, check: str, connection: Abortable) -> list[Finding]:
        try:
            raw = await self._asked(connection, "INFO")
        except ResponseError as problem:
            return [
                look(
                    f"{check}.info",
                    f"INFO is refused ({in_words(problem)}): version and eviction policy are not known",
                    "allow the ACL user +info, or see `INFO memory` yourself",
                )
            ]
        info = _fields(raw)
        is_one = self._address.topology == "one"
        found = [
            version(check, info, is_one=is_one),
            eviction(check, info),
            memory_use(check, info),
        ]
        found.append(persistence(check, info))
        if self._address.topology == "sentinel" and info.get("connected_slaves") == "0":
            said = "the primary has no replica: when it fails, nobody takes its place"
            found.append(look(f"{check}.replicas", said, "bring one back"))
        return found

    async def _clock(self, place: str, connection: Abortable) -> list[Finding]:
        before = time.time()
        try:
            seconds, micros = await self._asked(connection, "TIME")
        except ResponseError:
            return []
        middle = (before + time.time()) / 2
        self._clocks.said(f"Redis {place}", int(seconds) + int(micros) / 1e6, middle)
        return []

    def _name(self, shards: Sequence[Shard]) -> str:
        """Of a key that this server has to take."""
        for _ in range(_TRIES):
            name = f"{self._settings.key_prefix}doctor:{secrets.token_hex(8)}"
            slot = key_slot(name.encode())
            if any(each.first <= slot <= each.last for each in shards):
                return name
        raise RedisError("no key was found for its few slots")

    async def _write(self, check: str, connection: Abortable, shards: Sequence[Shard]) -> Finding:
        name = self._name(shards)
        try:
            await self._asked(connection, "SET", name, b"1", "PX", _LIVES_MS)
            read = await self._asked(connection, "GET", name)
            with suppress(ResponseError):
                await self._asked(connection, "UNLINK", name)
        except ResponseError as problem:
            return _troubled(check, problem)
        if read != b"1":
            return mend(
                check,
                "what was written could not be read back",
                "see whether it evicts at once (evicted_keys), or a proxy stands in between",
            )
        return fine(check, "a key under store.key_prefix was written, read and deleted")


def _not_found(address: Address, problem: Exception) -> Finding:
    """Why it isn't known where the servers are: mostly the URL's kind is not that of what listens."""
    check, said = "store.redis.topology", in_words(problem)
    if isinstance(problem, MasterNotFoundError):
        # (Its text has redis-py's objects in it.)
        at = ", ".join(map(str, address.places))
        return mend(
            check,
            f"no Sentinel at {at} names a primary of {address.service}",
            "see that they run and answer, and the name: redis-cli -p 26379 SENTINEL MASTERS",
            reason="no_primary",
        )
    if isinstance(problem, ResponseError) and "cluster support disabled" in said:
        how = "write redis:// in place of redis+cluster://"
        return mend(
            check, "a single server, and the URL takes it for a Cluster", how, reason="refused"
        )
    if isinstance(problem, ResponseError) and "unknown command 'SENTINEL'" in said:
        return mend(
            check,
            "the URL's hosts are no Sentinels, but Redis itself",
            "name the Sentinels' port (mostly 26379), or write redis:// in place of redis+sentinel://",
            reason="refused",
        )
    finding = _troubled(check, problem, is_tls=address.is_tls)
    if address.topology == "cluster" and finding.facts.get("reason") == "unreachable":
        how = f"{finding.mend}; where its nodes run, see CLUSTER INFO: they may have no slots yet"
        return mend(check, finding.said, how, **finding.facts)
    return finding


def _troubled(check: str, problem: Exception, *, is_tls: bool = False) -> Finding:
    if isinstance(problem, InvalidResponse):
        return mend(
            check,
            "what answers there does not speak as Redis does",
            "see the URL's host and port, and whether it wants TLS (rediss://)",
            reason="no_redis",
        )
    reason = judge(problem).reason
    how = _HOW.get(reason, "see its log")
    if reason == "late" and is_tls:
        how = f"see whether it speaks TLS at that port (else: redis:// for rediss://); {how}"
    elif reason == "unreachable" and not is_tls and _was_cut(problem):
        how = f"see whether it wants TLS at that port (then: rediss:// for redis://); {how}"
    return mend(check, f"{in_words(problem)} ({reason})", how, reason=reason)


def _was_cut(problem: Exception) -> bool:
    """Somebody listened, and ended the connection over what was said."""
    cause = problem.__cause__ or problem.__context__
    return not isinstance(cause, ConnectionRefusedError) and (
        isinstance(cause, ConnectionResetError) or "closed by server" in str(problem)
    )


def _fields(raw: Any) -> dict[str, str]:
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
    pairs = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}
