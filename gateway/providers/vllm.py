"""vLLM: what its request models document. Read 2026-11.

Nothing is folded that a chat template could render (parts, tools, ids), and no default is
eliminated: those of sampling come from the model's generation_config.json, or from
`--generation-config`. Left out is only what is documented as ignored, or as the form of a stream.
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

_CHAT = "vLLM main 002032e, entrypoints/openai/chat_completion/protocol.py (read 2026-11)"
_COMPLETION = "vLLM main 002032e, entrypoints/openai/completion/protocol.py (read 2026-11)"
_RESPONSES = "vLLM main 010a69c, entrypoints/openai/responses/protocol.py (read 2026-11)"
_POOLING = "vLLM main 020638a, entrypoints/pooling/base/protocol.py (read 2026-11)"
_MESSAGES = "vLLM main 00589e5, entrypoints/anthropic/protocol.py (read 2026-11)"
_OLDER = "vLLM 0.10 docs, OpenAI-compatible server, extra parameters"

_PARAMETER = "a sampling parameter: read by a typed model, as a value"
_SAMPLING = {
    **dict.fromkeys(
        (
            "allowed_token_ids",
            "bad_words",
            "ignore_eos",
            "include_stop_str_in_output",
            "length_penalty",
            "logprob_token_ids",
            "min_p",
            "min_tokens",
            "prompt_logprobs",
            "repetition_penalty",
            "skip_special_tokens",
            "spaces_between_special_tokens",
            "stop_token_ids",
            "thinking_token_budget",
            "top_k",
            "truncate_prompt_tokens",
            "truncation_side",
            "use_beam_search",
            "watermarking",
        ),
        _PARAMETER,
    ),
    "repetition_detection": "a typed object of numbers: may end the answer early",
}
_IDS = {
    "cache_salt": "separates whose prompts may be told from timing: so must an answer be",
    "priority": "any but 0 is an error where the server has no priority scheduling",
    "request_id": "the answer's id is made of it",
    "session_id": "names a session; nothing says that the answer does not depend on it",
}
_STATE = {
    "ec_transfer_params": "names blocks that another server holds: passed, never cached",
    "kv_transfer_params": "names blocks that another server holds: passed, never cached",
}
_GENERATE = {
    **_IDS,
    **_STATE,
    "add_special_tokens": "changes the prompt",
    "return_token_ids": "adds to the answer",
    "return_tokens_as_token_ids": "changes how logprobs are spelled",
    "routed_experts_prompt_start": "changes what the answer says of its experts",
    "structured_outputs": "holds a schema or grammar; properties are answered in its order",
    "vllm_xargs": "parameters of extensions, of any meaning",
}
_GUIDED = dict.fromkeys(
    (
        "guided_choice",
        "guided_decoding_backend",
        "guided_grammar",
        "guided_json",
        "guided_regex",
        "guided_whitespace_pattern",
    ),
    "constrains the answer; a schema's properties are answered in its order",
)
_TEMPLATE = {
    "add_generation_prompt": "given to the chat template: changes the prompt",
    "chat_template": "replaces the chat template: changes the prompt",
    "chat_template_kwargs": "given to the chat template, as spelled",
    "continue_final_message": "given to the chat template: changes the prompt",
    "media_io_kwargs": "changes how images, audio and video are read",
    "mm_processor_kwargs": "changes how images, audio and video are read",
}
_CHAT_ONLY = {
    **_TEMPLATE,
    "documents": "given to the chat template, as spelled",
    "echo": "puts the last message before the answer",
    "include_reasoning": "decides whether the answer states its reasoning",
    "return_prompt_text": "adds to the answer",
}
_COMPLETION_ONLY = {"prompt_embeds": "the prompt, as tensors"}
_IGNORED = {
    "return_mm_kwargs": "of the render endpoints only; documented as ignored on this one",
    "return_token_offsets": "of the render endpoints only; documented as ignored on this one",
    "stream_interval": "only the form of the stream: tokens per chunk",
}
_USAGE = "stream_options.include_usage"

VLLM = Provider(
    name="vllm",
    otel_name="vllm",
    base_url=None,
    hosts=frozenset(),
    apis={
        "openai_chat": spoken_elsewhere(
            CHAT,
            {**CHAT_SCALARS, **sourced(_CHAT, _SAMPLING)},
            CHAT_FORM,
            excluded=sourced(_CHAT, {**_IGNORED, "user": "documented as ignored"}),
            keyed={**sourced(_CHAT, {**_GENERATE, **_CHAT_ONLY}), **sourced(_OLDER, _GUIDED)},
            stream_usage=Rule(_USAGE, _CHAT),
        ),
        "openai_completions": spoken_elsewhere(
            COMPLETIONS,
            {**COMPLETIONS_SCALARS, **sourced(_COMPLETION, _SAMPLING)},
            COMPLETIONS_FORM,
            excluded=sourced(_COMPLETION, _IGNORED),
            keyed={
                **sourced(
                    _COMPLETION,
                    {
                        **_GENERATE,
                        **_COMPLETION_ONLY,
                        "response_format": "holds a schema; properties are answered in its order",
                    },
                ),
                **sourced(_OLDER, _GUIDED),
            },
            stream_usage=Rule(_USAGE, _COMPLETION),
        ),
        "openai_embeddings": spoken_elsewhere(
            EMBEDDINGS,
            {
                **UNKNOWN_EMBEDDINGS_SCALARS,
                **sourced(
                    _POOLING,
                    {
                        "add_special_tokens": "for each input alone; a parameter",
                        "padding": "for each input alone; a parameter",
                        "truncate_prompt_tokens": "for each input alone; a parameter",
                        "truncation_side": "for each input alone; a parameter",
                        "use_activation": "for each input alone; a parameter",
                    },
                ),
            },
            {},
            keyed=sourced(
                _POOLING,
                {
                    **{name: why for name, why in _IDS.items() if name != "session_id"},
                    **_TEMPLATE,
                    "embed_dtype": "how each number of a vector is spelled",
                    "endianness": "how each number of a vector is spelled",
                    "messages": "instead of inputs: one prompt of several messages",
                },
            ),
        ),
        "openai_responses": spoken_elsewhere(
            RESPONSES,
            RESPONSES_SCALARS,
            RESPONSES_FORM,
            keyed=sourced(
                _RESPONSES,
                {
                    "cache_salt": _IDS["cache_salt"],
                    "enable_response_messages": "adds to the answer",
                    "ignore_eos": "a sampling parameter, kept as spelled",
                    "include_stop_str_in_output": "a sampling parameter, kept as spelled",
                    "logit_bias": "a sampling parameter, kept as spelled",
                    "mm_processor_kwargs": _TEMPLATE["mm_processor_kwargs"],
                    "previous_input_messages": "the prompt, as spelled",
                    "previous_response": "the prompt, as spelled",
                    "priority": _IDS["priority"],
                    "repetition_penalty": "a sampling parameter, kept as spelled",
                    "request_id": _IDS["request_id"],
                    "seed": "a sampling parameter, kept as spelled",
                    "skip_special_tokens": "a sampling parameter, kept as spelled",
                    "stop": "a sampling parameter, kept as spelled",
                    "structured_outputs": _GENERATE["structured_outputs"],
                    "top_k": "a sampling parameter, kept as spelled",
                    "vllm_xargs": _GENERATE["vllm_xargs"],
                },
            ),
        ),
        "anthropic_messages": spoken_elsewhere(
            MESSAGES,
            MESSAGES_SCALARS,
            MESSAGES_FORM,
            keyed=sourced(
                _MESSAGES,
                {
                    "chat_template_kwargs": _TEMPLATE["chat_template_kwargs"],
                    "kv_transfer_params": _STATE["kv_transfer_params"],
                },
            ),
        ),
    },
    header_prefixes=None,
)
