"""docs/reference/store-faults.md: tables of what clients see while a store fails, written by the
tests that measure it. With WARMGATE_WRITE_DOCS=1 they write; without it they only measure.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "store-faults.md"
HEAD = (
    "| Fault | Traffic | Hits | p50, ms | p99, ms | Slowest, ms | Failed or wrong | Works again after "
    "| Lost |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
)


class Row(NamedTuple):
    """One case: what its clients saw while the fault lasted, and after it."""

    fault: str
    traffic: str
    hits: str
    """Of the requests during the fault."""
    p50_ms: float
    p99_ms: float
    slowest_ms: float
    wrong: int
    again_s: float
    """From the end of the fault to the first hit, or the first answer stored."""
    lost: str

    def line(self) -> str:
        """As the page shows it."""
        again = "at once" if self.again_s < 0.1 else f"{self.again_s:.1f} s"
        return (
            f"| {self.fault} | {self.traffic} | {self.hits} | {self.p50_ms:.0f} | {self.p99_ms:.0f} "
            f"| {self.slowest_ms:.0f} | {self.wrong} | {again} | {self.lost} |\n"
        )


def record(store: str, row: Row) -> None:
    """Put the row into the store's table, in place of the one of the same fault and traffic; or
    only print it.
    """
    print(row.line(), end="")
    if os.environ.get("WARMGATE_WRITE_DOCS") != "1":
        return
    text = PAGE.read_text(encoding="utf-8")
    before, table, after = _split(text, store)
    start = f"| {row.fault} | {row.traffic} |"
    lines = table.removeprefix(HEAD).splitlines(keepends=True)
    places = [place for place, line in enumerate(lines) if line.startswith(start)]
    if places:
        lines[places[0]] = row.line()
    else:
        lines.append(row.line())
    PAGE.write_text(before + HEAD + "".join(lines) + after, encoding="utf-8")


def cases(store: str) -> set[tuple[str, str]]:
    """The faults and traffics that the page has for a store."""
    _, table, _ = _split(PAGE.read_text(encoding="utf-8"), store)
    rows = (line.split(" | ") for line in table.removeprefix(HEAD).splitlines())
    return {(cells[0].removeprefix("| "), cells[1]) for cells in rows}


def _split(text: str, store: str) -> tuple[str, str, str]:
    pattern = rf"(<!-- measured: {store} -->\n)(.*?)(<!-- end -->)"
    found = re.search(pattern, text, re.DOTALL)
    assert found is not None, f"{PAGE} has no table for {store}"
    return text[: found.start(2)], found[2], text[found.start(3) :]
