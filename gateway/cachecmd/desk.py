"""Who carries out what an operator asks: the store itself, or a running gateway."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from typing import Any, Protocol


class Trouble(Exception):
    """It can't be done; in words for people."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is selected, as the command line says it."""

    keys: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    older_than_s: float | None = None
    everything: bool = False


class Desk(Protocol):
    """Every method raises `Trouble`, nothing else."""

    async def stats(self, limit: int) -> dict[str, Any]:
        """Counts, after a look at about `limit` entries."""

    async def entries(self, wanted: Wanted, limit: int) -> list[dict[str, Any]]:
        """Some of the entries, without payloads."""

    async def show(self, key: str) -> list[dict[str, Any]]:
        """The entries of a key of 8 to 64 hex digits, without payloads; empty for none."""

    async def payload(self, key: str) -> bytes:
        """The answer under a key of 64 hex digits."""

    async def purge(self, wanted: Wanted, *, dry_run: bool) -> dict[str, Any]:
        """`what` is selected, and how many `entries` that are (`exact` or about)."""

    async def reclaim(self) -> int:
        """Delete what is purged or lapsed; how many."""

    async def close(self) -> None:
        """Let go of what was opened."""


def operator() -> str:
    """The user of this process, for the audit line."""
    uid = os.getuid()
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
