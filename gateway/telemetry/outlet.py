"""Where lines leave the process: a pipe that nobody reads holds up nobody.

A pipe takes 64 KiB, and who writes more then waits until somebody reads: a runtime that stands still, a
`| less`, a terminal after Ctrl-S. The loop must not. So it is asked first whether the next piece would have
to wait; where it would, a thread waits in its place, and lines are kept for it as far as there is room.
"""

from __future__ import annotations

import os
import select
import stat
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

_PIECE_BYTES = 4096
"""PIPE_BUF: a pipe that says that it can be written takes so much at once (pipe(7))."""
_KEPT_BYTES = 1024 * 1024
_LOOK_MS = 1000


class Outlet:
    """Writes whole lines to a stream, in their order, from any thread. Never waits, never throws."""

    def __init__(
        self, stream: TextIO, told_lost: Callable[[int], None], kept_bytes: int = _KEPT_BYTES
    ) -> None:
        """`told_lost` is called, from a thread, with how many lines there was no room for."""
        self.stream = stream
        self._told_lost = told_lost
        self.lost_lines = 0
        """All that there was no room for."""
        self._most = kept_bytes
        self._lock = threading.Lock()
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._untold = 0
        self._done = threading.Event()
        """Nothing is kept, and no thread writes."""
        self._done.set()
        descriptor = _descriptor(stream)
        self._is_text = descriptor is None
        self._poll: select.poll | None = None
        if descriptor is not None and not _is_file(descriptor):
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLOUT)

    def write(self, text: str) -> None:
        """A line, with its end."""
        with self._lock:
            if self._is_text:
                with suppress(OSError, ValueError):
                    self.stream.write(text)
                    self.stream.flush()
                return
            line = text.encode("utf-8", "backslashreplace")
            if self._done.is_set() and not self._kept and not (line := self._written(line)):
                return
            # (The rest of a line whose beginning is out is the first.)
            if self._kept and self._kept_bytes + len(line) > self._most:
                self.lost_lines += 1
                self._untold += 1
                return
            self._kept.append(line)
            self._kept_bytes += len(line)
            if self._done.is_set():
                self._begin()

    def drain(self, timeout_s: float) -> bool:
        """Wait until all is written; False if nobody reads in that time."""
        return self._done.wait(timeout_s)

    def _begin(self) -> None:
        self._done.clear()
        try:
            threading.Thread(target=self._wait_and_write, name="warmgate-log", daemon=True).start()
        except RuntimeError:
            # No thread to be had: what is kept goes with the next line.
            self._done.set()

    def _written(self, line: bytes, wait_ms: int = 0) -> bytes:
        """What is left of a line that is written as far as that needs no longer waiting."""
        while line:
            try:
                # (Of a stream that was closed it throws, where its number may be another's by now.)
                at = self.stream.fileno()
                if self._poll is not None and not self._poll.poll(wait_ms):
                    return line
                line = line[os.write(at, line if self._poll is None else line[:_PIECE_BYTES]) :]
            except BlockingIOError:
                # Somebody else, who shares it, was quicker.
                return line
            except BrokenPipeError:
                self._redirect()
                return b""
            except (OSError, ValueError):
                return b""  # a full disk, a closed stream: nowhere left to say so
        return line

    def _wait_and_write(self) -> None:
        lost = None
        while lost is None:
            with self._lock:
                left = self._kept[0]
            while left:
                left = self._written(left, _LOOK_MS)
            with self._lock:
                self._kept_bytes -= len(self._kept.popleft())
                if not self._kept:
                    lost, self._untold = self._untold, 0
                    self._done.set()
        if lost:
            self._told_lost(lost)

    def _redirect(self) -> None:
        """Point the descriptor at the void, as Python's notes on SIGPIPE advise: the text left in
        the stream's buffer would otherwise fail again at exit and change the exit code.
        """
        with suppress(OSError, ValueError):
            void = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(void, self.stream.fileno())
            finally:
                os.close(void)


def _descriptor(stream: TextIO) -> int | None:
    """None of a stream that is text in memory."""
    try:
        stream.flush()
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _is_file(descriptor: int) -> bool:
    """One that can't be waited for."""
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False
