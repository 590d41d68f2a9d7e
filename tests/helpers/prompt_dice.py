"""Requests of every shape that a prompt can have, and plans for them, thrown from a seed."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from gateway.core.plan import Mark, Plan, PlanReason
from gateway.providers.prompt_cache import MarkerForm
from gateway.providers.prompt_cache_rules import cache_rules
from tests.helpers.dice import Dice

if TYPE_CHECKING:
    from gateway.core.prefix import CachePrompt
    from gateway.providers.prompt_cache import CacheRules

_WORDS = (
    *("The ", "quick", " brown\n", "\n\n", "fox. ", 'said "no"', "\\", "\\\\", "C:\\temp", "\t"),
    *("é", "e\u0301", "😀", "漢字。", "\u2028", "</s>", "{", "}", "[", "]", ",", ":", "null", "  "),
    *("x" * 40, "1.0", "//", "\u0000", "\x7f", "\n    indented", "a_b", "😀\u200d🚀"),
)
_BLANK = ("", " ", "\n\t")


def known_rules() -> dict[str, list[CacheRules]]:
    """By wire API: documented rules, and the same where text may be split."""
    documented = [
        ("anthropic", "anthropic_messages", "claude-opus-4-5"),
        ("anthropic", "anthropic_messages", "claude-opus-5-5"),
        ("openai", "openai_chat", "gpt-6-sol"),
        ("openrouter", "openai_chat", "anthropic/claude-opus-4.5"),
        ("openai", "openai_responses", "gpt-6-sol"),
        ("bedrock", "bedrock_converse", "anthropic.claude-opus-4-5-20251101-v1:0"),
    ]
    found: dict[str, list[CacheRules]] = {}
    for provider, api, model in documented:
        rules = cache_rules(provider, api, model)
        assert rules is not None
        assert rules.takes_markers
        found.setdefault(api, []).append(dataclasses.replace(rules, binds_thinking=False))
    return found


class PromptDice(Dice):
    """One seed's prompts."""

    def prose(self, most: int = 12) -> str:
        """A text of a few words; now and then blank."""
        if self.yes(0.1):
            return str(self.one(_BLANK))
        return "".join(self.one(_WORDS) for _ in range(1 + self.up_to(most)))

    def long(self) -> str:
        """A text that may be worth splitting."""
        return self.prose(80) * (1 + self.up_to(40)) if self.yes(0.5) else self.prose()

    def _marker(self, part: dict[str, Any], name: str) -> dict[str, Any]:
        if self.yes(0.15):
            five = {"type": "ephemeral"}
            part[name] = self.one(
                (None, {"mode": "explicit"})
                if name == "prompt_cache_breakpoint"
                else (five, {**five, "ttl": "5m"}, {"ttl": "1h", **five}, None)
            )
        return self.order(part)

    def _many(self, make: Any, most: int = 3) -> list[Any]:
        return [make() for _ in range(self.up_to(most))]

    def body(self, api: str, form: MarkerForm) -> dict[str, Any]:
        """A request for this API, perhaps with markers of the client's own."""
        name = form.value
        body: dict[str, Any] = {
            "anthropic_messages": self._of_anthropic,
            "openai_chat": self._of_chat,
            "openai_responses": self._of_responses,
            "bedrock_converse": self._of_converse,
        }[api](name)
        for member in ("temperature", "some_new_field"):
            if self.yes(0.3):
                body[member] = self.one((0.1, 1.0, 1e300, 2**53, -0.0)) if member[0] == "t" else self.json(4)  # fmt: skip
        return self.order(body)

    # --- Anthropic Messages ---------------------------------------------------------------------------

    def _of_anthropic(self, name: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": "claude-opus-4-5",
            "messages": [self._anthropic_message(name) for _ in range(1 + self.up_to(4))],
        }
        if self.yes(0.7):
            body["system"] = self.long() if self.yes() else [
                self._marker({"type": "text", "text": self.long()}, name) for _ in range(self.up_to(3))
            ]  # fmt: skip
        if self.yes():
            body["tools"] = self._many(
                lambda: self._marker({"name": "f", "input_schema": self.json(3)}, name)
            )
        if self.yes(0.2):
            body["cache_control"] = self.one(({"type": "ephemeral", "ttl": "1h"}, None))
        if self.yes(0.1):
            body["thinking"] = {"type": "enabled", "budget_tokens": 1024}
        return body

    def _anthropic_message(self, name: str) -> dict[str, Any]:
        role = self.one(("user", "assistant"))
        held = self.prose() if self.yes(0.3) else self._many(lambda: self._anthropic_part(name))
        return self.order({"role": role, "content": held})

    def _anthropic_part(self, name: str) -> dict[str, Any]:
        part: dict[str, Any]
        match self.up_to(6):
            case 0:
                part = {"type": "tool_use", "id": "t1", "name": "f", "input": self.json(3)}
            case 1:
                inner = [
                    self._marker({"type": "text", "text": self.prose()}, name)
                    for _ in range(self.up_to(2))
                ]
                part = {
                    "type": "tool_result",
                    "tool_use_id": "t1",
                    "content": self.prose() if self.yes() else inner,
                }
            case 2 if self.yes(0.3):
                return {"type": "thinking", "thinking": self.prose(), "signature": "c2ln"}
            case 3:
                part = {"type": "image", "source": {"type": "base64", "data": "aGk="}}
            case 4:
                part = {"type": "text", "text": self.prose(), "citations": self.one((None, []))}
            case _:
                part = {"type": "text", "text": self.prose()}
        return self._marker(part, name)

    # --- OpenAI -----------------------------------------------------------------------------------------

    def _options_of(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.yes(0.3):
            body["prompt_cache_options"] = self.one(
                (None, {}, {"mode": "explicit"}, {"ttl": "30m", "mode": "implicit"}, {"ttl": "30m"})
            )
        if self.yes(0.2):
            body["prompt_cache_key"] = self.one((None, "mine"))
        return body

    def _of_chat(self, name: str) -> dict[str, Any]:
        leading = [
            self.order({"role": self.one(("system", "developer")), "content": self._chat_content(self.long, name)})
            for _ in range(self.up_to(2))
        ]  # fmt: skip
        later = [self._message_of_chat(name) for _ in range(1 + self.up_to(4))]
        body: dict[str, Any] = {"model": "gpt-6-sol", "messages": leading + later}
        if self.yes():
            function = {"name": "f", "parameters": self.json(3)}
            body["tools"] = [{"type": "function", "function": function}]
        return self._options_of(body)

    def _chat_content(self, text: Any, name: str) -> Any:
        if self.yes(0.4):
            return text()
        return self._many(
            lambda: self._marker(
                {"type": "text", "text": text()}
                if self.yes(0.8)
                else {"type": "image_url", "image_url": {"url": "https://a/b.png"}},
                name,
            )
        )

    def _message_of_chat(self, name: str) -> dict[str, Any]:
        match self.up_to(3):
            case 0:
                call = {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "f", "arguments": "{}"},
                }
                return {"role": "assistant", "content": self.one((None, "")), "tool_calls": [call]}
            case 1:
                content = self._chat_content(self.prose, name)
                return self.order({"role": "tool", "tool_call_id": "c1", "content": content})
            case _:
                content = self._chat_content(self.prose, name)
                role = self.one(("user", "assistant", "system"))
                return self.order({"role": role, "content": content, "name": self.one((None, "n"))})

    def _of_responses(self, name: str) -> dict[str, Any]:
        given = [self._item_of_responses(name) for _ in range(self.up_to(5))]
        body: dict[str, Any] = {"model": "gpt-6-sol", "input": given or self.prose()}
        if self.yes(0.4):
            body["instructions"] = self.long()
        return self._options_of(body)

    def _input_of(self, text: Any, name: str) -> list[Any]:
        return self._many(
            lambda: self._marker(
                {"type": "input_text", "text": text()}
                if self.yes(0.8)
                else {"type": "input_image", "image_url": "https://a/b.png", "detail": "low"},
                name,
            )
        )

    def _item_of_responses(self, name: str) -> dict[str, Any]:
        match self.up_to(5):
            case 0:
                return {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
            case 1:
                output = self.prose() if self.yes() else self._input_of(self.prose, name)
                return self.order(
                    {"type": "function_call_output", "call_id": "c", "output": output}
                )
            case 2 if self.yes(0.2):
                return {"type": "reasoning", "summary": [], "encrypted_content": "c2Vj"}
            case 3:
                said = [{"type": "output_text", "text": self.prose(), "annotations": []}]
                return {"type": "message", "role": "assistant", "content": said}
            case _:
                role = self.one(("developer", "user"))
                content = self.long() if self.yes(0.4) else self._input_of(self.long, name)
                return self.order({"role": role, "content": content})

    # --- Bedrock Converse -------------------------------------------------------------------------------

    def _pointed(self, items: list[Any]) -> list[Any]:
        out: list[Any] = []
        for item in items:
            out.append(item)
            while self.yes(0.15):
                out.append({"cachePoint": {"type": "default"}})
        return out

    def _of_converse(self, _: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "messages": [
                {
                    "role": self.one(("user", "assistant")),
                    "content": self._pointed(self._many(self._converse_part)),
                }
                for _ in range(1 + self.up_to(4))
            ]
        }
        if self.yes(0.7):
            body["system"] = self._pointed(self._many(lambda: {"text": self.long()}))
        if self.yes():
            tools = self._many(
                lambda: {"toolSpec": {"name": "f", "inputSchema": {"json": self.json(2)}}}
            )
            body["toolConfig"] = {"tools": self._pointed(tools)}
        return body

    def _converse_part(self) -> dict[str, Any]:
        match self.up_to(4):
            case 0:
                return {"toolUse": {"toolUseId": "t", "name": "f", "input": self.json(2)}}
            case 1:
                return {"toolResult": {"toolUseId": "t", "content": [{"text": self.prose()}]}}
            case 2:
                return {"image": {"format": "png", "source": {"bytes": "aGk="}}}
            case _:
                return {"text": self.prose()}

    # --- plans ----------------------------------------------------------------------------------------------

    def plan(self, prompt: CachePrompt, rules: CacheRules) -> Plan:
        """A plan that a planner could make, and some that none would."""
        strips = self.yes(0.3)
        free = [
            index
            for index, block in enumerate(prompt.blocks)
            if block.can_mark and (strips or not block.client_ttl_s)
        ]
        chosen = sorted(
            {self.one(free) for _ in range(self.up_to(rules.max_marks))} if free else ()
        )
        pieces = [index for index, block in enumerate(prompt.blocks) if block.until]
        splits = tuple(sorted({self.one(pieces) for _ in range(self.up_to(2))} if pieces else ()))
        is_openai = rules.form is MarkerForm.BREAKPOINT
        return Plan(
            PlanReason.PLACED,
            tuple(Mark(index, self.one(rules.lifetimes).ttl_s) for index in chosen),
            splits,
            strips,
            self.one(("", "explicit", "implicit")) if is_openai else "",
            self.one(("", "a-key")) if is_openai else "",
        )
