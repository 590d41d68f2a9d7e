"""The process that serves: its signals, its memory, its limits, its exit status."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from typing import TYPE_CHECKING

from gateway import __version__
from gateway.app import start
from gateway.config.redaction import secrets_in
from gateway.telemetry.logs import drain_log, setup_logging
from gateway.telemetry.uncaught import hear_uncaught

if TYPE_CHECKING:
    from gateway.app import RunningGateway
    from gateway.config import Config
    from gateway.config.source import Source

# mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGE_BLOCK_BYTES = 512 * 1024
_KEPT_FREE_BYTES = 16 * 1024 * 1024
# How many containers more than went may be made before the collector looks at the new ones.
_YOUNG = 10_000
_CUT_S = 2.0
_LOG_S = 1.0


def serve(config: Config, source: Source | None = None) -> int:
    """Run until SIGTERM or SIGINT; returns the exit status. `source` is where the config came from: it
    is read again on SIGHUP, and when its files change.
    """
    fill_closed_streams()
    # What was imported stays: the collector need not walk it again and again. Nor a body while it is
    # read: that makes thousands of containers, and no ordinary request leaves a cycle behind.
    gc.freeze()
    gc.set_threshold(_YOUNG)
    setup_logging(config.log.level, config.log.format, secrets=secrets_in(config))
    hear_uncaught()
    allow_many_connections()
    give_large_blocks_back()
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        loop_factory = asyncio.new_event_loop
    else:
        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        status = runner.run(_serve(config, source))
    drain_log(_LOG_S)
    return status


def fill_closed_streams() -> None:
    """Open the void where stdin, stdout or stderr was closed: the next connection would get its number,
    and be written to by whoever means stderr (libuv ends the process rather than close one of these).
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free.
            os.open(os.devnull, os.O_RDWR)
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


def give_large_blocks_back() -> None:
    """Let glibc return blocks of half a MiB and more to the system when they are freed.

    Left to itself it raises that size to the largest block it has seen freed, up to 32 MiB, and keeps
    what is smaller, for each thread apart: four clients with answers of 1 MiB held 100 MiB more.
    Some free memory at the heap's end is kept: otherwise bodies of 100 KiB and more have the system
    take it back and clear it anew for each request, at a tenth of a large one's price.
    """
    _glibc("mallopt", _M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)
    _glibc("mallopt", _M_TRIM_THRESHOLD, _KEPT_FREE_BYTES)


def _glibc(function: str, *numbers: int) -> None:
    try:
        import ctypes  # noqa: PLC0415 - only where there is a glibc

        getattr(ctypes.CDLL(None), function)(*numbers)
    except (ImportError, OSError, AttributeError):
        # Another C library: it has its own ways.
        return


def allow_many_connections() -> None:
    """Raise the soft limit of open files to the hard one: each request holds two connections, and
    the usual soft limit of 1024 is kept low for programs that use select().
    """
    try:
        import resource  # noqa: PLC0415 - not on every platform
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Ending:
    """What signals have said so far: the first one to end, the second one to end at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._told = asyncio.Event()
        self._on_terminal = _has_terminal()
        self.gateway: RunningGateway | None = None

    def signalled(self) -> None:
        """By SIGTERM or SIGINT."""
        if not self._told.is_set():
            self._told.set()
            return
        if self.gateway is not None:
            self.gateway.cut()
        # What we have ourselves to write and to close has so long; nothing depends on it.
        self._loop.call_later(_CUT_S, _leave)

    def hung_up(self) -> None:
        """By SIGHUP: the config is read again. From a terminal that is gone it means the end, as ever."""
        if self._on_terminal and not _has_terminal():
            self.signalled()
        elif self.gateway is not None:
            self.gateway.reloading.ask()

    async def wait(self) -> None:
        """Until the first one."""
        await self._told.wait()


def _has_terminal() -> bool:
    return any(map(os.isatty, (0, 1, 2)))


def _log_by(held: Config, read: Config) -> None:
    """Log by another config. What was a secret before still is: requests that know it may run."""
    setup_logging(read.log.level, held.log.format, secrets=secrets_in(held) | secrets_in(read))


def _leave() -> None:
    drain_log(_LOG_S, "gateway: ended at once, as a second signal said\n")
    os._exit(1)


async def _serve(config: Config, source: Source | None) -> int:
    loop = asyncio.get_running_loop()
    ending = _Ending(loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.signalled)
    loop.add_signal_handler(signal.SIGHUP, ending.hung_up)
    try:
        gateway = ending.gateway = await start(config, source=source)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"gateway: can't start: {error}\n")
        return 1
    gateway.reloading.on_applied = _log_by
    sys.stdout.write(_greeting(gateway))
    sys.stdout.flush()
    # Nor what was built at start. What starting took beside that is given back: where modules
    # had to be compiled, up to 20 MB.
    gc.collect()
    gc.freeze()
    _glibc("malloc_trim", 0)
    await ending.wait()
    await gateway.stop()
    return 0


def _greeting(gateway: RunningGateway) -> str:
    page = f"See what it does: {gateway.admin_url}/admin/\n\n" if gateway.admin_url else ""
    return (
        f"warmgate {__version__} listening on {gateway.api_url} (probes {gateway.probe_url})\n"
        "Paste into the shell of your app:\n\n"
        f"  export OPENAI_BASE_URL={gateway.api_url}/v1\n"
        f"  export ANTHROPIC_BASE_URL={gateway.api_url}\n\n"
        f"{page}"
    )
