"""Anthropic: what its API docs and SDK types document. Read 2026-11 (anthropic-sdk 2.12)."""

from __future__ import annotations

from gateway.providers.base import ApiRules, Provider, Rule, sourced

_PARAMS = "anthropic-sdk-python 2.12 types/message_create_params.py"
_CACHING = "platform.claude.com/docs/en/build-with-claude/prompt-caching (2026-09)"

_PARAMETER = Rule("a sampling or transport parameter: read as a JSON value, not as text", _PARAMS)

MESSAGES_SCALARS = {
    **dict.fromkeys(
        ("max_tokens", "model", "service_tier", "speed", "stop_sequences", "thinking"), _PARAMETER
    ),
    # Gone from the types of the current SDK, but older models and clients know them.
    **dict.fromkeys(
        ("temperature", "top_k", "top_p"),
        Rule(_PARAMETER.reason, "anthropic-sdk-python 0.121 types/message_create_params.py"),
    ),
}

STREAM_FORM = {"stream": Rule("only the form of the answer; one entry serves both", _PARAMS)}

MESSAGES_KEYED = sourced(
    _PARAMS,
    {
        "container": "names a workspace that the provider keeps: passed, never cached",
        "diagnostics": "the answer explains its cache miss against the message named here",
        "inference_geo": "where it is computed; the answer echoes it",
        "messages": "the prompt, with rules of its own",
        "output_config": "holds a schema, rendered as spelled, and how hard to think",
        "system": "the prompt, with rules of its own",
        "tools": "the prompt, with rules of its own",
        "user_profile_id": "the SDK sends it as a header, which is keyed by its prefix",
        "workspace_id": "the SDK sends it as a header, which is keyed by its prefix",
    },
)

MESSAGES = ApiRules(
    keyed=MESSAGES_KEYED,
    excluded={
        **STREAM_FORM,
        "cache_control": Rule("top-level automatic prompt caching; output is the same", _CACHING),
    },
    excluded_members={
        "metadata": {"user_id": Rule("end-user id for abuse detection; never shown", _PARAMS)}
    },
    # No defaults: the reference documents none that hold for every model.
    scalars={
        **MESSAGES_SCALARS,
        "tool_choice": Rule("a typed object, read by name: type, name, ...", _PARAMS),
    },
    markers={"cache_control": Rule("marks a prompt-cache boundary; not in the hash", _CACHING)},
    fold_tools=Rule("tools are typed objects, rendered by the provider in its own order", _PARAMS),
    # No `fold_schemas`: a tool whose schema has its keys in another order is documented to miss the
    # prompt cache (_CACHING), so the order is rendered.
    string_is_text_part=Rule(
        "a string is shorthand for one content block of type text; `system` needs the list form"
        " only to carry a marker",
        f"{_PARAMS}: messages; {_CACHING}: system",
    ),
    rename_tool_ids=Rule("opaque handles that only join a tool_use to its tool_result", _PARAMS),
    # "On Claude Opus 4.8, requests without a thinking field run without thinking; on Claude Opus 5,
    # the same requests run with adaptive thinking" (migration guide of Opus 5). Later ones all do.
    plain_models=("claude-3", "claude-opus-4", "claude-sonnet-4", "claude-haiku-4"),
)

ANTHROPIC = Provider(
    name="anthropic",
    otel_name="anthropic",
    base_url="https://api.anthropic.com/v1",
    hosts=frozenset({"api.anthropic.com"}),
    apis={"anthropic_messages": MESSAGES},
    header_prefixes=("anthropic-",),
    header_sets=frozenset({"anthropic-beta"}),
    credential_header="x-api-key",
)
