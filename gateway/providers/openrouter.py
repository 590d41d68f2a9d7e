"""OpenRouter: what its docs and SDK document. Read 2026-11.

It routes to models of any author, open ones among them, whose templates may render parts, tools
and ids (Kimi and Mistral read their ids): nothing of that is folded or renamed. It documents
defaults, but models bring their own: none is eliminated. Who answers is asked for by `provider`,
`models`, `route`: all keyed. A session only sticks to one of those that may answer anyway.
"""

from __future__ import annotations

from gateway.providers.anthropic import MESSAGES, MESSAGES_SCALARS
from gateway.providers.anthropic import STREAM_FORM as MESSAGES_FORM
from gateway.providers.base import Provider, Rule, sourced, spoken_elsewhere
from gateway.providers.openai import CHAT, CHAT_SCALARS
from gateway.providers.openai import STREAM_FORM as CHAT_FORM
from gateway.providers.openai_other import (
    COMPLETIONS,
    COMPLETIONS_FORM,
    COMPLETIONS_SCALARS,
    EMBEDDINGS,
    EMBEDDINGS_SCALARS,
)
from gateway.providers.openai_responses import RESPONSES, RESPONSES_SCALARS
from gateway.providers.openai_responses import STREAM_FORM as RESPONSES_FORM

_CHAT = "OpenRouterTeam/python-sdk 0129319, components/chatrequest.py (read 2026-11)"
_RESPONSES = "OpenRouterTeam/python-sdk 0216a4c, components/responsesrequest.py (read 2026-11)"
_DOCS = "openrouter.ai/docs/api/reference/overview (read 2026-11)"
_ROUTING = "openrouter.ai/docs/guides/best-practices/prompt-caching (read 2026-11)"
_USAGE = "openrouter.ai/docs/use-cases/usage-accounting (read 2026-11)"

_LABELS = {
    "session_id": "groups requests and sticks to one of the providers that may answer anyway",
    "trace": "names for observability, handed on to the caller's own tools",
}
_CACHE = {
    "cache_control": "top-level automatic prompt caching; output is the same",
    "prompt_cache_key": "routes to a warm prompt cache; output is the same",
    "prompt_cache_options": "steers the prompt cache; output is the same",
}
_PARAMETERS = dict.fromkeys(
    ("min_p", "repetition_penalty", "top_a", "top_k"),
    "a sampling parameter: a number, read as a value",
)
_WHO = {
    "models": "models to fall back to, in this order: changes who answers",
    "preset": "names settings that are kept and changed there: passed, never cached",
    "provider": "preferences for providers: changes who answers, and how precisely",
    "route": "how to fall back: changes who answers",
}
_HOW = {
    "debug": "adds the request that was made upstream to the stream",
    "image_config": "parameters of images that the answer holds",
    "plugins": "may search the web: passed, never cached",
    "stop_server_tools_when": "ends the loop of tools that run there",
}
_NO_EFFECT = sourced(_USAGE, {"usage": "documented as without effect: usage is always stated"})
_STATED = Rule("usage is always stated, in the last event of a stream", _USAGE)
_OLDER = {
    "include_reasoning": "decides whether the answer states its reasoning",
    "transforms": "may shorten the prompt",
}

OPENROUTER = Provider(
    name="openrouter",
    otel_name="openrouter",
    base_url="https://openrouter.ai/api/v1",
    hosts=frozenset({"openrouter.ai"}),
    apis={
        "openai_chat": spoken_elsewhere(
            CHAT,
            {**CHAT_SCALARS, **sourced(_CHAT, _PARAMETERS)},
            CHAT_FORM,
            excluded={
                **sourced(
                    _CHAT,
                    {
                        **_CACHE,
                        **_LABELS,
                        "user": "end-user id, folded into a hashed identity; never shown",
                    },
                ),
                **_NO_EFFECT,
            },
            keyed={
                **sourced(_CHAT, {**_WHO, **_HOW, "reasoning": "how hard to think"}),
                **sourced(_DOCS, _OLDER),
            },
            usage_always=_STATED,
        ),
        "openai_completions": spoken_elsewhere(
            COMPLETIONS,
            {**COMPLETIONS_SCALARS, **sourced(_CHAT, _PARAMETERS)},
            COMPLETIONS_FORM,
            excluded=_NO_EFFECT,
            usage_always=_STATED,
            keyed=sourced(_DOCS, {**_WHO, **_HOW, **_OLDER, "reasoning": "how hard to think"}),
        ),
        "openai_embeddings": spoken_elsewhere(
            EMBEDDINGS,
            {**EMBEDDINGS_SCALARS, "user": Rule("an id of the end-user; a parameter", _DOCS)},
            {},
            keyed=sourced(_DOCS, {"provider": _WHO["provider"]}),
        ),
        "openai_responses": spoken_elsewhere(
            RESPONSES,
            RESPONSES_SCALARS,
            RESPONSES_FORM,
            # Its answers state most of the request again; none of these is among that.
            excluded=sourced(_RESPONSES, {**_LABELS, "cache_control": _CACHE["cache_control"]}),
            keyed=sourced(
                _RESPONSES,
                {
                    **_WHO,
                    **_HOW,
                    "frequency_penalty": "a sampling parameter, kept as spelled",
                    "modalities": "what the answer is made of",
                    "presence_penalty": "a sampling parameter, kept as spelled",
                    "top_k": "a sampling parameter, kept as spelled",
                },
            ),
        ),
        "anthropic_messages": spoken_elsewhere(
            MESSAGES,
            MESSAGES_SCALARS,
            MESSAGES_FORM,
            keyed=sourced(_DOCS, {**_WHO, **_LABELS, "plugins": _HOW["plugins"]}),
        ),
    },
    header_prefixes=("x-openrouter-", "anthropic-", "x-anthropic-", "openai-"),
    header_sets=frozenset({"anthropic-beta", "x-anthropic-beta", "openai-beta"}),
    headers_excluded={
        **sourced(
            _DOCS,
            {
                "http-referer": "attributes the request to an app, for rankings",
                "x-openrouter-categories": "attributes the request to an app, for rankings",
                "x-openrouter-title": "attributes the request to an app, for rankings",
                "x-title": "attributes the request to an app, for rankings",
            },
        ),
        **sourced(_ROUTING, {"x-session-id": _LABELS["session_id"]}),
    },
)
