"""A container as a process: an image's file system, namespaces, a user, and no more rights than told.

What a container runtime does with a Linux machine, by the machine's own calls: a mount namespace with
the root read-only and volumes on top, a process namespace in which the program is number 1, the pod's
network, a memory limit by cgroup, no capabilities. Only the seccomp filter is not applied. Run as a
program this file is the step between `unshare` and the image's entry point.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

STARTED_S = 10.0
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
_MEMORY = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max", "memory.peak"),
)


def why_not() -> str | None:
    """Why this machine cannot run containers, if it cannot."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "namespaces take Linux and root"
    tried = subprocess.run(
        ("unshare", "--mount", "--net", "--pid", "--fork", "mount", "-t", "tmpfs", "x", "/mnt"),
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    return tried.stderr.strip() or None


@dataclass(frozen=True)
class Mount:
    """Something that the container sees at `target`; `source` is a path, or empty for a tmpfs."""

    target: str
    source: str = ""
    read_only: bool = False
    size_bytes: int | None = None


@dataclass(frozen=True)
class Process:
    """What is to run, and with which rights."""

    root: str
    argv: list[str]
    env: dict[str, str]
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    mounts: list[Mount] = field(default_factory=list)
    read_only_root: bool = False
    no_new_privileges: bool = False
    drop_all: bool = False
    memory_bytes: int | None = None


class Container:
    """Runs from the moment it is made. Threads may wait for it and send it signals."""

    def __init__(self, process: Process, folder: Path, network: Sequence[str] = ()) -> None:
        """`network` goes before the command: `nsenter --net=...`; `folder` takes its log."""
        folder.mkdir(parents=True)
        self._log = folder / "log"
        self.memory = _memory_group(folder, process.memory_bytes)
        told = folder / "process.json"
        spare = folder / "spare"
        spare.mkdir()
        details = asdict(process) | {
            "spare": str(spare),
            "cgroup": str(self.memory[0]) if self.memory else "",
        }
        told.write_text(json.dumps(details))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *network,
                    *("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"),
                    *("--propagation", "private", "--"),
                    *(sys.executable, "-I", "-S", __file__, str(told)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.ended = threading.Event()
        self.ended_at = 0.0
        self._waiter = threading.Thread(target=self._wait, daemon=True)
        self._waiter.start()

    @property
    def status(self) -> int | None:
        """The exit status of its program; negative after a signal, None while it runs."""
        return self._process.returncode

    def output(self) -> str:
        """All that it printed."""
        return self._log.read_text(errors="replace")

    def pid(self) -> int:
        """Of its first process, as this machine counts."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        deadline = time.monotonic() + STARTED_S
        while not self.ended.is_set() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if found := children.read_text().split():
                    return int(found[0])
            self.ended.wait(0.005)
        raise ProcessLookupError(f"it is gone, with status {self.status}:\n{self.output()}")

    def send(self, number: signal.Signals) -> None:
        """A signal to its first process, as a runtime sends it; nothing if it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid(), number)

    def peak_bytes(self) -> int | None:
        """The most memory it has held, page cache included; None where no cgroup counts it."""
        if self.memory is None:
            return None
        group, peak = self.memory
        return int((group / peak).read_text())

    def close(self) -> None:
        """Ends it at once, and takes its cgroup away."""
        if not self.ended.is_set():
            self.send(signal.SIGKILL)
        if not self.ended.wait(STARTED_S):
            self._process.kill()
        self._waiter.join(STARTED_S)
        group, self.memory = self.memory, None
        deadline = time.monotonic() + 1
        while group is not None and group[0].exists() and time.monotonic() < deadline:
            # The kernel may still be taking its last process apart.
            with contextlib.suppress(OSError):
                group[0].rmdir()

    def _wait(self) -> None:
        self._process.wait()
        self.ended_at = time.monotonic()
        self.ended.set()


def _memory_group(folder: Path, limit: int | None) -> tuple[Path, str] | None:
    """A cgroup with that limit, and the file that tells its peak; None where none can be made."""
    for parent, limit_file, peak_file in _MEMORY:
        if limit is None or not (parent / "cgroup.procs").exists():
            continue
        group = parent / f"warmgate-{os.getpid()}-{abs(hash(str(folder)))}"
        with contextlib.suppress(OSError):
            group.mkdir()
            try:
                (group / limit_file).write_text(str(limit))
            except OSError:
                group.rmdir()
                continue
            return group, peak_file
    return None


# From here on: what runs between `unshare` and the program, without anything of the tests.


def _enter(told: dict[str, Any]) -> None:
    if told["cgroup"]:
        Path(told["cgroup"], "cgroup.procs").write_text("0")
    root = _file_system(told)
    os.chroot(root)
    os.chdir(told["cwd"])
    libc = ctypes.CDLL(None, use_errno=True)
    if told["drop_all"]:
        capability = 0
        while libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
            capability += 1
    os.setgroups([])
    os.setresgid(told["gid"], told["gid"], told["gid"])
    os.setresuid(told["uid"], told["uid"], told["uid"])
    if told["no_new_privileges"]:
        assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    # A runtime looks the program up in the container's own PATH.
    program = told["argv"][0]
    for folder in told["env"].get("PATH", "").split(":"):
        if "/" not in program and os.access(f"{folder}/{program}", os.X_OK):
            program = f"{folder}/{program}"
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.execve(program, told["argv"], told["env"])


def _file_system(told: dict[str, Any]) -> str:
    spare = told["spare"]
    _mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", spare)
    root = f"{spare}/root"
    for name in ("root", "upper", "work"):
        Path(spare, name).mkdir()
    # Where volumes go is made in a layer of its own: the image stays as it is.
    layers = f"lowerdir={told['root']},upperdir={spare}/upper,workdir={spare}/work"
    _mount("-t", "overlay", "-o", layers, "overlay", root)
    for name in ("proc", "dev"):
        Path(root, name).mkdir(exist_ok=True)
    _mount("-t", "proc", "-o", "nosuid,nodev,noexec", "proc", f"{root}/proc")
    _mount("-t", "tmpfs", "-o", "mode=0755,size=64k", "tmpfs", f"{root}/dev")
    for name in ("null", "zero", "random", "urandom"):
        Path(root, "dev", name).touch()
        _mount("--bind", f"/dev/{name}", f"{root}/dev/{name}")
    for mount in told["mounts"]:
        place = Path(root, mount["target"].lstrip("/"))
        if mount["source"]:
            if Path(mount["source"]).is_dir():
                place.mkdir(parents=True, exist_ok=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.touch()
            _mount("--bind", mount["source"], str(place))
            if mount["read_only"]:
                _mount("-o", "remount,bind,ro", str(place))
        else:
            place.mkdir(parents=True, exist_ok=True)
            size = f",size={mount['size_bytes']}" if mount["size_bytes"] else ""
            _mount("-t", "tmpfs", "-o", f"mode=0777{size}", "tmpfs", str(place))
    if told["read_only_root"]:
        _mount("-o", "remount,ro", root)
    return root


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    _enter(json.loads(Path(sys.argv[1]).read_text()))
