"""On the configured store itself: Redis, or the SQLite file. Works while gateways run, and without."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gateway.cachecmd.desk import Trouble, operator
from gateway.core.selection import Selection, select
from gateway.store.base import StoreUnavailable
from gateway.store.generations import Generations
from gateway.store.inventory import Inventory, reach
from gateway.store.open import default_url, describe, open_store, scheme, sqlite_path
from gateway.store.registers import open_register
from gateway.telemetry.audit import audited

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway.cachecmd.desk import Wanted
    from gateway.config import Config
    from gateway.store.base import Store

_PATIENT_MS = 10_000.0


class Local:
    """A store that was opened for one command."""

    def __init__(self, store: Store, inventory: Inventory) -> None:
        """Both as `opened` makes them."""
        self._store = store
        self.inventory = inventory

    async def stats(self, limit: int) -> dict[str, Any]:
        """Counts."""
        with troubles():
            tally = await self.inventory.tally(limit=limit)
        generations = self.inventory.generations
        return {
            "store": self._store.name,
            **tally.told(),
            "purges": {"names": len(generations.marks), "sequence": generations.sequence},
        }

    async def entries(self, wanted: Wanted, limit: int) -> list[dict[str, Any]]:
        """Some of the entries."""
        shown: list[dict[str, Any]] = []
        with troubles():
            async for key, _, blob in self.inventory.entries(_selection(wanted)):
                told = self.inventory.told(key, blob)
                if told is not None:
                    shown.append(told)
                if len(shown) >= limit:
                    break
        return shown

    async def show(self, key: str) -> list[dict[str, Any]]:
        """The entries of a key."""
        with troubles():
            return await self.inventory.find(key)

    async def payload(self, key: str) -> bytes:
        """The answer under a key."""
        with troubles():
            payload = await self.inventory.payload(bytes.fromhex(key))
        audited("show payload", who=operator(), result="shown", key=key)
        return payload

    async def purge(self, wanted: Wanted, *, dry_run: bool) -> dict[str, Any]:
        """Count what is selected, and kill it unless `dry_run`."""
        selection = _selection(wanted)
        facts: dict[str, Any] = {"what": str(selection)}
        with troubles():
            tally = await self.inventory.tally(selection)
            facts |= {"entries": tally.scaled(tally.entries), "exact": tally.exact}
            if dry_run:
                return {**facts, "dry_run": True}
            try:
                sequence = await self.inventory.purge(selection)
            except StoreUnavailable as exc:
                audited("purge", who=operator(), result=f"failed: {exc}", **facts)
                raise
        audited("purge", who=operator(), result="purged", sequence=sequence, **facts)
        return {**facts, "dry_run": False, "sequence": sequence}

    async def reclaim(self) -> int:
        """Delete what is purged or lapsed."""
        with troubles():
            deleted = await self.inventory.reclaim()
        audited("reclaim", who=operator(), result="deleted", entries=deleted)
        return deleted

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()


async def opened(config: Config, environ: Mapping[str, str], *, create: bool = False) -> Local:
    """The desk of the configured store. Raises `Trouble`: it is not there, or only in memory.

    A SQLite file that is not there is made only with `create`: who runs this may be somebody else
    than who runs the gateway.
    """
    url = config.store.url or default_url(environ)
    kind = scheme(url)
    if kind == "memory":
        raise Trouble("the store is memory://: only the running gateway can see it")
    if kind == "sqlite" and not create and not sqlite_path(url).exists():
        raise Trouble(f"{describe(url)} is not there yet: no gateway has stored anything in it")
    patient = {"memory_bytes": 0, "deadline_ms": _PATIENT_MS}
    store = open_store(config.store.model_copy(update=patient), time.time, environ)
    with troubles():
        try:
            await store.start()
            generations = Generations(open_register(store, time.time))
            await reach(generations)
        except BaseException:
            await store.close()
            raise
    inventory = Inventory(store, generations, time.time, limit_bytes=config.cache.max_entry_bytes)
    return Local(store, inventory)


@contextmanager
def troubles() -> Iterator[None]:
    """What a store raises, in words for people."""
    try:
        yield
    except StoreUnavailable as exc:
        raise Trouble(f"the store did not answer: {exc}") from exc
    except LookupError as exc:
        raise Trouble(f"no entry lies under {exc}") from exc


def _selection(wanted: Wanted) -> Selection:
    try:
        return select(
            keys=wanted.keys,
            tags=wanted.tags,
            models=wanted.models,
            older_than_s=wanted.older_than_s,
            everything=wanted.everything,
            now=time.time(),
        )
    except ValueError as exc:
        raise Trouble(str(exc)) from exc
