"""From a route to the API that it speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.wire.anthropic_messages import AnthropicMessages
from gateway.wire.openai_chat import OpenAIChat
from gateway.wire.openai_completions import OpenAICompletions
from gateway.wire.openai_embeddings import OpenAIEmbeddings
from gateway.wire.openai_responses import OpenAIResponses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.wire.base import WireApi

OPENAI_CHAT: WireApi = OpenAIChat()
OPENAI_COMPLETIONS: WireApi = OpenAICompletions()
OPENAI_RESPONSES: WireApi = OpenAIResponses()
OPENAI_EMBEDDINGS: WireApi = OpenAIEmbeddings()
ANTHROPIC_MESSAGES: WireApi = AnthropicMessages()

APIS = {
    api.route: api
    for api in (
        OPENAI_CHAT,
        OPENAI_COMPLETIONS,
        OPENAI_RESPONSES,
        OPENAI_EMBEDDINGS,
        ANTHROPIC_MESSAGES,
    )
}


def error_api(path: str, headers: Mapping[str, str]) -> WireApi:
    """Whose error shape a request expects that may be for no understood API at all."""
    if "/messages" in path or "anthropic-version" in headers:
        return ANTHROPIC_MESSAGES
    return OPENAI_CHAT
