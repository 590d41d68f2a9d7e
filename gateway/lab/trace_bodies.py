"""Recorded conversations in OpenAI's chat form, as request bodies of the API that is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.lab.trace import Document

CHAT_ROUTE = "/v1/chat/completions"
MESSAGES_ROUTE = "/v1/messages"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of a conversation."""

    body: Document
    before: str
    """The role of the last message: who the model answers."""
    answer_bytes: int
    """About how long the recorded answer was."""
    number: int
    """Index of the answer among the conversation's messages."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in OpenAI's chat form; each one of the assistant's answers a request."""

    messages: Sequence[Document]
    tools: Sequence[Document] = ()
    system: Sequence[str] = field(default_factory=tuple)
    """Put before everything: what all conversations share."""

    def requests(self, api: str, model: str) -> Iterator[Asked]:
        """One for each of the assistant's messages; if there is none, one that ends with the last."""
        messages: list[Document] = [
            *({"role": "system", "content": text} for text in self.system),
            *self.messages,
        ]
        ahead = len(messages) - len(self.messages)
        form = (
            _Messages(model, self.tools)
            if api == "anthropic_messages"
            else _Chat(model, self.tools)
        )
        asked = False
        for index, message in enumerate(messages):
            if message["role"] == "assistant" and index > ahead:
                asked = True
                yield Asked(
                    form.body(),
                    str(messages[index - 1]["role"]),
                    len(orjson.dumps(message)),
                    index - ahead,
                )
            form.add(message)
        if not asked and messages:
            yield Asked(form.body(), str(messages[-1]["role"]), 800, len(self.messages))


class _Chat:
    def __init__(self, model: str, tools: Sequence[Document]) -> None:
        self._frame: Document = {"model": model}
        if tools:
            self._frame["tools"] = list(tools)
        self._messages: list[Document] = []

    def add(self, message: Document) -> None:
        self._messages.append(message)

    def body(self) -> Document:
        return {**self._frame, "messages": self._messages.copy()}


class _Messages:
    """Anthropic's: system apart, calls and results as blocks, results together in one message."""

    def __init__(self, model: str, tools: Sequence[Document]) -> None:
        self._frame: Document = {"model": model, "max_tokens": 4096}
        if tools:
            self._frame["tools"] = [_anthropic_tool(tool) for tool in tools]
        self._system: list[Document] = []
        self._messages: list[Document] = []
        self._results: list[Document] | None = None

    def add(self, message: Document) -> None:
        role = message["role"]
        if role == "tool":
            result = {
                "type": "tool_result",
                "tool_use_id": message.get("tool_call_id", ""),
                "content": message.get("content") or "",
            }
            if self._results is None:
                self._results = []
                self._messages.append({"role": "user", "content": self._results})
            self._results.append(result)
            return
        self._results = None
        if role in ("system", "developer") and not self._messages:
            self._system.extend(_texts(message.get("content")))
        elif role == "assistant":
            self._messages.append({"role": "assistant", "content": _said(message)})
        else:
            self._messages.append({"role": "user", "content": message.get("content") or ""})

    def body(self) -> Document:
        found = dict(self._frame)
        if len(self._system) == 1:
            found["system"] = self._system[0]["text"]
        elif self._system:
            found["system"] = list(self._system)
        found["messages"] = self._messages.copy()
        # Several results may still be added to the last message.
        self._results = None
        return found


def _texts(content: Any) -> list[Document]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [part for part in content or () if part.get("text")]


def _said(message: Document) -> Any:
    content = message.get("content")
    calls = message.get("tool_calls") or ()
    if not calls and isinstance(content, str):
        return content
    return [*_texts(content), *(_anthropic_call(call) for call in calls)]


def _anthropic_call(call: Document) -> Document:
    function = call["function"]
    try:
        spent = orjson.loads(function["arguments"])
    except orjson.JSONDecodeError:
        # Models write broken arguments now and then; an Anthropic body can't spell them.
        spent = {"arguments": function["arguments"]}
    return {
        "type": "tool_use",
        "id": call["id"],
        "name": function["name"],
        "input": spent if isinstance(spent, dict) else {"value": spent},
    }


def _anthropic_tool(tool: Document) -> Document:
    function = tool["function"]
    return {
        "name": function["name"],
        "description": function.get("description", ""),
        "input_schema": function["parameters"],
    }


def chat_tool(name: str, description: str, parameters: Document) -> Document:
    """A tool in OpenAI's chat form."""
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }
