"""A file system of a few megabytes that can be full and read-only: a tmpfs, which takes root."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.helpers.required import missing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SUDO = () if os.geteuid() == 0 else ("sudo", "-n")


class SmallDisk:
    """Mounted at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def filler(self) -> Path:
        """The file that takes what is left."""
        return self.path / "filler"

    def fill(self) -> None:
        """Until not a byte is free."""
        with self.filler.open("ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    def free(self) -> None:
        """What `fill` took is free again."""
        self.filler.unlink()

    def read_only(self, *, on: bool) -> None:
        """Nothing may be open for writing when it is turned on."""
        _run("mount", "-o", f"remount,{'ro' if on else 'rw'}", str(self.path))


@contextmanager
def small_disk(path: Path, size_mb: int) -> Iterator[SmallDisk]:
    """An empty one; skips the test (or fails it in CI) where none can be mounted."""
    path.mkdir()
    options = f"size={size_mb}m,uid={os.geteuid()},gid={os.getegid()},mode=0700"
    try:
        _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path))
    except (OSError, subprocess.CalledProcessError) as problem:
        missing("mount", f"a tmpfs can't be mounted: {problem}")
    try:
        yield SmallDisk(path)
    finally:
        _run("umount", "--lazy", str(path))


def _run(*command: str) -> None:
    subprocess.run((*_SUDO, *command), check=True, capture_output=True, timeout=10)
