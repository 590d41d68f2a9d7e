"""OpenAI Chat Completions: how its choices end, and where its answers hold tool calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.model import Finish
from gateway.wire import lenient, openai_chat_stream
from gateway.wire.plain_answers import is_plain_chat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.providers.base import ApiRules
    from gateway.wire.envelope import Object

_FINISHES = {
    "stop": Finish.COMPLETE,
    "tool_calls": Finish.COMPLETE,
    "function_call": Finish.COMPLETE,
    "length": Finish.TRUNCATED,
    "content_filter": Finish.REFUSED,
}
_NO_ANSWER = ("role", "reasoning", "thinking")


class ChatShape:
    """See `Shape`: `chat.completion` and `chat.completion.chunk`."""

    def merge(self, chunks: list[Object], rules: ApiRules) -> Object:
        """See `Shape.merge`."""
        return openai_chat_stream.merge(chunks, rules)

    def split(self, document: Object, *, include_usage: bool) -> Iterator[Object]:
        """See `Shape.split`."""
        return openai_chat_stream.split(document, include_usage=include_usage)

    def splits(self, document: Object, rules: ApiRules) -> bool:
        """See `Shape.splits`."""
        return is_plain_chat(document, rules) or openai_chat_stream.splits_cleanly(document, rules)

    def finish(self, choice: Object) -> Finish:
        """See `Shape.finish`."""
        message = choice.get("message")
        reason = choice.get("finish_reason")
        if not isinstance(message, dict):
            return Finish.UNKNOWN
        if lenient.says(message.get("refusal")):
            return Finish.REFUSED
        known = _FINISHES.get(reason) if isinstance(reason, str) else None
        finish = known or Finish.UNKNOWN
        if finish is not Finish.REFUSED and not any(
            lenient.says(message.get(name))
            for name in ("content", "tool_calls", "function_call", "audio")
        ):
            return Finish.EMPTY
        return finish

    def sketch(self, pieces: list[Object]) -> Object:
        """See `Shape.sketch`: enough to tell empty from refused from an answer of some kind."""
        said: Object = {}
        for piece in pieces:
            for name, value in lenient.members(piece.get("delta")).items():
                if lenient.says(value) and not name.startswith(_NO_ANSWER):
                    said[name if name == "refusal" else "content"] = True
        return {"message": said}

    def tool_calls(self, owner: Object) -> list[Object]:
        """See `Shape.tool_calls`."""
        return [
            call
            for choice in lenient.objects(owner.get("choices"))
            for holder in ("message", "delta")
            for call in lenient.objects(lenient.members(choice.get(holder)).get("tool_calls"))
        ]
