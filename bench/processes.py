"""Servers under test: started on one core, their CPU time and memory read from the kernel."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.figures import read_stat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_STOP_S = 10.0
_SETTLE_S = 5.0


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def cores() -> tuple[int, str]:
    """The core of the servers under test, and the list (for taskset) of those of everything else."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        raise SystemExit("bench: needs two cores, one for the server under test alone")
    return available[0], ",".join(map(str, available[1:]))


class Process:
    """A server with its children, in a session of its own.

    `ready` is asked until it says so; the time that took is `start_s`.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        core: str,
        ready: Callable[[], bool],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        deadline_s: float = 20.0,
    ) -> None:
        self.name = name
        began = time.monotonic()
        taskset = shutil.which("taskset")
        if taskset is None:
            raise SystemExit("bench: needs taskset (Debian: util-linux)")
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [taskset, "-c", core, *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(os.environ if env is None else env),
                cwd=cwd,
                start_new_session=True,
            )
        while not ready():
            if self._process.poll() is not None or time.monotonic() - began > deadline_s:
                self.stop()
                raise RuntimeError(
                    f"{name} does not start:\n{log.read_text(errors='replace')[-2000:]}"
                )
            time.sleep(0.005)
        self.start_s = time.monotonic() - began

    def cpu_us(self) -> float:
        """User and system time of all its processes so far."""
        return sum(stat * _TICK_US for stat in (self._ticks(pid) for pid in self._pids()))

    def settle(self) -> None:
        """Wait until it has nothing left to do: what a load leaves behind when it ends (requests
        whose clients are gone) must not be counted to what comes next.
        """
        until = time.monotonic() + _SETTLE_S
        spent = self.cpu_us()
        while time.monotonic() < until:
            time.sleep(0.05)
            before, spent = spent, self.cpu_us()
            if spent - before <= _TICK_US:
                return

    def rss_bytes(self) -> int:
        """Resident memory of all its processes; shared pages count in each."""
        total = 0
        for pid in self._pids():
            with contextlib.suppress(OSError):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
        return total

    def stop(self) -> None:
        """End the whole session, and wait for it."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_S)
                break

    def _pids(self) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError, ValueError, IndexError):
                    if read_stat((entry / "stat").read_text()).session == self._process.pid:
                        found.append(int(entry.name))
        return found

    @staticmethod
    def _ticks(pid: int) -> int:
        try:
            return read_stat(Path(f"/proc/{pid}/stat").read_text()).ticks
        except OSError:
            return 0


def listens(port: int) -> Callable[[], bool]:
    """Is there somebody at the port?"""

    def ready() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    return ready


def answers(port: int, path: str) -> Callable[[], bool]:
    """Does it answer 200 to a GET?"""

    def ready() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as to:
            to.settimeout(5)
            to.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
            return b" 200 " in to.recv(64)
        return False

    return ready
