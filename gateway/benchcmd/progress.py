"""How far it is, on stderr: with rich where it is installed, else in plain letters, and not at all
where nobody looks.
"""

from __future__ import annotations

from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

_BAR = 30


class Progress(Protocol):
    """Told of each request and of each case."""

    def at(self, what: str) -> None:
        """This is measured from now on."""

    def step(self) -> None:
        """One request is done."""


@contextmanager
def showing(total: int, err: TextIO) -> Iterator[Progress]:
    """A bar for so many requests; it is gone afterwards."""
    if not err.isatty():
        yield _Nothing()
    elif find_spec("rich") is None:
        bar = Plain(total, err)
        try:
            yield bar
        finally:
            bar.clear()
    else:
        with _rich(total, err) as made:
            yield made


class _Nothing:
    def at(self, what: str) -> None:
        """Nobody looks."""

    def step(self) -> None:
        """Nobody looks."""


class Plain:
    """In one line: `[#####.....] 12/80 prefill`."""

    def __init__(self, total: int, err: TextIO) -> None:
        self._total, self._err = max(1, total), err
        self._done, self._what, self._width = 0, "", 0

    def at(self, what: str) -> None:
        """This is measured from now on."""
        self._what = what
        self._draw()

    def step(self) -> None:
        """One request is done."""
        self._done = min(self._total, self._done + 1)
        self._draw()

    def clear(self) -> None:
        """Leave an empty line behind."""
        self._err.write("\r" + " " * self._width + "\r")
        self._err.flush()

    def _draw(self) -> None:
        full = _BAR * self._done // self._total
        line = f"[{'#' * full:.<{_BAR}}] {self._done}/{self._total} {self._what}"
        self._err.write(f"\r{line:<{self._width}}")
        self._err.flush()
        self._width = max(self._width, len(line))


@contextmanager
def _rich(total: int, err: TextIO) -> Iterator[Progress]:
    from rich import progress  # noqa: PLC0415 - of the extra `demo`
    from rich.console import Console  # noqa: PLC0415

    with progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        console=Console(file=err),
        transient=True,
    ) as shown:
        task = shown.add_task("", total=total)

        class Rich:
            def at(self, what: str) -> None:
                shown.update(task, description=what)

            def step(self) -> None:
                shown.advance(task)

        yield Rich()
