"""A request cut down to what writes (or reads) its prompt in the provider's cache: `prefill_body`.

Nobody wants its answer: it asks for none where the provider has a way to say so, else for the
shortest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from gateway.core.blocks import Section
from gateway.core.plan import Mark, Plan, PlanReason
from gateway.wire.marking import marked
from gateway.wire.prompt_blocks import cache_prompt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.prefix import CachePrompt
    from gateway.providers.prompt_cache import CacheRules

# What an answer would be formed by, and nothing of the prompt.
_OF_THE_ANSWER = frozenset(
    (
        *("stream", "stream_options", "n", "best_of", "background", "metadata"),
        *("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict"),
    )
)
# With whose credential servers, data and kept conversations are read, or what somebody filled in: sent
# without its author, each would be used in their name.
_SOMEBODYS = (
    *("mcp_servers", "data_sources"),
    *("previous_response_id", "conversation", "prompt"),
)
_OF_A_TOOL = frozenset(("authorization", "authorization_token", "headers"))
# "Minimum 16" (OpenAI, reference of responses, 2026-10).
_SHORTEST_RESPONSE = 16
_PLACEHOLDER = "."


def prefill_body(
    api: str, document: Mapping[str, Any], rules: CacheRules | None, *, shortest: bool = False
) -> bytes:
    """The request's body. `shortest`: one token is asked for even where none could be: for a
    server that refused the other form.
    """
    body = {name: value for name, value in document.items() if name not in _OF_THE_ANSWER}
    how = "" if shortest or rules is None else rules.prewarm
    provider = "" if rules is None else rules.provider
    if api == "anthropic_messages":
        if how == "max_tokens=0" and _may_be_empty(body):
            body["max_tokens"] = 0
        else:
            body["max_tokens"] = 1 + _budget(body)
    elif how == "prewarm" and api == "openai_responses":
        options = body.get("prompt_cache_options")
        known = options if isinstance(options, dict) else {}
        body["prompt_cache_options"] = {**known, "prewarm": True}
    elif how == "n_predict=0":
        body["n_predict"] = 0
    elif api == "openai_responses":
        body["max_output_tokens"] = _SHORTEST_RESPONSE
    elif provider in {"openai", "azure"} and api == "openai_chat":
        # `max_tokens` is refused by models that reason.
        body["max_completion_tokens"] = 1
    else:
        body["max_tokens"] = 1
    if api == "openai_responses" and provider in {"openai", "azure"}:
        # Nothing to keep for a later turn.
        body.setdefault("store", False)
    return orjson.dumps(body)


def _may_be_empty(body: Mapping[str, Any]) -> bool:
    """Anthropic refuses `max_tokens: 0` beside thinking, a format, or a tool that must be used."""
    thinking, config, choice = (body.get(n) for n in ("thinking", "output_config", "tool_choice"))
    if isinstance(thinking, dict) and thinking.get("type") != "disabled":
        return False
    if isinstance(config, dict) and config.get("format") is not None:
        return False
    return not (isinstance(choice, dict) and choice.get("type") in {"any", "tool"})


def _budget(body: Mapping[str, Any]) -> int:
    """What thinking may take at least: the limit has to be above it."""
    thinking = body.get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    return budget if isinstance(budget, int) and not isinstance(budget, bool) else 0


def lead_of(prompt: CachePrompt) -> int:
    """The last block that all conversations with this beginning share: before the first message of
    anybody; -1 without any.
    """
    last = -1
    for at, block in enumerate(prompt.blocks):
        if block.section is Section.MESSAGES:
            break
        last = at
    return last


def lead_document(api: str, document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The request with nothing said in it but what leads it: tools and system texts; None where it
    can't be told, or where it holds a credential of its author, or names what is kept for them.
    """
    if _is_somebodys(document):
        return None
    # (A text that the answer is expected to repeat was said, too.)
    document = {name: value for name, value in document.items() if name != "prediction"}
    if api == "anthropic_messages":
        return {**document, "messages": [{"role": "user", "content": _PLACEHOLDER}]}
    name = {"openai_chat": "messages", "openai_responses": "input"}.get(api)
    said = document.get(name) if name else None
    if name is None or not isinstance(said, list):
        return None
    leading: list[Any] = []
    for each in said:
        if not isinstance(each, dict) or each.get("role") not in {"system", "developer"}:
            break
        leading.append(each)
    return {**document, name: [*leading, {"role": "user", "content": _PLACEHOLDER}]}


def _is_somebodys(document: Mapping[str, Any]) -> bool:
    if any(document.get(name) for name in _SOMEBODYS):
        return True
    tools = document.get("tools")
    return isinstance(tools, list) and any(
        isinstance(each, dict) and (each.get("type") == "mcp" or not _OF_A_TOOL.isdisjoint(each))
        for each in tools
    )


def with_marker(
    api: str, body: bytes, rules: CacheRules, hold_s: float
) -> tuple[bytes, CachePrompt]:
    """The body marked at the end of what leads it (or at its end, where nothing does) for a lifetime
    of `hold_s` seconds or the longest there is, and its prompt as it is then. One that its author has
    marked, or that takes none, stays as it is. Raises ValueError for what can't be marked.
    """
    prompt = cache_prompt(api, orjson.loads(body), rules)
    if not rules.takes_markers or prompt.marked_by_client or not prompt.blocks:
        return body, prompt
    ttls = [each.ttl_s for each in rules.lifetimes]
    ttl_s = next((each for each in ttls if each >= hold_s), ttls[-1])
    end = lead_of(prompt)
    places = range(end if end >= 0 else len(prompt.blocks) - 1, -1, -1)
    at = next((place for place in places if prompt.blocks[place].can_mark), None)
    if at is None:
        return body, prompt
    plan = Plan(PlanReason.PLACED, marks=(Mark(at, ttl_s),))
    sent = marked(body, prompt, plan, rules)
    return sent, cache_prompt(api, orjson.loads(sent), rules)
