"""Stores without a server: SQLite's folder and room, memory's limits."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from gateway.doctorcmd.finding import fine, look, mend
from gateway.store.open import describe, sqlite_path

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.doctorcmd.finding import Finding

_MIB = 1 << 20


def in_memory() -> Finding:
    """What a store that is only memory means."""
    return fine(
        "store", "memory://: answers and ledger end with the process, and nobody shares them"
    )


def in_sqlite(url: str, budget_bytes: int) -> Finding:
    """Whether the file can be written, and has the room that it may take."""
    file = sqlite_path(url).absolute()
    shown = describe(url)
    folder = _nearest(file.parent)
    if not os.access(folder, os.W_OK | os.X_OK):
        return mend(
            "store.sqlite",
            f"{shown}: uid {os.getuid()} may not write into {folder}",
            "mount a volume there (emptyDir, with fsGroup), or set store.url to another place, or "
            "memory://",
        )
    if file.exists() and not os.access(file, os.R_OK | os.W_OK):
        return mend(
            "store.sqlite",
            f"{shown}: uid {os.getuid()} may not read and write it",
            f"chown it to uid {os.getuid()}",
        )
    there = file.stat().st_size if file.exists() else 0
    free = shutil.disk_usage(folder).free
    facts = {"bytes": there, "free_bytes": free, "budget_bytes": budget_bytes}
    said = f"{shown}: {there / _MIB:,.0f} MiB, {free / _MIB:,.0f} MiB free"
    if free + there < budget_bytes:
        return look(
            "store.sqlite",
            f"{said}, and store.sqlite_bytes lets it grow to {budget_bytes / _MIB:,.0f} MiB",
            "lower store.sqlite_bytes, or give it more room",
            **facts,
        )
    return fine("store.sqlite", said, **facts)


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists: the gateway makes the rest."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder
