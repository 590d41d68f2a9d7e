"""`gateway lint`: what in request bodies keeps the provider's cache from being reused."""

from __future__ import annotations

import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import orjson

from gateway.core import canonical
from gateway.core.blocks import BYTES_PER_TOKEN, Prompt, tokens
from gateway.core.canonical import Json, Uncacheable
from gateway.core.findings import Finding, Grade
from gateway.core.traffic import Traffic
from gateway.wire import prompts
from gateway.wire.base import NotUnderstood

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CLEAN, FOUND, UNREADABLE = 0, 1, 2
FORMAT_VERSION = 1
"""Of the JSON output: raised when a member changes its meaning or goes away."""

_WIDTH = 100
_STDIN = "-"


@dataclass(slots=True)
class _Report:
    """What is known of one file."""

    name: str
    requests: int = 0
    skipped: int = 0
    tokens: int = 0
    findings: list[tuple[Finding, int]] = field(default_factory=list)
    """Each with the line of the request that first shows it."""
    problems: list[tuple[int, str]] = field(default_factory=list)

    def count(self, grade: Grade) -> int:
        return sum(1 for finding, _ in self.findings if finding.grade is grade)


def run(files: Sequence[str], route: str | None, as_json: bool, out: TextIO, err: TextIO) -> int:
    """Print to `out`, complain to `err`; returns the exit status of the verb.

    Each file is judged by itself; the requests of one file are compared with each other.
    """
    reports = [_judge(name, route) for name in files]
    for report in reports:
        err.writelines(
            f"gateway lint: {report.name}:{line}: {problem}\n" for line, problem in report.problems
        )
    if as_json:
        out.write(orjson.dumps(_told(reports), option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        _print(reports, out)
    if any(report.problems for report in reports):
        return UNREADABLE
    return FOUND if any(report.count(Grade.FAULT) for report in reports) else CLEAN


def _judge(name: str, route: str | None) -> _Report:
    report = _Report("stdin" if name == _STDIN else name)
    try:
        text = sys.stdin.buffer.read() if name == _STDIN else Path(name).read_bytes()
    except OSError as error:
        report.problems.append((0, error.strerror or str(error)))
        return report
    # Providers keep the caches of different credentials apart.
    by_scope: dict[bytes, tuple[Traffic, list[int]]] = {}
    for line, record in _records(text, report):
        scope, prompt = _prompt(record, route, line, report)
        if prompt is None:
            continue
        traffic, lines = by_scope.setdefault(scope, (Traffic(), []))
        traffic.add(prompt)
        lines.append(line)
        report.requests += 1
        report.tokens += sum(tokens(block.text) for block in prompt.blocks)
    if not report.requests and not report.problems:
        report.problems.append((1, "there is no prompt in it"))
    for traffic, lines in by_scope.values():
        report.findings += [(finding, lines[finding.first]) for finding in traffic.findings()]
    return report


def _records(text: bytes, report: _Report) -> Iterator[tuple[int, Json]]:
    """Each JSON value of the file with its line: one for all, or one on each line."""
    try:
        yield 1, canonical.parse(text)
    except Uncacheable as error:
        lines = [(n, line) for n, line in enumerate(text.split(b"\n"), 1) if line.strip()]
        if len(lines) <= 1 or not lines[0][1].strip().endswith(b"}"):
            report.problems.append((1, str(error)))
            return
        for number, line in lines:
            try:
                yield number, canonical.parse(line)
            except Uncacheable as odd:
                report.problems.append((number, str(odd)))


def _prompt(
    record: Json, route: str | None, line: int, report: _Report
) -> tuple[bytes, Prompt | None]:
    """The scope and prompt of a body, or of a record around one (ours, or a provider's batch)."""
    scope, sent_to, body = b"", None, record
    if isinstance(record, dict) and ("body" in record or "params" in record):
        body = record["body"] if "body" in record else record["params"]
        scope = canonical.encode(record.get("scope"))
        sent_to = next((v for n in ("route", "url") if isinstance(v := record.get(n), str)), None)
    try:
        if isinstance(body, str):
            body = canonical.parse(body.encode())
        if route is None and sent_to is not None and not prompts.has_prompt(sent_to):
            report.skipped += 1
            return scope, None
        return scope, prompts.read(body, route or sent_to)
    except (NotUnderstood, Uncacheable) as error:
        report.problems.append((line, str(error)))
        return scope, None


def _told(reports: Sequence[_Report]) -> dict[str, object]:
    return {
        "version": FORMAT_VERSION,
        "faults": sum(report.count(Grade.FAULT) for report in reports),
        "notes": sum(report.count(Grade.NOTE) for report in reports),
        "token_estimate": f"UTF-8 bytes / {BYTES_PER_TOKEN}",
        "files": [
            {
                "file": report.name,
                "requests": report.requests,
                "skipped": report.skipped,
                "tokens": report.tokens,
                "findings": [_finding(finding, line) for finding, line in report.findings],
                "problems": [{"line": n, "problem": text} for n, text in report.problems],
            }
            for report in reports
        ],
    }


def _finding(finding: Finding, line: int) -> dict[str, object]:
    return {
        "what": finding.what.value,
        "grade": finding.grade.value,
        "path": finding.path,
        "line": line,
        "excerpt": finding.excerpt,
        "seen": finding.seen,
        "requests": finding.requests,
        "lost_tokens": finding.lost_tokens,
        "lost_total": finding.lost_total,
        "mend": finding.mend,
    }


def _print(reports: Sequence[_Report], out: TextIO) -> None:
    for report in reports:
        if not report.requests:
            continue
        count = f"{report.requests:,} request{'' if report.requests == 1 else 's'}"
        told = "" if report.findings else ": clean"
        out.write(f"{report.name}: {count}, about {report.tokens:,} tokens{told}\n")
        if not report.findings:
            continue
        out.write(f"  {'GRADE':6} {'WHAT':17} {'LOST TOKENS':>11} {'REQUESTS':>9}  WHERE\n")
        for finding, line in report.findings:
            where = finding.path if report.requests == 1 else f"line {line} {finding.path}"
            row = (
                f"  {finding.grade.value:6} {finding.what.value:17} {finding.lost_tokens:>11,}"
                f" {finding.requests:>9,}  "
            )
            out.write(row + _cut(where, _WIDTH - len(row)) + "\n")
            out.write(f"{'':9}{_printable(finding.excerpt)}\n")
            mend = textwrap.wrap(f"mend: {finding.mend}", _WIDTH - 9, subsequent_indent=" " * 6)
            out.writelines(f"{'':9}{line_of_it}\n" for line_of_it in mend)
    faults = sum(report.count(Grade.FAULT) for report in reports)
    notes = sum(report.count(Grade.NOTE) for report in reports)
    if faults or notes:
        out.write(
            f"{faults} fault{'' if faults == 1 else 's'}, {notes} note{'' if notes == 1 else 's'}."
            f" Tokens are estimates: UTF-8 bytes / {BYTES_PER_TOKEN}, in the worst request.\n"
        )


def _cut(text: str, width: int) -> str:
    """The text in at most `width` columns: what is in the middle of a path tells least."""
    if len(text) <= width:
        return text
    head = width // 2
    return f"{text[:head]}…{text[len(text) - (width - head - 1) :]}"


def _printable(text: str) -> str:
    # A prompt may hold escape sequences that would drive the terminal.
    return "".join(c if c.isprintable() else "·" for c in text)
