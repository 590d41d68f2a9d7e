"""`gateway simulate`: a provider's prompt cache on a port of this machine, until it is stopped."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from gateway.lab.provider_sim import NOW_HEADER, ProviderSim

if TYPE_CHECKING:
    from typing import TextIO

OK = 0
TROUBLE = 2


def run(
    provider: str, host: str, port: int, *, ttft_s: float, clock: str, out: TextIO, err: TextIO
) -> int:
    """Serve until SIGINT or SIGTERM; returns 0, or 2 if the port can't be had."""
    # With the header's clock time stands still but for what requests say.
    told = (lambda: 0.0) if clock == "header" else None
    sim = ProviderSim(provider=provider, ttft_s=ttft_s, clock=told)
    return asyncio.run(_serve(sim, host, port, out, err))


async def _serve(sim: ProviderSim, host: str, port: int, out: TextIO, err: TextIO) -> int:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    try:
        await sim.start(host, port)
    except OSError as problem:
        err.write(f"gateway: can't listen on {host}:{port}: {problem.strerror}\n")
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
