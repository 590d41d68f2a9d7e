"""An endpoint that we know nothing about: the most careful rules.

Only the form of the answer and our own headers are left out of the key; no default is eliminated;
tool-call ids, tool objects and content spelling stay as they are, because a chat template may
render any of them.
"""

from __future__ import annotations

from gateway.providers.anthropic import MESSAGES, MESSAGES_SCALARS
from gateway.providers.anthropic import STREAM_FORM as MESSAGES_FORM
from gateway.providers.base import Provider, spoken_elsewhere
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

UNKNOWN = Provider(
    name="unknown",
    otel_name="_OTHER",
    base_url=None,
    hosts=frozenset(),
    apis={
        "openai_chat": spoken_elsewhere(CHAT, CHAT_SCALARS, CHAT_FORM),
        "openai_completions": spoken_elsewhere(COMPLETIONS, COMPLETIONS_SCALARS, COMPLETIONS_FORM),
        "openai_embeddings": spoken_elsewhere(EMBEDDINGS, UNKNOWN_EMBEDDINGS_SCALARS, {}),
        "openai_responses": spoken_elsewhere(RESPONSES, RESPONSES_SCALARS, RESPONSES_FORM),
        "anthropic_messages": spoken_elsewhere(MESSAGES, MESSAGES_SCALARS, MESSAGES_FORM),
    },
    header_prefixes=None,
)
