"""Who tells what was paid and saved: the configured store itself, or a running gateway."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from gateway.cachecmd.desk import Trouble
from gateway.core.days import day_of
from gateway.core.period import period
from gateway.core.savings import told
from gateway.store.base import StoreUnavailable
from gateway.store.ledger import open_ledger
from gateway.store.open import default_url, describe, open_store, scheme, sqlite_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gateway.config import Config

__all__ = ["Trouble", "savings"]

_PATIENT_MS = 10_000.0


async def savings(
    config: Config,
    environ: Mapping[str, str],
    *,
    since: str,
    until: str,
    by: Sequence[str],
    admin_url: str | None,
) -> dict[str, Any]:
    """As `GET /admin/savings` answers; `admin_url` is that of the gateway to ask. What only lies in
    a gateway's memory is asked of the one that the config is of. Raises `Trouble`.
    """
    try:
        first, last = period(since, until, day_of(time.time()))
    except ValueError as exc:
        raise Trouble(str(exc)) from exc
    kind = scheme(config.store.url or default_url(environ))
    if admin_url or kind == "memory":
        return await _asked(config, first, last, by, admin_url)
    return await _read(config, environ, first, last, by)


async def _asked(
    config: Config, since: str, until: str, by: Sequence[str], url: str | None
) -> dict[str, Any]:
    from gateway.cachecmd.remote import Remote, admin_url  # noqa: PLC0415 - only this way pays for it

    token = config.admin.token.get_secret_value() if config.admin.token else None
    return await Remote(url or admin_url(config), token).savings(since, until, by)


async def _read(
    config: Config, environ: Mapping[str, str], since: str, until: str, by: Sequence[str]
) -> dict[str, Any]:
    url = config.store.url or default_url(environ)
    if scheme(url) == "sqlite" and not _is_there(sqlite_path(url)):
        raise Trouble(f"{describe(url)} is not there yet: no gateway has stored anything in it")
    patient = {"memory_bytes": 0, "deadline_ms": _PATIENT_MS}
    store = open_store(config.store.model_copy(update=patient), time.time, environ)
    try:
        ledger = open_ledger(store)
        try:
            kept = await ledger.read(since, until)
        finally:
            await ledger.close()
    except StoreUnavailable as exc:
        raise Trouble(f"the store did not answer: {exc}") from exc
    finally:
        await store.close()
    return told(kept.rows, since, until, by) | {
        "kept_in": ledger.kind,
        "lasting": ledger.lasting,
        "missing_days": kept.missing,
        "unwritten": {"lines": 0, "for_s": None},
    }


def _is_there(store: Path) -> bool:
    # (The ledger outlives a store that is deleted to empty the cache.)
    from gateway.store.ledger_sqlite import beside  # noqa: PLC0415 - only for SQLite

    return store.exists() or beside(store).exists()
