"""Anthropic's Messages API as the simulation answers it: refusals, cache usage, bound thinking."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from gateway.lab import sim_anthropic_rules, sim_prompt, sim_thinking, stub_anthropic
from gateway.lab.sim_diagnostics import Diagnostics
from gateway.lab.stub_answers import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.model import Usage
    from gateway.lab.sim_prompt import Rendered

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Terms:
    """On what a request is taken."""

    secret: bytes
    """That thinking is signed with."""
    betas: frozenset[str] = frozenset()
    """What its `anthropic-beta` says."""
    blank_text: bool = False
    """Blank text without a marker is taken, too."""
    diagnostics: Diagnostics | None = None
    """What is remembered of earlier requests; without, they are compared with none."""
    scope: str = ""
    """Whose requests they are."""


def count_tokens(body: Json, terms: Terms, request_id: str) -> Reply:
    """Answer one `count_tokens`, which checks what a request for an answer is checked for."""
    taken, _, refused = _taken(body, terms, counts=True)
    if refused is not None:
        return stub_anthropic.error(400, refused, request_id)
    counted = sim_prompt.anthropic(taken).total_tokens
    return Reply(body=orjson.dumps({"input_tokens": counted}))


def messages(
    body: Json, terms: Terms, request_id: str, bill: Callable[[Rendered, bool], Usage]
) -> Reply:
    """Answer one request; `bill` says what it reads and writes, told whether it fails."""
    taken, dropped, refused = _taken(body, terms, counts=False)
    if refused is not None:
        return stub_anthropic.error(400, refused, request_id)
    query = stub_anthropic.read(taken)
    streaming = body.get("stream") is True
    failed = stub_anthropic.steered(query, request_id, streaming=streaming)
    prompt = sim_prompt.anthropic(taken)
    usage = bill(prompt, failed is not None)
    if failed is not None:
        return failed
    document = stub_anthropic.document(taken, query)
    document["usage"].update(_spelled(usage))
    binds = sim_anthropic_rules.binds_thinking(body["model"])
    for block in document["content"]:
        if block["type"] == "thinking":
            block["signature"] = sim_thinking.sign(terms.secret, body, binds=binds)
    if body["max_tokens"] == 0:
        document |= {"content": [], "stop_reason": "max_tokens"}
        document["usage"]["output_tokens"] = 0
    if dropped:
        document["input_transformations"] = dropped
    if body.get("diagnostics") is not None:
        known = terms.diagnostics or Diagnostics()
        document["diagnostics"] = known.anthropic(terms.scope, taken, prompt, document["id"])
    reply = stub_anthropic.reply(document, query, request_id, streaming=streaming)
    return replace(reply, billed=document)


def _taken(body: Json, terms: Terms, *, counts: bool) -> tuple[Json, list[Json], str | None]:
    """The request as it is rendered, what was dropped of it, and why it is refused."""
    refused = sim_anthropic_rules.refusal(
        body, terms.betas, blank_text=terms.blank_text, counts=counts
    )
    if refused is not None:
        return body, [], refused
    binds = sim_anthropic_rules.binds_thinking(body["model"])
    found = sim_thinking.misfits(terms.secret, body, binds=binds)
    if not found:
        return body, [], None
    binding = (body.get("thinking") or {}).get("block_binding") or {}
    if binding.get("prefix_mismatch_behavior") != "drop_block":
        return body, [], sim_thinking.complaint(found[0])
    return *sim_thinking.without(body, found), None


def _spelled(usage: Usage) -> Json:
    """Exclusive counts: what was neither read nor written, what was read, what was written."""
    return {
        "input_tokens": usage.uncached_input,
        "cache_creation_input_tokens": usage.cache_write_5m + usage.cache_write_1h,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
    }
