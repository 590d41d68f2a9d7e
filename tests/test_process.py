"""The process that serves, from outside: signals, limits, exit status."""

from __future__ import annotations

import subprocess
import sys


def test_a_low_limit_of_open_files_is_raised() -> None:
    program = (
        "import resource as r\n"
        "from gateway.process import allow_many_connections\n"
        "hard = r.getrlimit(r.RLIMIT_NOFILE)[1]\n"
        "r.setrlimit(r.RLIMIT_NOFILE, (64, hard))\n"
        "allow_many_connections()\n"
        "assert r.getrlimit(r.RLIMIT_NOFILE) == (hard, hard)\n"
        "allow_many_connections()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
