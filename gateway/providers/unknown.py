"""An endpoint that we know nothing about: the most careful rules.

Only the form of the answer and our own headers are left out of the key; no default is eliminated;
tool-call ids, tool objects and content spelling stay as they are, because a chat template may
render any of them.
"""

from __future__ import annotations

from gateway.providers.anthropic import MESSAGES_SCALARS
from gateway.providers.anthropic import STREAM_FORM as MESSAGES_FORM
from gateway.providers.base import ApiRules, Provider
from gateway.providers.openai import CHAT_SCALARS
from gateway.providers.openai import STREAM_FORM as CHAT_FORM
from gateway.providers.openai_other import (
    COMPLETIONS_FORM,
    COMPLETIONS_SCALARS,
    UNKNOWN_EMBEDDINGS_SCALARS,
)
from gateway.providers.openai_responses import RESPONSES_SCALARS
from gateway.providers.openai_responses import STREAM_FORM as RESPONSES_FORM

UNKNOWN = Provider(
    name="unknown",
    otel_name="_OTHER",
    base_url=None,
    hosts=frozenset(),
    apis={
        "openai_chat": ApiRules(excluded=CHAT_FORM, scalars=CHAT_SCALARS),
        "openai_completions": ApiRules(excluded=COMPLETIONS_FORM, scalars=COMPLETIONS_SCALARS),
        "openai_embeddings": ApiRules(scalars=UNKNOWN_EMBEDDINGS_SCALARS),
        "openai_responses": ApiRules(excluded=RESPONSES_FORM, scalars=RESPONSES_SCALARS),
        "anthropic_messages": ApiRules(excluded=MESSAGES_FORM, scalars=MESSAGES_SCALARS),
    },
    header_prefixes=None,
)
