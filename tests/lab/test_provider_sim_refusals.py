"""Every forbidden form, and what the provider says to it."""

from __future__ import annotations

import copy
from collections import Counter
from typing import TYPE_CHECKING, Any

import aiohttp
import anthropic
import openai
import orjson
import pytest

from gateway.lab import sim_anthropic_rules, sim_openai_rules
from gateway.lab.provider_sim import ProviderSim
from tests.helpers import prompt_bodies
from tests.helpers.dice import Dice

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}
MODEL = "claude-opus-5-5"
SCHEMA = {"type": "object", "properties": {}}
EXTRA = "Extra inputs are not permitted"
FOUND = "A maximum of 4 blocks with cache_control may be provided. Found {}."
ORDER = (
    "{}: a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block. Note "
    "that blocks are processed in the following order: `tools`, `system`, `messages`."
)
DEFERRED = (
    "Tool '{}' cannot have both defer_loading=true and cache_control set. Tools with defer_loading "
    "cannot use prompt caching."
)


def text(said: str = "Hello.", mark: Any = None) -> Any:
    block: dict[str, Any] = {"type": "text", "text": said}
    return block if mark is None else {**block, "cache_control": mark}


def tool(name: str = "look", **more: Any) -> Any:
    return {"name": name, "input_schema": SCHEMA, **more}


def ask(*content: Any, **more: Any) -> Any:
    said = list(content) or "Hello."
    return {
        "model": MODEL,
        "max_tokens": 10,
        "messages": [{"role": "user", "content": said}],
        **more,
    }


def talk(*messages: tuple[str, Any], **more: Any) -> Any:
    turns = [{"role": role, "content": content} for role, content in messages]
    return {"model": MODEL, "max_tokens": 10, "messages": turns, **more}


def result(*content: Any, **more: Any) -> Any:
    return {"type": "tool_result", "tool_use_id": "t", "content": list(content), **more}


THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "s", "cache_control": MARK}
DOCUMENT = {
    "type": "document",
    "source": {"type": "content", "content": [text(mark=MARK)]},
}
SEARCHED = {"type": "search_result", "source": "a", "title": "b", "content": [text(mark=MARK)]}

ANTHROPIC = {
    "five marks in messages": (ask(*[text(mark=MARK)] * 5), FOUND.format(5)),
    "marks of all levels are counted": (
        ask(
            *[text(mark=MARK)] * 3,
            tools=[tool(cache_control=MARK)],
            system=[text(mark=MARK)],
        ),
        FOUND.format(5),
    ),
    "the automatic mark is counted": (
        ask(*[text(mark=MARK)] * 4, text(), cache_control=MARK),
        FOUND.format(5),
    ),
    "four on one level and automatic on a marked end": (
        ask(*[text(mark=MARK)] * 4, cache_control=MARK),
        FOUND.format(5),
    ),
    "automatic with another lifetime than the end's": (
        ask(text(mark=MARK), cache_control=HOUR),
        (
            "cache_control.ttl: the last block has cache_control with ttl='5m' and cannot also be "
            "cached automatically with ttl='1h'."
        ),
    ),
    "an hour after five minutes": (
        ask(text(mark=HOUR), system=[text(mark=MARK)]),
        ORDER.format("messages.0.content.0.cache_control.ttl"),
    ),
    "an hour in the system prompt after five minutes on a tool": (
        ask(tools=[tool(cache_control=MARK)], system=[text(mark=HOUR)]),
        ORDER.format("system.0.cache_control.ttl"),
    ),
    "an automatic hour after five minutes": (
        ask(text(mark=MARK), text(), cache_control=HOUR),
        ORDER.format("cache_control.ttl"),
    ),
    "an unknown lifetime": (
        ask(text(mark={"type": "ephemeral", "ttl": "2h"})),
        "messages.0.content.0.text.cache_control.ephemeral.ttl: Input should be '5m' or '1h'",
    ),
    "an unknown lifetime in the system prompt": (
        ask(system=[text(mark={"type": "ephemeral", "ttl": 3600})]),
        "system.0.cache_control.ephemeral.ttl: Input should be '5m' or '1h'",
    ),
    "an unknown automatic lifetime": (
        ask(cache_control={"type": "ephemeral", "ttl": "24h"}),
        "cache_control.ephemeral.ttl: Input should be '5m' or '1h'",
    ),
    "an unknown type": (
        ask(text(mark={"type": "persistent"})),
        (
            "messages.0.content.0.text.cache_control: Input tag 'persistent' found using 'type' does "
            "not match any of the expected tags: 'ephemeral'"
        ),
    ),
    "an unknown member": (
        ask(system=[text(mark={"type": "ephemeral", "scope": "global"})]),
        f"system.0.cache_control.ephemeral.scope: {EXTRA}",
    ),
    "empty text": (
        ask(text(), text("", MARK)),
        "messages.0.content.1.text: cache_control cannot be set for empty text blocks",
    ),
    "empty text in the system prompt": (
        ask(system=[text("", MARK)]),
        "system.0: cache_control cannot be set for empty text blocks",
    ),
    "blank text": (
        ask(text(), text(" \n", MARK)),
        "messages: text content blocks must contain non-whitespace text",
    ),
    "empty text without a mark": (
        ask(text("")),
        "messages: text content blocks must be non-empty",
    ),
    "inside of a tool result": (
        talk(("user", "Hi."), ("assistant", "Hm."), ("user", [result(text(mark=MARK))])),
        (
            "messages.2.content.0.tool_result.content.0.cache_control: cache_control may not be "
            "specified within `tool_result.content`. Instead, place it directly on `tool_result`"
        ),
    ),
    "thinking": (
        talk(("user", "Hi."), ("assistant", [THOUGHT, text()]), ("user", "Yes?")),
        f"messages.1.content.0.thinking.cache_control: {EXTRA}",
    ),
    "redacted thinking": (
        talk(
            ("user", "Hi."),
            (
                "assistant",
                [{"type": "redacted_thinking", "data": "x", "cache_control": MARK}, text()],
            ),
        ),
        f"messages.1.content.0.redacted_thinking.cache_control: {EXTRA}",
    ),
    "a part of a document": (
        ask(DOCUMENT),
        f"messages.0.content.0.document.source.content.0.cache_control: {EXTRA}",
    ),
    "a part of a search result": (
        ask(SEARCHED),
        f"messages.0.content.0.search_result.content.0.cache_control: {EXTRA}",
    ),
    "a whole message": (
        {**ask(), "messages": [{"role": "user", "content": "Hi.", "cache_control": MARK}]},
        f"messages.0.cache_control: {EXTRA}",
    ),
    "a deferred tool": (
        ask(tools=[tool(), tool("rare", defer_loading=True, cache_control=MARK)]),
        DEFERRED.format("rare"),
    ),
    "a deferred toolset": (
        ask(
            tools=[
                {
                    "type": "mcp_toolset",
                    "mcp_server_name": "far",
                    "default_config": {"defer_loading": True},
                    "cache_control": MARK,
                }
            ]
        ),
        DEFERRED.format("far"),
    ),
    "a member of a toolset": (
        ask(
            tools=[{"type": "computer_toolset_20260801", "configs": {"zoom": {"cache_control": 1}}}]
        ),
        f"tools.0.computer_toolset_20260801.configs.zoom.cache_control: {EXTRA}",
    ),
    "the operator in the middle of a model without that": (
        talk(("user", "Hi."), ("system", "Be brief."), model="claude-sonnet-5"),
        "role 'system' is not supported on this model",
    ),
    "the operator in the middle of a small model": (
        talk(("user", "Hi."), ("system", "Be brief."), model="claude-haiku-5-5"),
        "role 'system' is not supported on this model",
    ),
    "the operator first": (
        talk(("system", "Be brief."), ("user", "Hi.")),
        "messages.0: role 'system' must not come first",
    ),
    "the operator behind an answer": (
        talk(("user", "Hi."), ("assistant", "Hm."), ("system", "Be brief."), ("user", "Yes?")),
        "messages.2: role 'system' must follow a user message",
    ),
    "an operator's picture": (
        talk(("user", "Hi."), ("system", [{"type": "image", "source": {}}])),
        "messages.1.content: role 'system' takes text only",
    ),
    "no tokens in a stream": (
        ask(max_tokens=0, stream=True),
        "max_tokens: 0 cannot be used with `stream`",
    ),
    "no tokens to think with": (
        ask(max_tokens=0, thinking={"type": "adaptive"}),
        "max_tokens: 0 cannot be used with `thinking`",
    ),
    "no tokens in a format": (
        ask(max_tokens=0, output_config={"format": {"type": "json_schema", "schema": SCHEMA}}),
        "max_tokens: 0 cannot be used with `output_config.format`",
    ),
    "no tokens and a forced tool": (
        ask(max_tokens=0, tools=[tool()], tool_choice={"type": "any"}),
        "max_tokens: 0 cannot be used with `tool_choice`",
    ),
    "the binding's control without its beta": (
        ask(thinking={"type": "adaptive", "block_binding": {}}),
        f"thinking.adaptive.block_binding: {EXTRA}",
    ),
    "another provider's member": (
        ask(prompt_cache_options={"mode": "explicit"}),
        f"prompt_cache_options: {EXTRA}",
    ),
    "no messages": (ask() | {"messages": []}, "messages: at least one message is required"),
    "no model": ({"max_tokens": 1, "messages": [{}]}, "model: Field required"),
}


@pytest.mark.parametrize("name", ANTHROPIC)
async def test_anthropic_refuses(name: str) -> None:
    body, message = ANTHROPIC[name]
    async with (
        ProviderSim() as sim,
        anthropic.AsyncAnthropic(base_url=sim.url, api_key="a", max_retries=0) as client,
    ):
        with pytest.raises(anthropic.BadRequestError) as refused:
            await client.post("/v1/messages", body=body, cast_to=object)

    assert refused.value.body == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": message},
        "request_id": refused.value.response.headers["request-id"],
    }
    assert not sim.usages


@pytest.mark.parametrize(
    "body",
    [
        ask(*[text(mark=MARK)] * 4),
        ask(*[text(mark=MARK)] * 3, text(), cache_control=MARK),
        ask(text(mark=MARK), cache_control=MARK),
        ask(text(mark=MARK), text(mark=MARK), tools=[tool(cache_control=HOUR)]),
        ask(tools=[tool(cache_control=MARK), tool("rare", defer_loading=True)]),
        ask(tools=[{"type": "mcp_toolset", "mcp_server_name": "m", "cache_control": HOUR}]),
        ask({"type": "image", "source": {}, "cache_control": MARK}, text()),
        ask(result(text(), cache_control=MARK)),
        ask(system=[text(mark={"type": "ephemeral", "ttl": None})]),
        ask(text(mark={"type": "ephemeral"}), system=""),
        talk(("user", "Hi."), ("system", [text(mark=MARK)]), ("assistant", "Hm."), ("user", "?")),
        talk(("user", "Hi."), ("system", "Be brief."), model="claude-opus-4-8"),
        ask(max_tokens=0, tools=[tool()], tool_choice={"type": "auto"}),
        ask({"type": "tool_use", "id": "t", "name": "n", "input": {"cache_control": 1}}),
    ],
)
def test_anthropic_takes_what_is_allowed(body: Any) -> None:
    assert sim_anthropic_rules.refusal(body) is None


def test_blank_text_without_a_mark_can_be_let_through() -> None:
    body = ask(text(), text(" "))

    assert sim_anthropic_rules.refusal(body) is not None
    assert sim_anthropic_rules.refusal(body, blank_text=True) is None
    assert sim_anthropic_rules.refusal(ask(text(" ", MARK)), blank_text=True) is not None


PATHS = {
    "/v1/messages": prompt_bodies.anthropic,
    "/v1/chat/completions": prompt_bodies.openai_chat,
    "/v1/responses": prompt_bodies.openai_responses,
}
ODD: tuple[Any, ...] = (None, 1, "x", [], {}, True, [1], {"type": 5}, [None])


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where anything stands."""
    for step in value if isinstance(value, dict) else range(len(value)):
        yield (*path, step)
        if isinstance(value[step], dict | list):
            yield from places(value[step], (*path, step))


@pytest.mark.parametrize("path", PATHS)
async def test_whatever_is_asked_is_answered_or_refused(path: str) -> None:
    statuses = Counter[int]()
    async with ProviderSim() as sim, aiohttp.ClientSession() as session:
        for seed in range(300):
            dice = Dice(seed)
            body: Any = copy.deepcopy(dice.one(PATHS[path](dice)))
            *way, last = dice.one(list(places(body)))
            holder = body
            for step in way:
                holder = holder[step]
            holder[last] = dice.one(ODD)
            async with session.post(f"{sim.url}{path}", data=orjson.dumps(body)) as response:
                statuses[response.status] += 1
                await response.read()

    assert set(statuses) == {200, 400}


# --- OpenAI -----------------------------------------------------------------------------------

OLD = "gpt-5.1"
NEW = "gpt-5.6-sol"
POINT = {"prompt_cache_breakpoint": {"mode": "explicit"}}
OLD_OPTIONS = "prompt_cache_options is not supported on this model"


def chat(content: Any = "Hi.", model: str = NEW, role: str = "user", **more: Any) -> Any:
    return {"model": model, "messages": [{"role": role, "content": content}], **more}


def respond(content: Any = "Hi.", model: str = NEW, role: str = "user", **more: Any) -> Any:
    return {"model": model, "input": [{"role": role, "content": content}], **more}


def unknown(where: str) -> tuple[str, str, str]:
    return f"Unknown parameter: '{where}'.", where, "unknown_parameter"


def unsupported(name: str, where: str = "") -> tuple[str, str, str]:
    return f"{name} is not supported on this model", where or name, "invalid_parameter"


SAID = {"type": "text", "text": "Hi."}
OPENAI: dict[str, tuple[str, Any, tuple[str, str, str]]] = {
    "options on an older model": (
        "chat",
        chat(model=OLD, prompt_cache_options={"mode": "explicit"}),
        unsupported("prompt_cache_options"),
    ),
    "a breakpoint on an older model": (
        "chat",
        chat([{**SAID, **POINT}], OLD),
        unsupported("prompt_cache_breakpoint", "messages[0].content[0].prompt_cache_breakpoint"),
    ),
    "a breakpoint on an older model's response": (
        "responses",
        respond([{"type": "input_text", "text": "Hi.", **POINT}], "gpt-4o"),
        unsupported("prompt_cache_breakpoint", "input[0].content[0].prompt_cache_breakpoint"),
    ),
    "a key of 65 characters": (
        "chat",
        chat(prompt_cache_key="k" * 65),
        (
            (
                "Invalid 'prompt_cache_key': string too long. Expected a string with maximum length 64, "
                "but got a string with length 65 instead."
            ),
            "prompt_cache_key",
            "string_above_max_length",
        ),
    ),
    "a breakpoint on a tool": (
        "chat",
        chat(tools=[{"type": "function", "function": {"name": "f"}, **POINT}]),
        unknown("tools[0].prompt_cache_breakpoint"),
    ),
    "a breakpoint on a function": (
        "chat",
        chat(tools=[{"type": "function", "function": {"name": "f", **POINT}}]),
        unknown("tools[0].function.prompt_cache_breakpoint"),
    ),
    "a breakpoint on what the assistant said": (
        "chat",
        chat([{**SAID, **POINT}], role="assistant"),
        unknown("messages[0].content[0].prompt_cache_breakpoint"),
    ),
    "a breakpoint on output text": (
        "responses",
        respond([{"type": "output_text", "text": "Hi.", **POINT}], role="assistant"),
        unknown("input[0].content[0].prompt_cache_breakpoint"),
    ),
    "a breakpoint on a message": (
        "chat",
        {"model": NEW, "messages": [{"role": "user", "content": "Hi.", **POINT}]},
        unknown("messages[0].prompt_cache_breakpoint"),
    ),
    "another provider's marker": (
        "chat",
        chat([SAID, {**SAID, "cache_control": MARK}]),
        unknown("messages[0].content[1].cache_control"),
    ),
    "an implicit breakpoint": (
        "chat",
        chat([{**SAID, "prompt_cache_breakpoint": {"mode": "implicit"}}]),
        (
            "Invalid value: 'implicit'. Supported values are: 'explicit'.",
            "messages[0].content[0].prompt_cache_breakpoint.mode",
            "invalid_value",
        ),
    ),
    "an unknown mode": (
        "chat",
        chat(prompt_cache_options={"mode": "auto"}),
        (
            "Invalid value: 'auto'. Supported values are: 'implicit' and 'explicit'.",
            "prompt_cache_options.mode",
            "invalid_value",
        ),
    ),
    "an unknown lifetime": (
        "responses",
        respond(prompt_cache_options={"ttl": "1h"}),
        (
            "Invalid value: '1h'. Supported values are: '30m'.",
            "prompt_cache_options.ttl",
            "invalid_value",
        ),
    ),
    "an unknown option": (
        "responses",
        respond(prompt_cache_options={"bogus": 1}),
        unknown("prompt_cache_options.bogus"),
    ),
    "warming up a chat": (
        "chat",
        chat(prompt_cache_options={"prewarm": True}),
        unknown("prompt_cache_options.prewarm"),
    ),
    "retention on GPT-6": (
        "chat",
        chat(model="gpt-6-sol", prompt_cache_retention="24h"),
        unsupported("prompt_cache_retention"),
    ),
    "retention in memory on GPT-5.5": (
        "chat",
        chat(model="gpt-5.5", prompt_cache_retention="in_memory"),
        (
            "This model is compatible only with 24h extended prompt caching",
            "prompt_cache_retention",
            "invalid_parameter",
        ),
    ),
    "a day's retention on a model without it": (
        "chat",
        chat(model="gpt-4o", prompt_cache_retention="24h"),
        unsupported("prompt_cache_retention"),
    ),
    "an unknown retention": (
        "chat",
        chat(model=OLD, prompt_cache_retention="1h"),
        (
            "Invalid value: '1h'. Supported values are: 'in_memory' and '24h'.",
            "prompt_cache_retention",
            "invalid_value",
        ),
    ),
}


@pytest.mark.parametrize("name", OPENAI)
async def test_openai_refuses(name: str) -> None:
    api, body, (message, param, code) = OPENAI[name]
    path = "/chat/completions" if api == "chat" else "/responses"
    async with (
        ProviderSim() as sim,
        openai.AsyncOpenAI(base_url=sim.v1_url, api_key="a", max_retries=0) as client,
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            await client.post(path, body=body, cast_to=object)

    assert refused.value.body == {
        "message": message,
        "type": "invalid_request_error",
        "param": param,
        "code": code,
    }
    assert not sim.usages


@pytest.mark.parametrize(
    ("api", "body"),
    [
        ("chat", chat([{**SAID, **POINT}] * 6)),
        ("chat", chat([{**SAID, **POINT}], role="tool")),
        ("chat", chat(prompt_cache_key="k" * 64, prompt_cache_options={"ttl": "30m"})),
        ("chat", chat(model="gpt-5.5", prompt_cache_retention="24h")),
        ("chat", chat(model="gpt-4.1-2025-04-14", prompt_cache_retention="24h")),
        ("chat", chat(model="gpt-4o", prompt_cache_retention="in_memory")),
        ("responses", respond(prompt_cache_options={"prewarm": True, "mode": "explicit"})),
        ("responses", {"model": "gpt-6.1-sol", "input": "Hi."}),
        (
            "responses",
            {
                "model": NEW,
                "input": [
                    {
                        "type": "function_call_output",
                        "call_id": "c",
                        "output": [{"type": "input_text", "text": "x", **POINT}],
                    }
                ],
            },
        ),
    ],
)
def test_openai_takes_what_is_allowed(api: str, body: Any) -> None:
    assert sim_openai_rules.refusal(api, body) is None
