"""OpenAI's Chat Completions and Responses as the simulation answers them: refusals, cache usage."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gateway.lab import sim_openai_rules, sim_prompt, stub_openai, stub_responses
from gateway.lab.sim_diagnostics import Diagnostics

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.model import Usage
    from gateway.lab.sim_prompt import Rendered
    from gateway.lab.stub_answers import Reply

Json = dict[str, Any]


def chat(body: Json, bill: Callable[[Rendered, bool], Usage]) -> Reply:
    """Answer one chat completion; `bill` says what it reads and writes, told whether it fails."""
    refused = _refused("chat", body)
    if refused is not None:
        return refused
    query = stub_openai.read(body)
    failed = stub_openai.steered(query, streaming=body.get("stream") is True)
    usage = bill(sim_prompt.openai("chat", body), failed is not None)
    if failed is not None:
        return failed
    document = stub_openai.document(body, query)
    spent = document["usage"]
    spent["prompt_tokens"] = usage.input
    spent["total_tokens"] = usage.input + spent["completion_tokens"]
    spent["prompt_tokens_details"].update(_cached(body, usage))
    return replace(stub_openai.answer(document, body, query), billed=document)


def responses(
    body: Json,
    bill: Callable[[Rendered, bool], Usage],
    diagnostics: Diagnostics | None = None,
    scope: str = "",
) -> Reply:
    """Answer one request to the Responses API, as above. `diagnostics`: what is remembered of
    earlier ones; `scope`: whose they are.
    """
    refused = _refused("responses", body)
    if refused is not None:
        return refused
    query = stub_responses.read(body)
    failed = stub_openai.steered(query, streaming=body.get("stream") is True)
    prompt = sim_prompt.openai("responses", body)
    usage = bill(prompt, failed is not None)
    if failed is not None:
        return failed
    document = stub_responses.document(body, query)
    spent = document["usage"]
    options = body.get("prompt_cache_options") or {}
    if options.get("prewarm") is True:
        document["output"] = []
        spent["output_tokens"] = 0
    known = diagnostics or Diagnostics()
    diagnosed = known.openai(scope, body, prompt, document["id"], usage)
    if diagnosed is not None:
        document["prompt_cache_diagnostics"] = diagnosed
    spent["input_tokens"] = usage.input
    spent["total_tokens"] = usage.input + spent["output_tokens"]
    # Both are required here, 0 where a model bills no writes.
    spent["input_tokens_details"].update({"cache_write_tokens": 0, **_cached(body, usage)})
    return replace(stub_responses.reply(document, body, query), billed=document)


def _refused(api: str, body: Json) -> Reply | None:
    fault = sim_openai_rules.refusal(api, body)
    if fault is None:
        return None
    return stub_openai.error(400, fault.message, code=fault.code, param=fault.param)


def _cached(body: Json, usage: Usage) -> Json:
    """Inclusive counts: parts of the prompt's tokens."""
    told = {"cached_tokens": usage.cache_read}
    if sim_openai_rules.takes_breakpoints(body["model"]):
        told["cache_write_tokens"] = usage.cache_write_5m + usage.cache_write_1h
    return told
