"""Traces that keep only hashes of blocks: their prompts have no text, but exact token counts.

Blocks begin and end where prompts do: what a turn adds to the conversation is one block, and where
prompts part, the parts before and after are. `size` is four times the tokens.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

import xxhash

from gateway.core.blocks import BYTES_PER_TOKEN, Section
from gateway.core.prefix import Kind, PrefixBlock
from gateway.lab.trace import Call

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gateway.lab.trace import Document, Times

HASH_BLOCK_TOKENS = 512
"""Of Mooncake's traces."""
_LINES = 4
"""Conversations that one session is followed in at the same time."""


@dataclass(frozen=True, slots=True)
class _Line:
    """The last prompt of one of a session's conversations."""

    ids: list[int]
    ends: tuple[int, ...]
    """Cumulative tokens at each block's end."""
    blocks: tuple[PrefixBlock, ...]


class _Session:
    """Cuts the prompts of one session, whose hashes mean nothing to any other, into blocks."""

    def __init__(self, name: str, grain: int, tools: int, system: int, markable: _Markable) -> None:
        self._name = name.encode()
        self._grain = grain
        self._opening = (tools, system)
        self._markable = markable
        self._lines: list[_Line] = []

    def blocks(self, ids: list[int], tokens: int, kind: Kind) -> tuple[PrefixBlock, ...]:
        """The prompt with these hashes and so many tokens, whose last block is of that kind."""
        best, shared = None, 0
        for line in self._lines:
            same = _same(line.ids, ids)
            if same > shared:
                best, shared = line, same
        ends: tuple[int, ...] = ()
        blocks: tuple[PrefixBlock, ...] = ()
        if best is not None:
            whole = shared == len(best.ids)
            # A hash stands for a full grain: what remains after the last one isn't in any, and a
            # prompt that goes on from there is taken to have it.
            limit = min(best.ends[-1] if whole else shared * self._grain, tokens)
            kept = sum(1 for end in best.ends if end <= limit)
            ends, blocks = best.ends[:kept], best.blocks[:kept]
        if not ends:
            ends, blocks = self._begun(ids, tokens)
        if not ends or ends[-1] < tokens:
            blocks += (self._block(ids, ends[-1] if ends else 0, tokens, Section.MESSAGES, kind),)
            ends += (tokens,)
        line = _Line(ids, ends, blocks)
        if best in self._lines:
            self._lines.remove(best)
        self._lines.insert(0, line)
        del self._lines[_LINES:]
        return blocks

    def _begun(
        self, ids: list[int], tokens: int
    ) -> tuple[tuple[int, ...], tuple[PrefixBlock, ...]]:
        tools, system = self._opening
        if tools + system >= tokens:
            return (), ()
        ends: list[int] = []
        blocks: list[PrefixBlock] = []
        at = 0
        for size, section, kind in (
            (tools, Section.TOOLS, Kind.TOOL),
            (system, Section.SYSTEM, Kind.TEXT),
        ):
            if size:
                blocks.append(self._block(ids, at, at + size, section, kind))
                at += size
                ends.append(at)
        return tuple(ends), tuple(blocks)

    def _block(
        self, ids: list[int], start: int, end: int, section: Section, kind: Kind
    ) -> PrefixBlock:
        grain = self._grain
        inside = array("q", [start, end, *ids[start // grain : end // grain]])
        return PrefixBlock(
            section,
            kind,
            {Section.TOOLS: "", Section.SYSTEM: "system"}.get(section, "user"),
            (section.value, start),
            (end - start) * BYTES_PER_TOKEN,
            xxhash.xxh3_64_intdigest(inside.tobytes() + self._name),
            can_mark=section is not Section.TOOLS or self._markable.tools,
            ends_message=section is Section.MESSAGES,
        )


@dataclass(frozen=True, slots=True)
class _Markable:
    tools: bool


def claude_code(
    sessions: Sequence[Document], times: Times, *, marks_tools: bool = True
) -> list[Call]:
    """Sessions of `{id, block_size, tool_tokens, system_tokens, requests}`, in which only starts
    are drawn: evenly over the longest session's span.
    """
    span = max((request["t"] for each in sessions for request in each["requests"]), default=0.0)
    calls: list[Call] = []
    starts = times.spread(len(sessions), span)
    for start, each in zip(starts, sessions, strict=True):
        calls.extend(_claude_code(each, each["id"], each["block_size"], start, marks_tools))
    return sorted(calls, key=lambda call: call.at)


def _claude_code(
    agent: Document, name: str, grain: int, start: float, marks_tools: bool
) -> Iterator[Call]:
    session = _Session(
        name, grain, agent["tool_tokens"], agent["system_tokens"], _Markable(marks_tools)
    )
    for request in agent["requests"]:
        at = start + request["t"]
        if request["type"] == "subagent":
            inner = f"{name}/{request['agent_id']}"
            yield from _claude_code(request, inner, grain, at, marks_tools)
            continue
        ids = [i for first, last in request["hash_ranges"] for i in range(first, last + 1)]
        kind = Kind.TOOL_RESULT if "tool_result" in request["input_types"] else Kind.TEXT
        took = request.get("api_time") or request.get("ttft") or 1.0
        yield Call(
            at,
            request.get("ttft") or took,
            took,
            blocks=session.blocks(ids, request["in"], kind),
            # A cache is per model, and a session may change its model.
            seed=xxhash.xxh3_64_intdigest(request["model"].encode()),
            conversation=name,
            answer_tokens=request.get("out") or 0,
        )


def mooncake(requests: Sequence[Document]) -> list[Call]:
    """Requests of `{timestamp (ms), input_length, hash_ids}`, 512 tokens each; all hashes are of
    one namespace, and the first one is the system prompt that all share.
    """
    grain = HASH_BLOCK_TOKENS
    ends = _where_prompts_part(each["hash_ids"] for each in requests)
    calls = []
    for each in requests:
        ids, total = each["hash_ids"], each["input_length"]
        blocks: list[PrefixBlock] = []
        fingerprint = start = 0
        for index, one in enumerate(ids):
            fingerprint = _chained(fingerprint, one)
            last = index == len(ids) - 1
            if index and not last and fingerprint not in ends:
                continue
            end = total if last else (index + 1) * grain
            section = Section.MESSAGES if index or last else Section.SYSTEM
            blocks.append(
                PrefixBlock(
                    section,
                    Kind.TEXT,
                    "user" if section is Section.MESSAGES else "system",
                    (section.value, start),
                    (end - start) * BYTES_PER_TOKEN,
                    fingerprint,
                    ends_message=section is Section.MESSAGES,
                )
            )
            start = end
        calls.append(
            Call(
                each["timestamp"] / 1000,
                0.5 + total / 8000,
                0.5 + total / 8000 + each["output_length"] / 60,
                blocks=tuple(blocks),
            )
        )
    return sorted(calls, key=lambda call: call.at)


def _where_prompts_part(prompts: Iterable[Sequence[int]]) -> set[int]:
    """Fingerprints of prefixes that go on in more than one way, or that are a whole prompt."""
    after: dict[int, int] = {}
    found: set[int] = set()
    for ids in prompts:
        fingerprint = 0
        for one in ids:
            if after.setdefault(fingerprint, one) != one:
                found.add(fingerprint)
            fingerprint = _chained(fingerprint, one)
        found.add(fingerprint)
    return found


def _chained(fingerprint: int, one: int) -> int:
    return xxhash.xxh3_64_intdigest(array("Q", [fingerprint, one]).tobytes())


def _same(before: list[int], after: list[int]) -> int:
    """How many hashes two prompts share from the first on."""
    short = min(len(before), len(after))
    if before[:short] == after[:short]:
        return short
    low, high = 0, short
    while low < high:
        middle = (low + high + 1) // 2
        if before[:middle] == after[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
