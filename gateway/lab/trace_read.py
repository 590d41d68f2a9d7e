"""From a file to a trace: which format it is shows in its shape, whatever its name is."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import orjson

from gateway.lab import trace_chats
from gateway.lab.trace import Call, Document, Times, Trace, TraceError
from gateway.lab.trace_bodies import CHAT_ROUTE, MESSAGES_ROUTE, Conversation
from gateway.lab.trace_hashes import HASH_BLOCK_TOKENS, claude_code, mooncake

_GZIP = b"\x1f\x8b"
_AZURE = b"TIMESTAMP,"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a trace is to be brought into."""

    api: str
    """`anthropic_messages` or `openai_chat`."""
    model: str
    times: Times
    system: Sequence[str] = ()
    """A system prompt that is put on top of every prompt."""
    limit: int | None = None
    """Sessions to read; of plain bodies, requests."""
    marks_tools: bool = True


@dataclass(frozen=True, slots=True)
class Recorded:
    """A file whose format is known, not yet brought into calls."""

    name: str
    shape: str
    rows: Sequence[_Row]
    values: list[Document]
    """Of as many rows as are wanted, every one with the members of the format."""

    @property
    def is_hashed(self) -> bool:
        """It has no text."""
        return self.shape in _HASHED

    def brought(self, reader: Callable[[list[Document]], _T]) -> _T:
        """What a reader makes of all rows. Raises TraceError naming the first that is misshapen."""
        try:
            return reader(self.values)
        except _MISSHAPEN as error:
            line = self._line_of_fault(reader)
            raise TraceError(
                f"{self.name}:{line}: {_said(error)} in this {self.shape} trace"
            ) from error

    def _line_of_fault(self, reader: Callable[[list[Document]], _T]) -> int:
        """The first line that can't be read by itself, or else the last."""
        for row in self.rows:
            try:
                reader([row.value])
            except _MISSHAPEN:
                return row.line
        return self.rows[-1].line


def recorded(name: str, limit: int | None = None) -> Recorded:
    """The rows of a file, gzip or plain, told by their shape. Raises TraceError."""
    text = contents(name)
    if text.startswith(_AZURE):
        raise TraceError(
            f"{name}:1: arrival times without prompts: give the file to --arrivals instead"
        )
    rows = _rows(name, text)
    if not rows:
        raise TraceError(f"{name}:1: no request in it")
    shape = _shape(rows)
    if shape is None:
        known = ", ".join(sorted(_SHAPES))
        members = ", ".join(sorted(rows[0].value)[:8]) or "none"
        raise TraceError(
            f"{name}:{rows[0].line}: no known format: its members are {members}; known are {known}"
        )
    return Recorded(name, shape, rows, _whole(name, shape, rows, limit))


def read(name: str, wanted: Wanted) -> Trace:
    """The trace in a file, gzip or plain. Raises TraceError."""
    found = recorded(name, wanted.limit)
    if wanted.system and found.is_hashed:
        raise TraceError(
            f"{name}: a {found.shape} trace has no text that a system prompt could go before"
        )
    reader = _READERS[found.shape]
    trace = found.brought(lambda rows: reader(Path(name).name, rows, wanted))
    if not trace.calls:
        raise TraceError(f"{name}: no answered request in this {found.shape} trace")
    return trace


_MISSHAPEN = (KeyError, TypeError, AttributeError, IndexError, ValueError)


def _said(error: Exception) -> str:
    return f"{error.args[0]}: missing" if isinstance(error, KeyError) else f"misshapen: {error}"


def contents(name: str) -> bytes:
    """The file's bytes, decompressed. Raises TraceError."""
    try:
        found = Path(name).read_bytes()
    except OSError as error:
        raise TraceError(f"{name}: {error.strerror or error}") from error
    if not found.startswith(_GZIP):
        return found
    try:
        return gzip.decompress(found)
    except (OSError, EOFError, zlib.error) as error:
        raise TraceError(f"{name}: damaged gzip: {error}") from error


def arrivals(name: str) -> list[float]:
    """Seconds since the first of an Azure trace's arrivals (`TIMESTAMP,ContextTokens,...`)."""
    lines = contents(name).split(b"\n")
    if not lines[0].startswith(_AZURE):
        raise TraceError(f"{name}:1: no arrivals: the first line doesn't begin with TIMESTAMP")
    found: list[float] = []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        field = line.split(b",", 1)[0].decode("ascii", "replace")
        try:
            # Seven digits of a second; Python reads six.
            found.append(datetime.fromisoformat(field[:26] + "+00:00").timestamp())
        except ValueError as error:
            raise TraceError(f"{name}:{number}: TIMESTAMP: {error}") from error
    if not found:
        raise TraceError(f"{name}:2: no arrival in it")
    found.sort()
    return [each - found[0] for each in found]


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    value: Document


def _rows(name: str, text: bytes) -> list[_Row]:
    """JSON objects, one a line, or one array of them, or one object alone."""
    stripped = text.lstrip()
    if stripped.startswith(b"["):
        values = _parsed(name, 1, text)
        return [_Row(1, _object(name, 1, f"[{i}]", each)) for i, each in enumerate(values)]
    lines = text.split(b"\n")
    try:
        orjson.loads(lines[0])
    except orjson.JSONDecodeError:
        # Perhaps one object over many lines; if not, the first line is what is wrong.
        try:
            return [_Row(1, _object(name, 1, "", orjson.loads(text)))]
        except orjson.JSONDecodeError:
            pass
    return [
        _Row(number, _object(name, number, "", _parsed(name, number, line)))
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]


def _parsed(name: str, line: int, text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise TraceError(f"{name}:{line}: not JSON: {error}") from error


def _object(name: str, line: int, where: str, value: object) -> Document:
    if not isinstance(value, dict):
        raise TraceError(f"{name}:{line}: {where or 'the line'}: not a JSON object")
    return value


_SHAPES: dict[str, frozenset[str]] = {
    "bodies": frozenset({"t", "route", "body"}),
    "tau-bench": frozenset({"traj"}),
    "SWE-agent": frozenset({"history"}),
    "Claude Code": frozenset({"block_size", "requests", "tool_tokens", "system_tokens"}),
    "Mooncake": frozenset({"timestamp", "input_length", "hash_ids"}),
    "BFCL": frozenset({"question", "function"}),
    "arena-hard": frozenset({"prompt", "uid"}),
    "pi-mono": frozenset({"type", "timestamp"}),
}
"""Members that tell a format, the more telling formats first."""
_HASHED = frozenset({"Claude Code", "Mooncake"})


def _shape(rows: Sequence[_Row]) -> str | None:
    here = rows[0].value.keys()
    return next((shape for shape, needed in _SHAPES.items() if needed <= here), None)


def _whole(name: str, shape: str, rows: Sequence[_Row], limit: int | None) -> list[Document]:
    """The rows, every one with the members of the format."""
    if shape != "pi-mono":
        rows = rows[:limit]
    for row in rows:
        missing = _SHAPES[shape] - row.value.keys()
        if missing:
            raise TraceError(f"{name}:{row.line}: {min(missing)}: missing in this {shape} trace")
        check = _CHECKS.get(shape)
        if check and (problem := check(row.value)):
            raise TraceError(f"{name}:{row.line}: {problem}")
    return [row.value for row in rows]


def _body_problem(value: Document) -> str | None:
    if isinstance(value["t"], bool) or not isinstance(value["t"], (int, float)):
        return "t: not a number of seconds"
    if not isinstance(value["route"], str):
        return "route: not a path"
    if not isinstance(value["body"], dict):
        return "body: not a JSON object"
    if not isinstance(value.get("scope", ""), str):
        return "scope: not a string"
    return None


def _session_problem(value: Document) -> str | None:
    if not isinstance(value["requests"], list):
        return "requests: not a list"
    for index, request in enumerate(value["requests"]):
        missing = {"t", "type"} - request.keys()
        if request.get("type") != "subagent":
            missing |= {"in", "hash_ranges", "input_types", "model"} - request.keys()
        if missing:
            return f"requests[{index}].{min(missing)}: missing"
    return None


def _hashes_problem(value: Document) -> str | None:
    ids = value["hash_ids"]
    if not isinstance(ids, list) or not ids:
        return "hash_ids: empty"
    if not all(_is_count(one) for one in ids):
        return "hash_ids: not all numbers from 0 on"
    for member in ("input_length", "output_length"):
        if not _is_count(value.get(member, 0)):
            return f"{member}: not a number from 0 on"
    most = HASH_BLOCK_TOKENS * len(ids)
    if not most - HASH_BLOCK_TOKENS < value["input_length"] <= most:
        return f"input_length: not what {len(ids)} blocks of {HASH_BLOCK_TOKENS} tokens can have"
    return None


def _is_count(value: Any) -> bool:
    """In 64 bits, which is what a hash of it is made of."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64


def _messages_problem(member: str) -> Callable[[Document], str | None]:
    def check(value: Document) -> str | None:
        messages = value[member]
        if not isinstance(messages, list) or not messages:
            return f"{member}: no messages"
        for index, message in enumerate(messages):
            if not isinstance(message, dict) or not isinstance(message.get("role"), str):
                return f"{member}[{index}].role: missing"
        return None

    return check


_CHECKS: dict[str, Callable[[Document], str | None]] = {
    "bodies": _body_problem,
    "Claude Code": _session_problem,
    "Mooncake": _hashes_problem,
    "tau-bench": _messages_problem("traj"),
    "SWE-agent": _messages_problem("history"),
}


def _bodies(name: str, rows: list[Document], wanted: Wanted) -> Trace:
    first = min(row["t"] for row in rows)
    calls = []
    for number, row in enumerate(rows):
        begins, ends = wanted.times.of_conversation(number).answer(800)
        calls.append(
            Call(
                row["t"] - first,
                begins,
                ends,
                row["route"],
                row["body"],
                scope=row.get("scope", "default"),
            )
        )
    notes = ["times of answers are drawn"]
    return Trace(name, sorted(calls, key=lambda call: call.at), notes=notes)


def _claude_code(name: str, rows: list[Document], wanted: Wanted) -> Trace:
    calls = claude_code(rows, wanted.times, marks_tools=wanted.marks_tools)
    return Trace(name, calls, exact_tokens=True, notes=["starts of sessions are drawn"])


def _mooncake(name: str, rows: list[Document], wanted: Wanted) -> Trace:
    del wanted
    return Trace(name, mooncake(rows), exact_tokens=True, notes=["times of answers are made up"])


def _chats(
    conversations: Callable[[list[Document]], list[Conversation]], *, human: bool
) -> Callable[[str, list[Document], Wanted], Trace]:
    def reader(name: str, rows: list[Document], wanted: Wanted) -> Trace:
        calls: list[Call] = []
        found = conversations(rows)
        route = MESSAGES_ROUTE if wanted.api == "anthropic_messages" else CHAT_ROUTE
        for number, (start, conversation) in enumerate(
            zip(wanted.times.starts(len(found)), found, strict=True)
        ):
            pace = wanted.times.of_conversation(number)
            shared = Conversation(conversation.messages, conversation.tools, wanted.system)
            at = start
            for turn, asked in enumerate(shared.requests(wanted.api, wanted.model)):
                if turn:
                    at += pace.pause(human=human and asked.before == "user")
                begins, ends = pace.answer(asked.answer_bytes)
                calls.append(Call(at, begins, ends, route, asked.body))
                at += ends
        notes = ["times are drawn"]
        return Trace(name, sorted(calls, key=lambda call: call.at), notes=notes)

    return reader


def _pi_mono(name: str, rows: list[Document], wanted: Wanted) -> Trace:
    route = MESSAGES_ROUTE if wanted.api == "anthropic_messages" else CHAT_ROUTE
    session = trace_chats.pi_mono(rows)
    conversation = Conversation(session.messages, system=wanted.system)
    calls = []
    for asked in conversation.requests(wanted.api, wanted.model):
        times = session.answered.get(asked.number)
        if times is not None:
            at, ends = times
            calls.append(Call(at, min(2.0, ends), ends, route, asked.body))
    calls.sort(key=lambda call: call.at)
    return Trace(name, calls[: wanted.limit], notes=session.notes)


_Reader: TypeAlias = Callable[[str, list[Document], Wanted], Trace]
_READERS: dict[str, _Reader] = {
    "bodies": _bodies,
    "Claude Code": _claude_code,
    "Mooncake": _mooncake,
    "tau-bench": _chats(trace_chats.tau_bench, human=True),
    "SWE-agent": _chats(trace_chats.swe_agent, human=False),
    "arena-hard": _chats(trace_chats.arena_hard, human=True),
    "BFCL": _chats(trace_chats.bfcl, human=True),
    "pi-mono": _pi_mono,
}
