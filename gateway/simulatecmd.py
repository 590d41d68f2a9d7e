"""`gateway simulate`: a provider's prompt cache, or an engine, on a port, until it is stopped."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from gateway.lab.engine_server import EngineServer
from gateway.lab.provider_sim import NOW_HEADER, ProviderSim

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable
    from typing import TextIO

OK = 0
TROUBLE = 2
KILLED = 137
"""As a shell tells of a process that was killed."""


def run(
    provider: str, host: str, port: int, *, ttft_s: float, clock: str, out: TextIO, err: TextIO
) -> int:
    """Serve until SIGINT or SIGTERM; returns 0, or 2 if the port can't be had."""
    # With the header's clock time stands still but for what requests say.
    told = (lambda: 0.0) if clock == "header" else None
    sim = ProviderSim(provider=provider, ttft_s=ttft_s, clock=told)
    return asyncio.run(_serve(sim, host, port, out, err))


def run_engine(arguments: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Serve until SIGINT or SIGTERM; returns 0, 2 if the port can't be had, or 137 if it was told
    to die.
    """
    return asyncio.run(_serve_engine(arguments, out, err))


async def _serve(sim: ProviderSim, host: str, port: int, out: TextIO, err: TextIO) -> int:
    stopped = _stopped()
    if not await _has_started(sim.start, host, port, err):
        return TROUBLE
    base = sim.url if sim.provider == "anthropic" else sim.v1_url
    timed = f"; the time is what {NOW_HEADER} says" if sim.is_told else ""
    out.write(f"simulating {sim.provider} on {base} (each key has its own cache){timed}\n")
    out.flush()
    try:
        await stopped.wait()
    finally:
        await sim.stop()
    return OK


async def _serve_engine(arguments: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    engine = EngineServer(
        name=arguments.name,
        engine=arguments.engine,
        model=arguments.model,
        cache_tokens=arguments.cache_tokens,
        prefill_rate=arguments.prefill_rate,
        decode_s=arguments.decode_s,
        slots=arguments.slots,
        seed=arguments.seed,
        tells_cached=arguments.cache_report,
        old_names=arguments.old_metrics,
    )
    stopped = _stopped()
    engine.on_death = stopped.set
    if not await _has_started(engine.start, arguments.host, arguments.port, err):
        return TROUBLE
    said = f"{arguments.cache_tokens} tokens of cache, {arguments.prefill_rate:g} tokens/s"
    out.write(f"simulating {arguments.engine} on {engine.v1_url} ({said}), as {engine.name}\n")
    out.flush()
    try:
        await stopped.wait()
    finally:
        await engine.stop()
    return KILLED if engine.is_dead else OK


def _stopped() -> asyncio.Event:
    """Set when the process is told to end."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    return stopped


async def _has_started(
    start: Callable[[str, int], Awaitable[str]], host: str, port: int, err: TextIO
) -> bool:
    try:
        await start(host, port)
    except OSError as problem:
        err.write(f"gateway: can't listen on {host}:{port}: {problem.strerror}\n")
        return False
    return True
