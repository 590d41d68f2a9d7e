"""From a request's body to its prompt as a provider's cache sees it: `cache_prompt`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.model import Reason
from gateway.core.prefix import CachePrompt
from gateway.wire import (
    anthropic_messages_blocks,
    bedrock_converse_blocks,
    openai_chat_blocks,
    openai_responses_blocks,
)
from gateway.wire.base import NotUnderstood
from gateway.wire.lenient import text

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.canonical import Json
    from gateway.providers.prompt_cache import CacheRules
    from gateway.wire.block_parts import Object, Skipped

_READERS: dict[str, Callable[[Object, CacheRules | None, Skipped | None], CachePrompt]] = {
    reader.API: reader.read
    for reader in (
        anthropic_messages_blocks,
        openai_chat_blocks,
        openai_responses_blocks,
        bedrock_converse_blocks,
    )
}


def cache_prompt(
    api: str, document: Json, rules: CacheRules | None, skipped: Skipped | None = None
) -> CachePrompt:
    """The prompt of a request to this wire API; without blocks where the API has no markers.

    `document` is the parsed body, members in its order. Without `rules`, or with rules that take
    no markers on this API, no block can be marked, and no text is cut into pieces. `skipped` are
    messages that were left out of the document.
    Raises `NotUnderstood` for what is no request at all.
    """
    if not isinstance(document, dict):
        raise NotUnderstood(Reason.NOT_UNDERSTOOD, "$", "not a JSON object")
    reader = _READERS.get(api)
    if reader is None:
        return CachePrompt(api, text(document.get("model")), (), 0, 0)
    try:
        return reader(document, rules, skipped)
    except (TypeError, RecursionError) as error:
        # What is nested deeper than it can be written again.
        raise NotUnderstood(Reason.NOT_UNDERSTOOD, "$", str(error)) from error
