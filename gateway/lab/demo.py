"""`gateway demo`: what is a hit and what is not, shown on this machine, with no key and no network.

A stub provider and a gateway in front of it, both in this process, on free ports of the loopback.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gateway.lab.stub_provider import StubProvider

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import TextIO

    from gateway.config import Config
    from gateway.lab.demo_guises import Guise, Sent

OK = 0
WRONG = 1
MISSING = 2

_LATENCY_S = 0.4
_GAP_S = 0.01
"""What a quick model takes to begin, and between two events; slow enough to see the difference."""
_COLUMNS = ("api", "what was sent", "cache", "latency ms", "upstream calls", "tokens saved")
_MARKS = {"hit": "bold green", "miss": "yellow"}


class Running(Protocol):
    """A started gateway, as far as the demo needs one."""

    @property
    def api_url(self) -> str:
        """`http://127.0.0.1:PORT`."""

    async def stop(self) -> None:
        """Stop it, and wait until it has."""


@dataclass(frozen=True, slots=True)
class Row:
    """One request, and what became of it."""

    guise: Guise
    cache: str
    latency_ms: float
    upstream_calls: int
    """Of this and all requests before it."""
    tokens_saved: int
    fault: str = ""
    """What is not as it should be; empty when all is."""

    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of the columns."""
        return (
            self.guise.api,
            self.guise.what,
            self.cache or "-",
            f"{self.latency_ms:.1f}",
            str(self.upstream_calls),
            str(self.tokens_saved),
        )


def run() -> int:
    """Run the demo; prints a table on stdout and returns 0, 1 (something was wrong) or 2."""
    try:
        import anthropic  # noqa: F401, PLC0415 - optional: only here
        import openai  # noqa: F401, PLC0415
        import rich  # noqa: F401, PLC0415
    except ImportError as problem:
        sys.stderr.write(
            f"The demo needs {problem.name}, which is not installed: pip install 'warmgate[demo]'\n"
        )
        return MISSING
    # The one place where the lab meets the composition root: after the check above.
    from gateway.app import start  # noqa: PLC0415
    from gateway.telemetry.logs import setup_logging  # noqa: PLC0415

    setup_logging("error", "auto")
    return asyncio.run(show(start))


async def show(
    start: Callable[[Config], Awaitable[Running]],
    *,
    out: TextIO | None = None,
    latency_s: float = _LATENCY_S,
    gap_s: float = _GAP_S,
) -> int:
    """Start everything, send the guises, print the table to `out`; returns the exit status."""
    out = out or sys.stdout
    async with StubProvider(latency_s=latency_s, gap_s=gap_s) as stub:
        gateway = await start(config_for(stub))
        begun = time.perf_counter()
        try:
            rows = await _send_all(gateway.api_url, stub)
        finally:
            await gateway.stop()
        took_s = time.perf_counter() - begun
    _print(rows, took_s, out)
    return WRONG if any(row.fault for row in rows) else OK


def config_for(stub: StubProvider) -> Config:
    """The settings of a gateway that takes the stub for OpenAI and for Anthropic."""
    from gateway.config import Config  # noqa: PLC0415 - after the check for what is missing

    return Config.model_validate(
        {
            "server": {"port": 0, "probe_port": 0},
            "admin": {"port": 0},
            "upstreams": {
                "openai": {"base_url": stub.v1_url, "provider": "openai"},
                "anthropic": {"base_url": stub.v1_url, "provider": "anthropic"},
            },
            "store": {"url": "memory://"},
            "telemetry": {"traces": "off"},
        }
    )


async def _send_all(url: str, stub: StubProvider) -> list[Row]:
    # Imports the SDKs.
    from gateway.lab.demo_guises import FAILURES, Clients, Sent, guises  # noqa: PLC0415

    clients = Clients.towards(url)
    answers: dict[str, str] = {}
    rows: list[Row] = []
    try:
        for guise in guises():
            before = stub.total_calls
            begun = time.perf_counter()
            try:
                sent = await guise.send(clients)
            except FAILURES as problem:
                sent, fault = Sent("", "", 0), f"{type(problem).__name__}: {problem}"
            else:
                first = answers.setdefault(guise.question, sent.answer)
                fault = _judge(guise, sent, stub.total_calls - before, first)
            latency_ms = 1000 * (time.perf_counter() - begun)
            saved = sent.tokens if sent.cache == "hit" else 0
            rows.append(Row(guise, sent.cache, latency_ms, stub.total_calls, saved, fault))
    finally:
        await clients.close()
    return rows


def _judge(guise: Guise, sent: Sent, called: int, first_answer: str) -> str:
    """What is wrong with this answer; empty when nothing is."""
    if sent.cache != guise.expected:
        return f"expected a {guise.expected}, got {sent.cache or 'no word of the cache'}"
    if called != (guise.expected == "miss"):
        return f"a {sent.cache} that called the provider {called} times"
    if sent.answer != first_answer:
        return "the answer differs from the first one to this question"
    return ""


def _print(rows: Sequence[Row], took_s: float, out: TextIO) -> None:
    total = (
        f"{len(rows)} requests, {rows[-1].upstream_calls} upstream calls, "
        f"{sum(row.tokens_saved for row in rows)} tokens saved, {took_s:.1f} s"
    )
    if out.isatty():
        _print_pretty(rows, total, out)
    else:
        _print_plain(rows, total, out)
    for row in rows:
        if row.fault:
            print(f"WRONG: {row.guise.api}, {row.guise.what}: {row.fault}", file=out)


def _print_pretty(rows: Sequence[Row], total: str, out: TextIO) -> None:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - optional: only here
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    # Fits a terminal of 80 columns: headers may wrap, rows may not.
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    for number, column in enumerate(_COLUMNS):
        table.add_column(column, justify="right" if number > 2 else "left", no_wrap=number < 2)
    for row in rows:
        table.add_row(*row.cells(), style="red" if row.fault else _MARKS.get(row.cache, ""))
    console = Console(file=out)
    console.print(table)
    console.print(f"\n[bold]{total}[/bold]", highlight=False)


def _print_plain(rows: Sequence[Row], total: str, out: TextIO) -> None:
    lines = [_COLUMNS, *(row.cells() for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_COLUMNS))]
    for number, line in enumerate(lines):
        cells = [
            cell.rjust(width) if i > 2 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip(), file=out)
        if number == 0:
            print("  ".join("-" * width for width in widths), file=out)
    print(f"\n{total}", file=out)
