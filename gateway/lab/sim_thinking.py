"""Thinking blocks bound to all before them, as Anthropic's newer models sign them.

Rule 1. A signature holds for system, tools and everything that stands before its block; markers
and the parameters outside of the prompt may change, and a bare string is its one text block.
Rule 2. A block that was signed for another beginning, or isn't signed by us, is refused, or
dropped with the rest of its turn's consecutive thinking where the request asks for that.
Rule 3. Models that don't bind ask only that we signed it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]

_MAC_BYTES = 32
_UNBOUND = bytes(32)
_THOUGHTS = frozenset({"thinking", "redacted_thinking"})
_REASON = "prefix_binding_mismatch"


class Misfit(NamedTuple):
    """A thinking block that doesn't belong where it stands."""

    message: int
    block: int
    is_ours: bool
    """Signed by this simulation, though for something else."""

    @property
    def path(self) -> str:
        """As error messages say it."""
        return f"messages.{self.message}.content.{self.block}"


def sign(secret: bytes, body: Json, *, binds: bool) -> str:
    """The signature of a thinking block that begins the answer to this request."""
    bound = _prefix(body, len(body["messages"]), 0) if binds else _UNBOUND
    return base64.b64encode(bound + _mac(secret, bound)).decode()


def misfits(secret: bytes, body: Json, *, binds: bool) -> list[Misfit]:
    """Every thinking block of the request that would be refused, in order."""
    return list(_misfits(secret, body, binds))


def complaint(misfit: Misfit) -> str:
    """What the API says of it."""
    said = f"{misfit.path}: Invalid `signature` in `thinking` block"
    if not misfit.is_ours:
        return said
    return (
        f"{said}. The block is bound to a different conversation. Remove the block, or set "
        '`thinking.block_binding.prefix_mismatch_behavior` to "drop_block". That setting requires '
        "the `thinking-binding-controls-2026-08-01` value in the `anthropic-beta` header."
    )


def without(body: Json, found: list[Misfit]) -> tuple[Json, list[Json]]:
    """The request without those blocks and the thinking right behind each; and what to report."""
    reported: list[Json] = []
    starts = {(each.message, each.block) for each in found}
    messages: list[Json] = []
    for i, message in enumerate(body["messages"]):
        kept: list[Json] = []
        dropping = False
        for j, block in enumerate(_blocks(message["content"])):
            dropping = block["type"] in _THOUGHTS and (dropping or (i, j) in starts)
            if dropping:
                path = f"messages.{i}.content.{j}"
                reported.append({"type": "thinking_dropped", "path": path, "reason": _REASON})
            else:
                kept.append(block)
        messages.append({**message, "content": kept} if reported else message)
    return {**body, "messages": messages}, reported


def _misfits(secret: bytes, body: Json, binds: bool) -> Iterator[Misfit]:
    for i, message in enumerate(body["messages"]):
        if message["role"] != "assistant":
            continue
        for j, block in enumerate(_blocks(message["content"])):
            if block["type"] != "thinking":
                continue
            bound = _opened(secret, block.get("signature"))
            if bound is None:
                yield Misfit(i, j, is_ours=False)
            elif binds and bound != _prefix(body, i, j):
                yield Misfit(i, j, is_ours=True)


def _opened(secret: bytes, signature: Any) -> bytes | None:
    """What a signature is bound to; None where it isn't ours."""
    try:
        raw = base64.b64decode(signature, validate=True)
    except (TypeError, ValueError, binascii.Error):
        return None
    bound, mac = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
    return bound if hmac.compare_digest(mac, _mac(secret, bound)) else None


def _mac(secret: bytes, bound: bytes) -> bytes:
    return hmac.digest(secret, bound, "sha256")


def _prefix(body: Json, messages: int, blocks: int) -> bytes:
    """A digest of all before a block: of what is rendered, so that markers don't count."""
    said = [[m["role"], *map(_bare, _blocks(m["content"]))] for m in body["messages"][:messages]]
    if blocks:
        current = body["messages"][messages]
        said.append([current["role"], *map(_bare, _blocks(current["content"])[:blocks])])
    tools = [_bare(tool) for tool in body.get("tools") or []]
    system = [_bare(block) for block in _blocks(body.get("system") or [])]
    return hashlib.sha256(orjson.dumps([tools, system, said])).digest()


def _bare(block: Json) -> Json:
    # The order of a block's own members is JSON's freedom; what is inside of them is rendered.
    out = {name: value for name, value in sorted(block.items()) if name != "cache_control"}
    if block.get("type") == "tool_result":
        out["content"] = [_bare(part) for part in _blocks(block.get("content") or [])]
    return out


def _blocks(content: Any) -> list[Json]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [part for part in content if isinstance(part, dict)]
