"""llama.cpp's server: what its README documents. Read 2026-11.

Nothing is folded that a chat template could render (parts, tools, ids), and no default is
eliminated: those of sampling are set by the server's arguments. `cache_prompt` is documented as
able to change the answer ("can cause nondeterministic results"), so it and the slot are keyed.
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
    UNKNOWN_EMBEDDINGS_SCALARS,
)
from gateway.providers.openai_responses import RESPONSES, RESPONSES_SCALARS
from gateway.providers.openai_responses import STREAM_FORM as RESPONSES_FORM

_README = "llama.cpp master 00dc805, tools/server/README.md (read 2026-11)"
_USAGE = "llama.cpp pull request 22081, which tells how usage is streamed (2026-04)"

# Of `/completion`, and documented as supported by the compatible endpoints as well.
_SAMPLING = dict.fromkeys(
    (
        "dry_allowed_length",
        "dry_base",
        "dry_multiplier",
        "dry_penalty_last_n",
        "dynatemp_exponent",
        "dynatemp_range",
        "ignore_eos",
        "min_keep",
        "min_p",
        "mirostat",
        "mirostat_eta",
        "mirostat_tau",
        "n_cmpl",
        "n_indent",
        "n_keep",
        "n_predict",
        "n_probs",
        "post_sampling_probs",
        "repeat_last_n",
        "repeat_penalty",
        "t_max_predict_ms",
        "top_k",
        "typical_p",
        "xtc_probability",
        "xtc_threshold",
    ),
    "a sampling parameter: a number or a switch, read as a value",
)
_GENERATE = {
    "cache_prompt": "reuses computed tokens, which may change the logits",
    "dry_sequence_breakers": "a sampling parameter: texts, in their order",
    "grammar": "constrains the answer",
    "id_slot": "picks what computed tokens are at hand, which may change the logits",
    "json_schema": "constrains the answer; properties are answered in its order",
    "lora": "picks adapters: changes the answer",
    "n_cache_reuse": "reuses computed tokens, which may change the logits",
    "response_fields": "picks what the answer says",
    "return_progress": "adds events to the stream",
    "return_tokens": "adds to the answer",
    "samplers": "a sampling parameter: names, in their order",
    "timings_per_token": "adds to the answer",
}
_CHAT_ONLY = {
    "chat_template_kwargs": "given to the chat template, as spelled",
    "reasoning_control": "lets others end the reasoning of this answer",
    "reasoning_format": "decides where the answer states its reasoning",
}
_PINGS = sourced(
    _README, {"sse_ping_interval": "only the form of the stream: comments while it is silent"}
)

LLAMACPP = Provider(
    name="llamacpp",
    otel_name="llamacpp",
    base_url=None,
    hosts=frozenset(),
    apis={
        "openai_chat": spoken_elsewhere(
            CHAT,
            {**CHAT_SCALARS, **sourced(_README, _SAMPLING)},
            CHAT_FORM,
            excluded=_PINGS,
            keyed=sourced(_README, {**_GENERATE, **_CHAT_ONLY}),
            stream_usage=Rule("stream_options.include_usage", _USAGE),
        ),
        "openai_completions": spoken_elsewhere(
            COMPLETIONS,
            {**COMPLETIONS_SCALARS, **sourced(_README, _SAMPLING)},
            COMPLETIONS_FORM,
            excluded=_PINGS,
            keyed=sourced(_README, _GENERATE),
            stream_usage=Rule("stream_options.include_usage", _USAGE),
        ),
        "openai_embeddings": spoken_elsewhere(
            EMBEDDINGS,
            UNKNOWN_EMBEDDINGS_SCALARS,
            {},
            keyed=sourced(_README, {"embd_normalize": "changes the length of the vectors"}),
        ),
        "openai_responses": spoken_elsewhere(RESPONSES, RESPONSES_SCALARS, RESPONSES_FORM),
        "anthropic_messages": spoken_elsewhere(MESSAGES, MESSAGES_SCALARS, MESSAGES_FORM),
    },
    header_prefixes=None,
)
