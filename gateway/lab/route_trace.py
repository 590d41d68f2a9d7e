"""Recorded traffic as a pool of engines meets it: who asks what, and when.

A prompt is read twice, on purpose: as the engine keeps it (blocks of a fixed size of the rendered
text, or of the trace's own hashes), and as the gateway compares it (`gateway.wire.trail`).
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import xxhash

from gateway.core.blocks import BYTES_PER_TOKEN
from gateway.core.trail import Trail
from gateway.lab import trace_chats
from gateway.lab.engine_sim import Prompt
from gateway.lab.trace import Times, TraceError
from gateway.lab.trace_bodies import Conversation
from gateway.lab.trace_hashes import HASH_BLOCK_TOKENS, claude_code
from gateway.lab.trace_read import recorded
from gateway.wire.table import APIS
from gateway.wire.trail import CHATS, COMPLETIONS, trail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from gateway.lab.trace import Document

TEXT_BLOCK_BYTES = 128
HASHED_RATE, TEXT_RATE = 5400.0, 1100.0
"""Prefill tokens a second of one engine, unless it is said: with eight of them, prompts would keep
each just busy if nothing were cached, in Mooncake's hour and with 64 conversations of tau-bench."""

_API, _MODEL = "openai_chat", "replayed"
_MADE_UP_ANSWER = 200
"""Tokens, where the trace doesn't have the answer."""
_RENDERED = ("tools", "functions", "system", "instructions", "messages", "input", "prompt")
"""Members of bodies in the order in which engines render them."""
_SAID = ("role", "content", "tool_calls")


class Ask(NamedTuple):
    """One request."""

    conversation: int
    """Whose it is, truly: no policy but `session` is told."""
    prompt: Prompt
    trail: Trail
    answer_tokens: int
    at: float = 0.0
    """Seconds since the trace began, if it has times."""


@dataclass(frozen=True, slots=True)
class RouteTrace:
    """All requests of one file."""

    name: str
    asks: Sequence[Ask]
    """In the order of their times; without times, conversation by conversation."""
    is_timed: bool
    is_hashed: bool
    notes: Sequence[str] = ()
    """What was drawn or made up, for the report."""

    @property
    def rate(self) -> float:
        """Prefill tokens a second of one engine, unless another is wanted."""
        return HASHED_RATE if self.is_hashed else TEXT_RATE


@dataclass(frozen=True, slots=True)
class RouteWanted:
    """What a trace is to be brought into."""

    seed: int = 1
    limit: int | None = None
    """Sessions to read; of plain bodies and of Mooncake, requests."""
    system: Sequence[str] = ()
    """A system prompt that is put before every prompt that has text."""
    head_tokens: int = 0
    """And so many before those that have only hashes."""


def read_routes(name: str, wanted: RouteWanted) -> RouteTrace:
    """The trace in a file, gzip or plain. Raises TraceError."""
    found = recorded(name, wanted.limit)
    if found.is_hashed and wanted.system and not wanted.head_tokens:
        raise TraceError(
            f"--system: {name} is a {found.shape} trace, which has no text that it could go before: "
            "say how many tokens all prompts share with --shared-system-tokens instead"
        )
    reader = _READERS[found.shape]
    trace = found.brought(lambda rows: reader(Path(name).name, rows, wanted))
    if not trace.asks:
        raise TraceError(f"{name}: no answered request in this {found.shape} trace")
    return trace


# --- hashes ---------------------------------------------------------------------------------------


def _mooncake(name: str, rows: list[Document], wanted: RouteWanted) -> RouteTrace:
    """One block for each hash; the last one may be cut anywhere."""
    head = _Head(wanted.head_tokens)
    known: dict[int, int] = {}
    prompts = []
    rows = sorted(rows, key=lambda row: row["timestamp"])
    for row in rows:
        ids, total = row["hash_ids"], row["input_length"]
        last = total - HASH_BLOCK_TOKENS * (len(ids) - 1)
        sizes = (*(HASH_BLOCK_TOKENS,) * (len(ids) - 1), last)
        prompts.append(head.before(0, ids, sizes, known))
    owners = conversations_of(prompts, HASH_BLOCK_TOKENS)
    first = rows[0]["timestamp"]
    asks = [
        Ask(
            owner,
            prompt,
            _trail_of(prompt, is_open=True),
            row["output_length"],
            (row["timestamp"] - first) / 1000,
        )
        for row, prompt, owner in zip(rows, prompts, owners, strict=True)
    ]
    notes = ["conversations are derived: who reuses all full blocks of a prompt continues it"]
    return RouteTrace(name, asks, is_timed=True, is_hashed=True, notes=notes)


def _claude_code(name: str, rows: list[Document], wanted: RouteWanted) -> RouteTrace:
    """One block for what each turn adds."""
    head = _Head(wanted.head_tokens)
    known: dict[int, int] = {}
    owners: dict[str, int] = {}
    asks = []
    for call in claude_code(rows, Times(wanted.seed, 1.0)):
        sizes = tuple(block.size // BYTES_PER_TOKEN for block in call.blocks)
        prompt = head.before(call.seed, [block.digest for block in call.blocks], sizes, known)
        owner = owners.setdefault(call.conversation, len(owners))
        asks.append(Ask(owner, prompt, _trail_of(prompt), call.answer_tokens, call.at))
    notes = ["starts of sessions are drawn"]
    return RouteTrace(name, asks, is_timed=True, is_hashed=True, notes=notes)


class _Head:
    """What all prompts begin with, in blocks as small as a prompt's usual ones."""

    def __init__(self, tokens: int) -> None:
        whole, rest = divmod(tokens, HASH_BLOCK_TOKENS)
        self._sizes = (HASH_BLOCK_TOKENS,) * whole + ((rest,) if rest else ())

    def before(
        self, seed: int, ids: Sequence[int], sizes: Sequence[int], known: dict[int, int]
    ) -> Prompt:
        """The prompt with these blocks after the head; `known` keeps each number once."""
        prints = []
        at = seed
        for one in (*range(len(self._sizes)), *ids):
            at = _chained(at, one)
            prints.append(known.setdefault(at, at))
        sizes = (*self._sizes, *sizes)
        return Prompt(tuple(prints), sizes, sum(sizes))


def _trail_of(prompt: Prompt, *, is_open: bool = False) -> Trail:
    return Trail(prompt.prints, tuple(accumulate(prompt.sizes)), is_open)


def conversations_of(prompts: Iterable[Prompt], full: int) -> list[int]:
    """Which conversation each prompt continues: the one that last used the deepest block they
    share, if all full blocks of its last prompt are in this one; else its own, a new one.
    """
    user: dict[int, int] = {}
    reused: list[int] = []
    found: list[int] = []
    for prompt in prompts:
        owner, depth = -1, 0
        for fingerprint in prompt.prints:
            if fingerprint not in user:
                break
            owner, depth = user[fingerprint], depth + 1
        if owner < 0 or not 0 < reused[owner] <= depth:
            owner = len(reused)
            reused.append(0)
        reused[owner] = sum(1 for size in prompt.sizes if size == full)
        user.update(dict.fromkeys(prompt.prints, owner))
        found.append(owner)
    return found


def _chained(fingerprint: int, one: int) -> int:
    return xxhash.xxh3_64_intdigest(array("Q", [fingerprint, one]).tobytes())


# --- texts ----------------------------------------------------------------------------------------


def rendered(body: Document) -> bytes:
    """A body's prompt as the simulated engine is taken to render it: JSON of its parts, one after
    the other; of messages, who says what and calls which tools.
    """
    parts: list[bytes] = []
    for name in _RENDERED:
        value = body.get(name)
        if not isinstance(value, list):
            parts.append(b"" if value is None else orjson.dumps(value))
            continue
        for each in value:
            said: Any = each
            if name == "messages" and isinstance(each, dict):
                said = {key: inner for key, inner in each.items() if key in _SAID}
            parts.append(orjson.dumps(said))
    return b"".join(parts)


def text_prompt(body: Document) -> Prompt:
    """A body's prompt in the engine's blocks; the last one may be shorter."""
    text = rendered(body)
    at = xxhash.xxh3_64_intdigest(orjson.dumps(body.get("model")))
    prints = []
    sizes = []
    for start in range(0, len(text), TEXT_BLOCK_BYTES):
        piece = text[start : start + TEXT_BLOCK_BYTES]
        at = xxhash.xxh3_64_intdigest(piece, at)
        prints.append(at)
        sizes.append(len(piece) // BYTES_PER_TOKEN)
    return Prompt(tuple(prints), tuple(sizes), sum(sizes))


def _bodies(name: str, rows: list[Document], wanted: RouteWanted) -> RouteTrace:
    asks = []
    rows = sorted(rows, key=lambda row: row["t"])
    apis = [_api_of(row["route"]) for row in rows]
    kept = [(row, api) for row, api in zip(rows, apis, strict=True) if api]
    prompts = [text_prompt(row["body"]) for row, _ in kept]
    owners = conversations_of(prompts, TEXT_BLOCK_BYTES // BYTES_PER_TOKEN)
    for (row, api), prompt, owner in zip(kept, prompts, owners, strict=True):
        if prompt.tokens:
            at = row["t"] - kept[0][0]["t"]
            asks.append(Ask(owner, prompt, trail(api, row["body"]), _MADE_UP_ANSWER, at))
    notes = [f"every answer is taken to have {_MADE_UP_ANSWER} tokens"]
    if len(asks) < len(rows):
        notes.append(f"{len(rows) - len(asks):,} bodies without a prompt are left out")
    if wanted.system:
        raise TraceError(
            f"--system or --shared-system-tokens: {name} has whole requests, which are replayed as "
            "they were sent: leave the flag away"
        )
    return RouteTrace(name, asks, is_timed=True, is_hashed=False, notes=notes)


def _api_of(route: str) -> str:
    path = route.partition("?")[0]
    api = next((api.name for known, api in APIS.items() if path.endswith(known)), "")
    return api if api in CHATS or api == COMPLETIONS else ""


def _chats(conversations: Callable[[list[Document]], list[Conversation]]) -> Any:
    def reader(name: str, rows: list[Document], wanted: RouteWanted) -> RouteTrace:
        asks: list[Ask] = []
        for number, found in enumerate(conversations(rows)):
            asks.extend(
                ask for _, ask in _asks(number, Conversation(found.messages, found.tools), wanted)
            )
        notes = ["times are drawn"]
        return RouteTrace(name, asks, is_timed=False, is_hashed=False, notes=notes)

    return reader


def _asks(number: int, said: Conversation, wanted: RouteWanted) -> Iterator[tuple[int, Ask]]:
    """A conversation's requests, each with the index of its answer."""
    whole = Conversation(said.messages, said.tools, wanted.system)
    for asked in whole.requests(_API, _MODEL):
        prompt = text_prompt(asked.body)
        tokens = asked.answer_bytes // BYTES_PER_TOKEN
        yield asked.number, Ask(number, prompt, trail(_API, asked.body), tokens)


def _tau_bench(rows: list[Document]) -> list[Conversation]:
    # Its tools are not in the data, and the prompts that were measured elsewhere have none.
    return [Conversation(row["traj"]) for row in rows]


def _pi_mono(name: str, rows: list[Document], wanted: RouteWanted) -> RouteTrace:
    session = trace_chats.pi_mono(rows)
    asks = []
    for number, ask in _asks(0, Conversation(session.messages), wanted):
        if number in session.answered:
            asks.append(ask._replace(at=session.answered[number][0]))
    asks.sort(key=lambda ask: ask.at)
    asks = asks[: wanted.limit]
    return RouteTrace(name, asks, is_timed=True, is_hashed=False, notes=session.notes)


_READERS: dict[str, Callable[[str, list[Document], RouteWanted], RouteTrace]] = {
    "bodies": _bodies,
    "Claude Code": _claude_code,
    "Mooncake": _mooncake,
    "tau-bench": _chats(_tau_bench),
    "SWE-agent": _chats(trace_chats.swe_agent),
    "arena-hard": _chats(trace_chats.arena_hard),
    "BFCL": _chats(trace_chats.bfcl),
    "pi-mono": _pi_mono,
}
