"""Requests and answers of every API by the thousand, thrown from a seed.

Cheap on purpose: ten thousand of them cost seconds. A seed is all that is needed to see one again.
"""

from __future__ import annotations

import json
import random
import unicodedata
from typing import Any

TEXTS = ("", "a", "hi", "0", "1.0", "é", "e\u0301", " a", "A", "null", "\u2028", "😀", '"\\/', "{}")
NAMES = ("a", "b", "type", "text", "content", "properties", "role", "é")
NUMBERS = (0, 1, -1, 2, 0.5, 0.1, 1e300, 10**18, -3)
IDS = ("call_Aa1111", "call_Bb2222", "call_Cc3333")
Path = tuple[str | int, ...]


class Dice:
    """One seed's choices, in order."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def one(self, options: Any) -> Any:
        """One of these."""
        return self._random.choice(options)

    def yes(self, chance: float = 0.5) -> bool:
        """Whether."""
        return self._random.random() < chance

    def up_to(self, most: int) -> int:
        """0 to `most`, both included."""
        return self._random.randint(0, most)

    def order(self, value: dict[str, Any]) -> dict[str, Any]:
        """The same members in another order."""
        members = list(value.items())
        self._random.shuffle(members)
        return dict(members)

    # --- requests -----------------------------------------------------------------------------------

    def text(self) -> str:
        """A short text; texts that look alike are likely."""
        return "".join(self.one(TEXTS) for _ in range(self.up_to(2)))

    def near(self, text: str) -> str:
        """A text that looks much like this one; the same where there is nothing to change."""
        near: str = self.one(
            (
                text.swapcase(),
                f"{text} ",
                text.strip(),
                text.replace("\n", "\r\n"),
                unicodedata.normalize("NFC", text),
                unicodedata.normalize("NFD", text),
            )
        )
        return near

    def leaf(self) -> Any:
        """What holds nothing else."""
        return self.one((None, True, False, self.one(NUMBERS), self.text()))

    def json(self, depth: int = 2) -> Any:
        """Anything."""
        kind = self.up_to(4) if depth else 0
        if kind == 3:
            return [self.json(depth - 1) for _ in range(self.up_to(2))]
        if kind == 4:
            return {self.one(NAMES): self.json(depth - 1) for _ in range(self.up_to(3))}
        return self.leaf()

    def request(self, api: str) -> dict[str, Any]:
        """A request body that the API (a wire API's name) understands."""
        body: dict[str, Any] = getattr(self, api)()
        return self.order(body)

    def _options(self, body: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        for name, make in options.items():
            if self.yes(0.3):
                body[name] = make()
        return body

    def openai_chat(self) -> dict[str, Any]:
        """Chat Completions."""
        messages = [self._chat_message() for _ in range(1 + self.up_to(3))]
        return self._options(
            {"model": self.one(("gpt-4o", "o3")), "messages": messages},
            {
                "temperature": lambda: self.one(NUMBERS),
                "seed": lambda: self.up_to(3),
                "stop": lambda: [self.text() for _ in range(self.up_to(2))],
                "logit_bias": lambda: {str(self.up_to(5)): self.up_to(3) for _ in range(2)},
                "tools": lambda: [
                    {"type": "function", "function": {"name": "f", "parameters": self.json()}}
                ],
                "response_format": self.json,
                "metadata": self.json,
                "some_new_field": self.json,
            },
        )

    def _chat_message(self) -> dict[str, Any]:
        match self.up_to(3):
            case 0:
                calls = [
                    {
                        "id": self.one(IDS),
                        "type": "function",
                        "function": {"name": "f", "arguments": self.text()},
                    }
                    for _ in range(1 + self.up_to(1))
                ]
                return {"role": "assistant", "content": None, "tool_calls": calls}
            case 1:
                return {"role": "tool", "tool_call_id": self.one(IDS), "content": self.text()}
            case _:
                role = self.one(("user", "system", "assistant"))
                content = self.text() if self.yes() else [self._chat_part() for _ in range(self.up_to(2))]  # fmt: skip
                return {"role": role, "content": content}

    def _chat_part(self) -> dict[str, Any]:
        if self.yes(0.7):
            return {"type": "text", "text": self.text()}
        return {"type": "image_url", "image_url": {"url": self.text(), "detail": "low"}}

    def anthropic_messages(self) -> dict[str, Any]:
        """Messages."""
        messages = [self._message() for _ in range(1 + self.up_to(3))]
        return self._options(
            {
                "model": self.one(("claude-haiku-4-5", "claude-opus-5-5")),
                "max_tokens": 1 + self.up_to(5),
                "messages": messages,
            },
            {
                "system": lambda: self.text() if self.yes() else [self._block()],
                "temperature": lambda: self.one(NUMBERS),
                "stop_sequences": lambda: [self.text()],
                "tools": lambda: [{"name": "f", "input_schema": self.json()}],
                "thinking": lambda: {"type": "enabled", "budget_tokens": 1024 + self.up_to(3)},
                "output_config": self.json,
                "some_new_field": self.json,
            },
        )

    def _block(self) -> dict[str, Any]:
        if self.yes(0.7):
            return {"type": "text", "text": self.text()}
        return {"type": "image", "source": {"type": "url", "url": self.text()}}

    def _message(self) -> dict[str, Any]:
        match self.up_to(3):
            case 0:
                use = {"type": "tool_use", "id": self.one(IDS), "name": "f", "input": self.json()}
                return {"role": "assistant", "content": [use]}
            case 1:
                held = self.text() if self.yes() else [self._block()]
                result = {"type": "tool_result", "tool_use_id": self.one(IDS), "content": held}
                return {"role": "user", "content": [result]}
            case _:
                content = self.text() if self.yes() else [self._block() for _ in range(self.up_to(2))]  # fmt: skip
                return {"role": self.one(("user", "assistant")), "content": content}

    def openai_responses(self) -> dict[str, Any]:
        """Responses."""
        given = self.text() if self.yes(0.3) else [self._item() for _ in range(self.up_to(3))]
        return self._options(
            {"model": self.one(("gpt-4o", "o3")), "input": given},
            {
                "store": self.yes,
                "temperature": lambda: self.one(NUMBERS),
                "instructions": self.text,
                "previous_response_id": self.text,
                "metadata": lambda: {"a": self.text()},
                "text": self.json,
                "tools": lambda: [{"type": "function", "name": "f", "parameters": self.json()}],
                "some_new_field": self.json,
            },
        )

    def _item(self) -> dict[str, Any]:
        match self.up_to(4):
            case 0:
                return {
                    "type": "function_call",
                    "call_id": self.one(IDS),
                    "name": "f",
                    "arguments": self.text(),
                }
            case 1:
                return {
                    "type": "function_call_output",
                    "call_id": self.one(IDS),
                    "output": self.text(),
                }
            case 2:
                return {"type": "new_item", "x": self.json()}
            case _:
                content = self.text() if self.yes() else [self._input_part() for _ in range(self.up_to(2))]  # fmt: skip
                return {"role": self.one(("user", "developer", "assistant")), "content": content}

    def _input_part(self) -> dict[str, Any]:
        if self.yes(0.7):
            return {"type": "input_text", "text": self.text()}
        return {"type": "input_image", "image_url": self.text(), "detail": "low"}

    def openai_completions(self) -> dict[str, Any]:
        """Completions."""
        prompt = self.one((self.text(), [self.text(), self.text()], [1, 2, self.up_to(3)], None))
        return self._options(
            {"model": "gpt-3.5-turbo-instruct", "prompt": prompt},
            {
                "temperature": lambda: self.one(NUMBERS),
                "suffix": self.text,
                "seed": lambda: self.up_to(3),
                "stop": lambda: [self.text()],
                "logprobs": lambda: self.up_to(3),
                "logit_bias": lambda: {str(self.up_to(5)): self.up_to(3) for _ in range(2)},
                "some_new_field": self.json,
            },
        )

    def openai_embeddings(self) -> dict[str, Any]:
        """Embeddings, one input or several."""
        several = [self.text() + "x" for _ in range(1 + self.up_to(3))]
        given = self.one(
            (self.text() + "x", several, several, [1 + self.up_to(3), 7], [[1], [2, 3]])
        )
        return self._options(
            {"model": "text-embedding-3-small", "input": given},
            {
                "dimensions": lambda: 1 + self.up_to(3),
                "encoding_format": lambda: self.one(("float", "base64")),
                "some_new_field": self.json,
            },
        )

    # --- other spellings of the same JSON --------------------------------------------------------------

    def spelled(self, value: Any) -> str:
        """The same JSON value in other white space and escapes."""
        space: str = self.one(("", " ", "\n\t"))
        if isinstance(value, dict):
            inner = (f"{self.spelled(n)}{space}:{self.spelled(v)}" for n, v in value.items())
            return "{" + f"{space},".join(inner) + space + "}"
        if isinstance(value, list):
            return "[" + space + f",{space}".join(map(self.spelled, value)) + "]"
        if isinstance(value, str):
            if self.yes():
                return json.dumps(value, ensure_ascii=False)
            units = value.encode("utf-16-be")
            pairs = zip(units[::2], units[1::2], strict=True)
            return '"' + "".join(f"\\u{high:02x}{low:02X}" for high, low in pairs) + '"'
        return json.dumps(value)


def places(value: Any, path: Path = ()) -> list[Path]:
    """Every leaf and every empty container."""
    if isinstance(value, dict) and value:
        return [p for name, inner in value.items() for p in places(inner, (*path, name))]
    if isinstance(value, list) and value:
        return [p for index, inner in enumerate(value) for p in places(inner, (*path, index))]
    return [path]


def at(value: Any, path: Path) -> Any:
    """What is there."""
    for step in path:
        value = value[step]
    return value


def is_id(path: Path) -> bool:
    """A place of a tool-call id: equal up to renaming, which has tests of its own."""
    return path[-1] in {"tool_call_id", "tool_use_id", "call_id"} or (
        path[-1] == "id" and ("tool_calls" in path or "content" in path)
    )
