"""What tests have from npm, as their lock file says it; without lifecycle scripts."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def install(folder: Path) -> str | None:
    """Sees to it that the folder's packages are in it; returns why where that does not work."""
    lock_file = folder / "package-lock.json"
    # Which lock file they came from: after a change of it they are fetched anew.
    done = folder / "node_modules/.installed-lock.json"
    # Two runs of the tests in one checkout must not install at the same time.
    with lock_file.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = lock.read()
        if done.exists() and done.read_text() == wanted:
            return None
        if reason := _fetch(folder):
            return reason
        done.write_text(wanted)
    return None


def _fetch(folder: Path) -> str | None:
    """Fetches the packages; returns why where that does not work."""
    npm = shutil.which("npm")
    if npm is None:
        return "there is no npm to fetch it with"
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=90, check=False
        )
    except subprocess.TimeoutExpired:
        return "npm ci did not end within 90 s"
    if done.returncode:
        return f"npm ci failed: {done.stderr.strip()[-300:]}"
    return None
