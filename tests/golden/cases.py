"""The requests whose keys are kept in `keys.json`: every API at every provider, and what is special."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from gateway.providers.registry import PROVIDERS

Lines: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Case:
    """A request as it comes in. `body` is kept as text: its spelling matters."""

    name: str
    provider: str
    route: str
    body: str
    headers: Lines = (("authorization", "Bearer sk-golden"),)
    query: str = ""


_KEY: Lines = (("authorization", "Bearer sk-golden"),)

# One rich request of each API: members that some table excludes, folds, eliminates or keeps.
_RICH = {
    "/v1/chat/completions": """{"temperature": 0.0, "model": "gpt-4o", "user": "u-1", "n": 1,
 "stream": true, "stream_options": {"include_usage": true}, "logit_bias": {"7": -1, "3": 2.50},
 "messages": [
  {"role": "system", "content": "Be brief.\\r\\nÉ e\\u0301 \\ud83d\\ude00"},
  {"content": [{"text": "hi", "type": "text", "prompt_cache_breakpoint": {"mode": "explicit"}}], "role": "user"},
  {"role": "assistant", "content": null, "tool_calls": [
    {"id": "call_Aa1", "type": "function", "function": {"name": "f", "arguments": "{\\"b\\": 1, \\"a\\": 2}"}},
    {"id": "call_Bb2", "type": "function", "function": {"arguments": "", "name": "g"}}]},
  {"role": "tool", "tool_call_id": "call_Bb2", "content": "42"},
  {"role": "tool", "tool_call_id": "call_Aa1", "content": [{"type": "text", "text": "43"}]}],
 "tools": [{"function": {"parameters": {"type": "object", "properties": {"z": {"type": "number", "minimum": 1.0}, "a": {}}}, "name": "f"}, "type": "function"}],
 "prompt_cache_key": "k", "metadata": {"run": "7"}, "some_new_field": {"b": 1.0, "a": 1e2}}""",
    "/v1/messages": """{"model": "claude-haiku-4-5", "max_tokens": 1e3, "stream": false,
 "metadata": {"user_id": "u-1"}, "cache_control": {"type": "ephemeral"}, "temperature": 1.0,
 "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
 "messages": [
  {"role": "user", "content": [{"source": {"url": "https://x.test/a.png", "type": "url"}, "type": "image"}, {"type": "text", "text": "what?"}]},
  {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_01Aa", "name": "f", "input": {"b": 1.0, "a": 2}}]},
  {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_01Aa", "content": "42"}]}],
 "tools": [{"name": "f", "cache_control": {"type": "ephemeral"}, "input_schema": {"type": "object", "properties": {"b": {}, "a": {}}}}],
 "some_new_field": [1, 2.0]}""",
    "/v1/responses": """{"input": [
  {"role": "developer", "content": "Be brief."},
  {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
  {"type": "function_call", "call_id": "call_Aa1", "name": "f", "arguments": "{}"},
  {"type": "function_call_output", "call_id": "call_Aa1", "output": "42"}],
 "model": "gpt-4o", "store": true, "stream": true, "user": "u-1", "temperature": 1.0,
 "previous_response_id": "resp_1", "reasoning": {"summary": null, "effort": "low"},
 "tools": [{"type": "function", "name": "f", "parameters": {"b": 1, "a": 2}}],
 "text": {"format": {"type": "text"}}, "some_new_field": null}""",
    "/v1/completions": """{"prompt": ["def f(x):\\n    ", "x"], "model": "gpt-3.5-turbo-instruct",
 "echo": false, "n": 1, "max_tokens": 16, "logit_bias": {"50256": -100}, "user": "u-1",
 "suffix": "\\n", "temperature": -0.0, "stream": true, "some_new_field": true}""",
    "/v1/embeddings": """{"input": ["one", "two"], "model": "text-embedding-3-small",
 "dimensions": 256.0, "encoding_format": "base64", "user": "u-1"}""",
}  # fmt: skip
_SHORT = {
    "/v1/chat/completions": '{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}',
    "/v1/messages": '{"model":"claude-opus-5-5","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}',
    "/v1/responses": '{"model":"gpt-4o","input":"hi"}',
    "/v1/completions": '{"model":"m","prompt":[1,2,3]}',
    "/v1/embeddings": '{"model":"m","input":"hi"}',
}
_CHAT, _MESSAGES, _RESPONSES, _COMPLETIONS, _EMBEDDINGS = _RICH
_THINKS = """{"model": "o3", "messages": [
  {"role": "assistant", "tool_calls": [{"id": "call_Aa1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
  {"role": "tool", "tool_call_id": "call_Aa1", "content": "call_Aa1 failed"}]}"""  # fmt: skip


def _of(route: str) -> str:
    return route.removeprefix("/v1/").replace("/", "-")


def cases() -> list[Case]:
    """All of them, each by its own name."""
    made = [
        Case(f"{kind} {_of(route)} at {provider}", provider, route, bodies[route])
        for kind, bodies in (("rich", _RICH), ("short", _SHORT))
        for route in _RICH
        for provider in PROVIDERS
    ]
    beta = ("anthropic-beta", "b-2, a-1,b-2")
    return [
        *made,
        Case("ids are kept where they are spoken of", "openai", _CHAT, _THINKS),
        Case("one embedding in a list", "openai", _EMBEDDINGS, '{"model":"m","input":["hi"]}'),
        Case("tokens to embed", "openai", _EMBEDDINGS, '{"model":"m","input":[[1,2],[3]]}'),
        Case("numbers keep their spelling in the prompt", "openai", _CHAT, '{"model":"gpt-4o","messages":[],"response_format":{"a":1.0,"b":1,"c":1e0,"d":9007199254740993}}'),
        Case("a beta of Anthropic's is a set", "anthropic", _MESSAGES, _SHORT[_MESSAGES], (("x-api-key", "sk-golden"), beta, ("anthropic-version", "2023-06-01"))),
        Case("a header of OpenAI's", "openai", _CHAT, _SHORT[_CHAT], (*_KEY, ("openai-beta", "x"), ("x-new", "1"))),
        Case("any header counts at an unknown host", "unknown", _CHAT, _SHORT[_CHAT], (*_KEY, ("x-new", "1"), ("user-agent", "u"))),
        Case("a query", "azure", _CHAT, _SHORT[_CHAT], (("api-key", "sk-golden"),), "api-version=2026-01-01"),
        Case("nobody's", "llamacpp", _COMPLETIONS, _SHORT[_COMPLETIONS], ()),
    ]  # fmt: skip
