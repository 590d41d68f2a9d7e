"""All groups of checks beside each other; one that fails by itself says so, and keeps nothing from the rest."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.doctorcmd.arguments import GROUPS
from gateway.doctorcmd.clock import Clocks, clock
from gateway.doctorcmd.finding import fine, look, mend, skipped
from gateway.doctorcmd.host import host
from gateway.doctorcmd.local import in_memory, in_sqlite
from gateway.doctorcmd.otlp import otlp
from gateway.doctorcmd.running import running
from gateway.doctorcmd.upstreams import Upstreams
from gateway.store.open import default_url, scheme

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from gateway.config import Config
    from gateway.doctorcmd.finding import Finding
    from gateway.errors import ConfigError

_TOGETHER_S = 240.0
"""However many replicas there are: a group that is not done by then is given up."""


async def examine(
    config: Config | ConfigError,
    environ: Mapping[str, str],
    *,
    skip: Collection[str] = (),
    timeout_s: float = 5.0,
    root: Path = Path("/"),
) -> list[Finding]:
    """Every finding, in a fixed order. `skip` are names of `GROUPS`; `timeout_s` bounds each step."""
    if isinstance(config, Exception):
        found = [_faulty(config)]
        if "host" not in skip:
            found += host(None, root)
        others = [name for name in GROUPS if name != "host" and name not in skip]
        return [*found, *(skipped(name, "the config can't be read") for name in others)]
    clocks = Clocks()
    asked: dict[str, Callable[[], Awaitable[list[Finding]]]] = {
        "gateway": lambda: running(config, timeout_s),
        "upstreams": lambda: Upstreams(
            config, clocks, environ, timeout_s=timeout_s, engines="engines" not in skip
        ).look(),
        "store": lambda: _store(config, environ, clocks, timeout_s),
        "otlp": lambda: otlp(config, environ, timeout_s),
    }
    names = [name for name in asked if name not in skip]
    groups = await asyncio.gather(*(_group(name, asked[name]) for name in names))
    found = [_config(config)]
    if "host" not in skip:
        found += host(config, root)
    found += [finding for group in groups for finding in group]
    if "clock" not in skip:
        found.append(clock(clocks))
    return found


def _config(config: Config) -> Finding:
    upstreams = len(config.upstreams)
    generation = config.generation()
    said = f"generation {generation}, {upstreams} upstreams, {len(config.routes)} routes"
    return fine("config", said, generation=generation)


def _faulty(error: ConfigError) -> Finding:
    faults = error.faults
    shown = "; ".join(f"{fault.path}: {fault.problem}" for fault in faults[:5])
    return mend(
        "config",
        f"{len(faults)} {'fault' if len(faults) == 1 else 'faults'}: {shown}",
        "; ".join(dict.fromkeys(fault.mend for fault in faults[:5])) + " (all: gateway check)",
        faults=[
            {"path": str(fault.path), "problem": fault.problem, "mend": fault.mend}
            for fault in faults
        ],
    )


async def _group(name: str, asks: Callable[[], Awaitable[list[Finding]]]) -> list[Finding]:
    try:
        async with asyncio.timeout(_TOGETHER_S):
            return await asks()
    except TimeoutError:
        said = f"not done in {_TOGETHER_S:g} s"
    except Exception as problem:  # noqa: BLE001 - a fault of ours hides nothing of the others
        # Without its text: it may hold anything.
        said = f"this check failed itself: {type(problem).__name__}"
    return [look(name, said, "look again; where it stays so, tell us, with `gateway --version`")]


async def _store(
    config: Config, environ: Mapping[str, str], clocks: Clocks, timeout_s: float
) -> list[Finding]:
    try:
        url = config.store.url or default_url(environ)
    except RuntimeError:
        said = f"uid {os.getuid()} has no home folder, which is where SQLite would be"
        return [mend("store", said, "set store.url, or HOME")]
    match scheme(url):
        case "memory":
            return [in_memory()]
        case "sqlite":
            return [in_sqlite(url, config.store.sqlite_bytes)]
        case _:
            from gateway.doctorcmd.redis import RedisDoctor  # noqa: PLC0415 - only for such a store

            try:
                doctor = RedisDoctor(config.store, url, clocks, timeout_s)
            except ValueError as problem:
                how = "see store.url, store.tls.* and what stands beside them"
                return [mend("store.redis", str(problem), how)]
            return await doctor.look()
