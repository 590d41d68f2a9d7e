"""How many bytes requests may hold at once: their bodies, and what is recorded of their answers.

Rule 1: whoever holds bytes has a share, and a share is given back once, however its request ends.
Rule 2: what a request can do without (a recording) is refused first, so that a crowd of answers
keeps no request out.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from types import TracebackType

_MIB = 1 << 20

WITHOUT_A_LIMIT_BYTES = 512 * _MIB
"""The budget where nobody limits this process's memory."""

LEAST_BYTES = 16 * _MIB
_PART_OF_THE_CONTAINER = 4
"""A quarter: the rest is for the interpreter, the memory tier, and the parsed forms of bodies."""

_REST_BYTES = 112 * _MIB
"""What a small gateway holds beside its requests: itself, a small memory tier, what it learns."""
_AT_WORST = 3
"""How often the bytes of a request exist at the worst moment (docs/explanation/memory.md)."""

_OPTIONAL_PART = 0.75
"""How full optional takers may make the budget."""

# Version 1 writes "no limit" as the largest multiple of a page that fits into 63 bits.
_NO_LIMIT = 1 << 60


class Budget:
    """Counts bytes against a limit. No lock: for one event loop."""

    __slots__ = ("_used", "limit_bytes", "refusals")

    def __init__(self, limit_bytes: int) -> None:
        """Let at most `limit_bytes` be held at once."""
        self.limit_bytes = limit_bytes
        self.refusals = 0
        """How often there was no room."""
        self._used = 0

    def __repr__(self) -> str:
        return f"<Budget {self._used} of {self.limit_bytes} B, {self.refusals} refusals>"

    @property
    def used_bytes(self) -> int:
        """Bytes held now."""
        return self._used

    def take(self, size_bytes: int, *, optional: bool = False) -> bool:
        """Count so many bytes as held. False, and nothing is counted, where they don't fit."""
        # (`has_room`, in place: each request takes four times.)
        limit = self.limit_bytes * _OPTIONAL_PART if optional else self.limit_bytes
        if self._used + size_bytes > limit:
            self.refusals += 1
            return False
        self._used += size_bytes
        return True

    def has_room(self, size_bytes: int, *, optional: bool = False) -> bool:
        """Whether so many bytes would fit now."""
        limit = self.limit_bytes * _OPTIONAL_PART if optional else self.limit_bytes
        return self._used + size_bytes <= limit

    def give(self, size_bytes: int) -> None:
        """So many bytes are held no more."""
        self._used -= size_bytes

    def share(self, *, optional: bool = False) -> Share:
        """An empty share; `optional` for what its request can do without."""
        return Share(self, optional=optional)


class Share:
    """What one holder takes of a budget: it grows, and is given back as a whole, once.

    `with budget.share() as share:` gives it back in the end; so does `release`.
    """

    __slots__ = ("_optional", "_released", "budget", "held_bytes")

    def __init__(self, budget: Budget, *, optional: bool = False) -> None:
        """An empty one; `optional` leaves a quarter of the budget to others."""
        self.budget = budget
        self.held_bytes = 0
        self._optional = optional
        self._released = False

    def __repr__(self) -> str:
        return f"<Share {self.held_bytes} B of {self.budget!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def grow(self, size_bytes: int) -> bool:
        """Take so many bytes more. False, and the share is as it was, where there is no room, or
        where it was given back already.
        """
        if self._released or not self.budget.take(size_bytes, optional=self._optional):
            return False
        self.held_bytes += size_bytes
        return True

    def shrink_to(self, size_bytes: int) -> None:
        """Give back what is held beyond so many bytes, if anything."""
        surplus = self.held_bytes - size_bytes
        if surplus > 0:
            self.budget.give(surplus)
            self.held_bytes = size_bytes

    def release(self) -> None:
        """Give everything back. Again: nothing happens."""
        self._released = True
        if self.held_bytes:
            self.budget.give(self.held_bytes)
            self.held_bytes = 0


def default_limit(container_bytes: int | None) -> int:
    """The budget for a process that may use so much memory; None: nobody limits it.

    In a small container a quarter would be too much: what is beyond it is ended by the kernel, with
    all requests, and a 503 is better.
    """
    if container_bytes is None:
        return WITHOUT_A_LIMIT_BYTES
    beside = (container_bytes - _REST_BYTES) // _AT_WORST
    return max(LEAST_BYTES, min(container_bytes // _PART_OF_THE_CONTAINER, beside))


def container_bytes(root: Path = Path("/")) -> int | None:
    """How much memory the cgroups of this process allow it; None where they say nothing.

    `root` is where `proc` and `sys` are found.
    """
    limits: list[int] = []
    for group in cgroups("memory", root):
        limit = group.number("memory.max" if group.is_v2 else "memory.limit_in_bytes")
        if limit is not None and limit < _NO_LIMIT:
            limits.append(limit)
    return min(limits, default=None)


class Cgroup(NamedTuple):
    """One of those that this process is in."""

    folder: Path
    is_v2: bool

    def number(self, name: str) -> int | None:
        """What a file of it says; None where it isn't there, or says "max"."""
        try:
            return int((self.folder / name).read_text())
        except (OSError, ValueError):
            return None

    def table(self, name: str) -> dict[str, int]:
        """`name number` on each line of a file of it; nothing where it can't be read."""
        found: dict[str, int] = {}
        try:
            text = (self.folder / name).read_text()
        except (OSError, UnicodeError):
            return found
        for line in text.splitlines():
            word, _, number = line.partition(" ")
            if number.strip().isdecimal():
                found[word] = int(number)
        return found


def cgroups(controller: str, root: Path = Path("/")) -> list[Cgroup]:
    """Of one controller, from this process's own cgroup up to the top: the limits of each hold.

    In a container the path may be the host's, which is not visible there; the top is then its own.
    `root` is where `proc` and `sys` are found.
    """
    try:
        memberships = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found: list[Cgroup] = []
    for line in memberships:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            top = root / "sys/fs/cgroup" / controller
        else:
            continue
        cgroup = top / path.strip("/")
        found += [
            Cgroup(folder, not controllers)
            for folder in (cgroup, *cgroup.parents)
            if folder.is_relative_to(top)
        ]
    return found
