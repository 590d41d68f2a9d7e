"""What a provider says itself of its prompt cache, where the client asked for it: `diagnosis`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from gateway.core.diagnosed import Diagnosis
from gateway.core.model import Form
from gateway.wire import anthropic_messages_blocks, openai_responses_blocks
from gateway.wire.lenient import members, text

if TYPE_CHECKING:
    from gateway.core.canonical import Json
    from gateway.core.model import Answer

_LONGEST_WORD = 64
_ASKED = {
    # By wire API: what a request asks with, where an answer has it, and in which member of a
    # stream's events the answer stands.
    anthropic_messages_blocks.API: (b'"diagnostics"', "diagnostics", "message"),
    openai_responses_blocks.API: (
        b'"comparison_response_id"',
        "prompt_cache_diagnostics",
        "response",
    ),
}


def diagnosis(api: str, asked: bytes, answer: Answer) -> Diagnosis | None:
    """What it says; None where it was not asked for, and where it says nothing. Never raises."""
    known = _ASKED.get(api)
    if known is None or known[0] not in asked:
        return None
    _, name, holder = known
    spelled = f'"{name}"'.encode()
    if spelled not in answer.payload:
        return None
    texts = [answer.payload]
    if answer.recorded is Form.STREAM:
        lines = answer.payload.splitlines()
        texts = [each.removeprefix(b"data:") for each in lines if spelled in each]
    for each in texts:
        try:
            document = members(orjson.loads(each))
        except ValueError:
            continue
        said = members(document.get(name)) or members(members(document.get(holder)).get(name))
        if said and (found := _read(said)) is not None:
            return found
    return None


def _read(said: dict[str, Json]) -> Diagnosis | None:
    reason = said.get("cache_miss_reason")
    if isinstance(reason, dict):
        # Anthropic
        word, lost = text(reason.get("type")), reason.get("cache_missed_input_tokens")
    else:
        word, lost = text(said.get("reason")), said.get("cache_missed_tokens")
    if not word:
        return None
    shown = word if len(word) <= _LONGEST_WORD and word.isascii() and word.isidentifier() else ""
    count = lost if isinstance(lost, int) and not isinstance(lost, bool) and lost > 0 else 0
    return Diagnosis(shown or "other", count)
