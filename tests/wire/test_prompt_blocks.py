"""What a provider's cache sees of a request, for every API."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gateway.core import canonical
from gateway.core.blocks import Section
from gateway.core.prefix import CachePrompt, Kind, PrefixBlock, chain
from gateway.providers.prompt_cache import MarkerForm
from gateway.wire import anthropic_messages_blocks, block_parts
from gateway.wire.base import NotUnderstood
from gateway.wire.prompt_blocks import cache_prompt
from tests.helpers.prompt_dice import known_rules

RULES = known_rules()
CLAUDE = RULES["anthropic_messages"][0]
CHAT, ROUTED = RULES["openai_chat"]
RESPONSES = RULES["openai_responses"][0]
CONVERSE = RULES["bedrock_converse"][0]

MARK = {"cache_control": {"type": "ephemeral"}}
HOUR = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
POINT = {"prompt_cache_breakpoint": {"mode": "explicit"}}
LONG = "".join(f"Rule {n}: be careful.\n" for n in range(300))


def claude(rules: Any = CLAUDE, **body: Any) -> CachePrompt:
    messages: Any = [{"role": "user", "content": "hi"}]
    return cache_prompt("anthropic_messages", {"model": "m", "messages": messages, **body}, rules)


def said(*content: Any, role: str = "user", **more: Any) -> tuple[PrefixBlock, ...]:
    return claude(messages=[{"role": role, "content": list(content)}], **more).blocks


def chat(*messages: Any, rules: Any = CHAT, **body: Any) -> CachePrompt:
    return cache_prompt("openai_chat", {"model": "m", "messages": list(messages), **body}, rules)


def responses(given: Any, **body: Any) -> CachePrompt:
    return cache_prompt("openai_responses", {"model": "m", "input": given, **body}, RESPONSES)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def text(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": text, **more}


# --- every API ------------------------------------------------------------------------------------------


def test_the_order_is_the_providers_and_not_the_requests() -> None:
    body: dict[str, Any] = {
        "messages": [user("hi"), {"role": "assistant", "content": [text("yes")]}],
        "system": [text("one"), text("two")],
        "model": "m",
        "tools": [{"name": "f"}, {"name": "g"}],
    }

    prompt = cache_prompt("anthropic_messages", body, CLAUDE)

    assert [
        ("tools", 0),
        ("tools", 1),
        ("system", 0),
        ("system", 1),
        ("messages", 0, "content"),
        ("messages", 1, "content", 0),
    ] == [block.path for block in prompt.blocks]
    tools, system, messages = Section
    assert [tools] * 2 + [system] * 2 + [messages] * 2 == [b.section for b in prompt.blocks]
    assert ["", "", "system", "system", "user", "assistant"] == [b.role for b in prompt.blocks]
    assert [False, False, False, True, True, True] == [b.ends_message for b in prompt.blocks]


@pytest.mark.parametrize("api", ["openai_completions", "openai_embeddings", "another"])
def test_an_api_without_markers_has_no_blocks(api: str) -> None:
    prompt = cache_prompt(api, {"model": "m", "prompt": "hi", "input": "hi"}, None)

    assert ("m", ()) == (prompt.model, prompt.blocks)
    assert not prompt.marked_by_client


@pytest.mark.parametrize("api", RULES)
@pytest.mark.parametrize("body", [[], None, "hi", 1])
def test_what_is_no_object_is_no_request(api: str, body: Any) -> None:
    with pytest.raises(NotUnderstood):
        cache_prompt(api, body, None)


def test_what_is_nested_too_deeply_is_not_understood() -> None:
    deep: Any = []
    for _ in range(2000):
        deep = [deep]

    with pytest.raises(NotUnderstood):
        said({"type": "tool_use", "id": "t", "name": "f", "input": deep})


@pytest.mark.parametrize("api", RULES)
@pytest.mark.parametrize("odd", [None, 1, "x", [], {}, [None, 1, "x", [], {}], {"a": 1}])
def test_odd_shapes_are_blocks_that_take_no_marker(api: str, odd: Any) -> None:
    message = {"role": "user", "content": odd}
    for body in (
        {"messages": odd, "input": odd, "system": odd, "tools": odd, "toolConfig": odd},
        {"messages": [message], "input": [message], "instructions": odd, "model": odd},
        {"messages": [odd, {"role": odd}], "input": [odd, {"role": odd}], "thinking": odd},
    ):
        prompt = cache_prompt(api, body, RULES[api][0])
        assert len(chain(prompt)) == len(prompt.blocks)
        assert not any(
            block.can_mark
            for block in prompt.blocks
            if block.kind is not Kind.TOOL and not (odd == "x" and block.kind is Kind.TEXT)
        )


@pytest.mark.parametrize("api", RULES)
def test_without_rules_nothing_can_be_marked_or_split(api: str) -> None:
    body: Any = {"messages": [{"role": "system", "content": LONG}, user("hi")], "system": LONG}
    silent = dataclasses.replace(RULES[api][0], form=MarkerForm.NONE)

    for rules in (None, silent, dataclasses.replace(RULES[api][0], max_marks=0)):
        blocks = cache_prompt(api, body, rules).blocks
        assert not any(block.can_mark or block.until for block in blocks)


def test_numbers_that_kept_their_spelling_are_taken_as_spelled() -> None:
    def one(number: str) -> list[int]:
        body = f'{{"messages":[],"tools":[{{"name":"f","x":{number}}}]}}'.encode()
        return chain(cache_prompt("anthropic_messages", canonical.parse(body), CLAUDE))

    assert one("1.0") != one("1.00")
    assert one("1.0") == one("1.0")


# --- fingerprints ----------------------------------------------------------------------------------------


BLOCKS = [
    text("hi"),
    {"type": "tool_use", "id": "t1", "name": "f", "input": {"cache_control": 1}},
    {"type": "tool_result", "tool_use_id": "t1", "content": "done"},
    {"type": "tool_result", "tool_use_id": "t1", "content": [text("done")]},
    {"type": "image", "source": {"type": "url", "url": "https://a"}},
    {"type": "search_result", "content": [text("found")], "source": "s", "title": "t"},
    {"type": "a_new_block", "x": 1},
]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: str(block["type"]))
def test_a_marker_is_in_no_fingerprint_but_is_seen(block: dict[str, Any]) -> None:
    def seen(block: dict[str, Any]) -> tuple[int, int, int]:
        (found,) = said(block)
        return found.digest, found.size, found.client_ttl_s

    digest, size, none = seen(block)

    assert 0 == none
    assert (digest, size, 0) == seen({**block, "cache_control": None})
    assert (digest, size, 300) == seen({**block, **MARK}) == seen({**MARK, **block})
    assert (digest, size, 3600) == seen({**block, **HOUR})


def test_a_marker_inside_of_a_block_counts_for_the_block() -> None:
    def result(*inner: Any) -> PrefixBlock:
        return said({"type": "tool_result", "tool_use_id": "t", "content": list(inner)})[0]

    image = {"type": "image", "source": {"type": "url", "url": "https://a"}}
    assert result(text("a"), image).digest == result(text("a", **HOUR), {**image, **MARK}).digest
    assert 3600 == result(text("a"), text("b", **HOUR)).client_ttl_s
    assert 300 == result({**image, **MARK}).client_ttl_s
    assert result(text("a", citations=[1])).digest != result(text("a")).digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (text("a"), text("b")),
        (text("a"), text("a", citations=[{"x": 1}])),
        (text("a"), {"type": "thinking", "thinking": "a"}),
        (BLOCKS[1], {**BLOCKS[1], "id": "t2"}),
        (BLOCKS[1], {**BLOCKS[1], "input": {}}),
        (BLOCKS[2], {**BLOCKS[2], "tool_use_id": "t2"}),
        (BLOCKS[2], {**BLOCKS[2], "is_error": True}),
        (BLOCKS[2], {**BLOCKS[2], "content": "other"}),
        (BLOCKS[3], {**BLOCKS[3], "content": [text("done"), text("")]}),
    ],
)
def test_whatever_is_rendered_is_in_the_fingerprint(one: Any, other: Any) -> None:
    assert said(one)[0].digest != said(other)[0].digest
    assert said(one)[0].digest != said(one, role="assistant")[0].digest


def test_a_bare_string_is_the_same_as_its_list_of_one_text() -> None:
    (bare,), (listed,) = claude(messages=[user("hi")]).blocks, said(text("hi"))
    assert (bare.digest, bare.size, bare.can_mark) == (listed.digest, listed.size, listed.can_mark)
    assert claude(system="be").blocks[0].digest == claude(system=[text("be")]).blocks[0].digest


def test_where_a_message_begins_matters() -> None:
    apart = claude(messages=[user([text("a")]), user([text("b")])])
    together = claude(messages=[user([text("a"), text("b")])])

    assert chain(apart) != chain(together)


def test_members_of_a_message_that_say_something_are_in_its_fingerprint() -> None:
    plain = claude(messages=[user("hi")])
    assert chain(plain) != chain(claude(messages=[{**user("hi"), "clear_at": "x"}]))
    assert chain(plain) == chain(claude(messages=[{**user("hi"), "clear_at": None}]))
    named = chat({**user("hi"), "name": "Ann"})
    assert chain(named) != chain(chat(user("hi")))
    assert chain(chat({**user("hi"), "name": None})) == chain(chat(user("hi")))


def test_sizes_are_bytes_of_what_is_rendered() -> None:
    assert [3, 6, 2] == [
        b.size
        for b in said(
            text("é!"),
            {"type": "tool_result", "tool_use_id": "t", "content": [text("abc"), text("déf"[:2])]},
            {"type": "thinking", "thinking": "hm", "signature": "x" * 900},
        )
    ]
    assert len(b'{"name":"f"}') == claude(tools=[{"name": "f", **MARK}]).blocks[0].size


def test_media_are_sized_by_a_guess_at_their_tokens() -> None:
    def image(data: str) -> dict[str, Any]:
        return {"type": "image", "source": {"type": "base64", "data": data}}

    small, large, elsewhere = said(
        image("A" * 100),
        image("A" * 900_000),
        {"type": "image", "source": {"type": "url", "url": "https://a"}},
    )
    assert 100 < small.size < 200
    assert large.size == elsewhere.size == 6000
    assert Kind.MEDIA is large.kind
    low = {"type": "image_url", "image_url": {"url": "https://a", "detail": "low"}}
    assert 340 == chat(user([low])).blocks[0].size
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 512_000, "format": "mp3"}}
    assert 1000 == chat(user([sound])).blocks[0].size
    pdf = {"type": "document", "source": {"type": "base64", "data": "A" * 600_000}}
    assert 60_000 == pytest.approx(said(pdf)[0].size, rel=0.01)


def test_a_prompt_with_media_is_not_only_text() -> None:
    note = {"type": "document", "source": {"type": "text", "data": "abc"}}
    parts = {"type": "document", "source": {"type": "content", "content": [text("ab")]}}
    whole = {"type": "document", "source": {"type": "content", "content": "abcd"}}
    image = {"type": "image", "source": {"type": "url", "url": "https://a"}}

    assert [3, 2, 4] == [block.size for block in said(note, parts, whole)]
    assert claude(messages=[user([note, parts])]).text_only
    assert not claude(messages=[user([image])]).text_only
    assert not claude(
        messages=[user([{"type": "tool_result", "tool_use_id": "t", "content": [image]}])]
    ).text_only
    assert not responses([user([{"type": "input_image", "image_url": "u"}])]).text_only


# --- Anthropic ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "can_mark"),
    [
        (text("hi"), True),
        (text(""), False),
        (text(" \n\t"), False),
        ({"type": "thinking", "thinking": "hm", "signature": "s"}, False),
        ({"type": "redacted_thinking", "data": "s"}, False),
        ({"type": "tool_use", "id": "t", "name": "f", "input": {}}, True),
        ({"type": "tool_result", "tool_use_id": "t"}, True),
        ({"type": "tool_result", "tool_use_id": "t", "content": ""}, True),
        ({"type": "image", "source": {}}, True),
        ({"type": "document", "source": {}}, True),
        ({"type": "search_result"}, True),
        ({"type": "server_tool_use"}, True),
        ({"type": "web_search_tool_result"}, True),
        ({"type": "container_upload"}, True),
        ({"type": "a_new_block"}, False),
        ("search_result", False),
    ],
)
def test_markers_stand_only_where_anthropic_takes_them(block: Any, can_mark: bool) -> None:
    assert can_mark is said(block)[0].can_mark


def test_blank_strings_take_no_marker_and_neither_does_a_deferred_tool() -> None:
    assert not claude(system=" ").blocks[0].can_mark
    assert not claude(messages=[user("\n")]).blocks[0].can_mark
    tools = [{"name": "a"}, {"name": "b", "defer_loading": True}, {"type": "mcp_toolset"}]
    assert [("tools", 0), ("tools", 2)] == [
        block.path for block in claude(tools=tools).blocks if block.kind is Kind.TOOL
    ]


def test_rules_say_whether_tools_and_the_assistant_take_markers() -> None:
    fewer = dataclasses.replace(CLAUDE, marks_tools=False, marks_assistant=False)
    answer = {"role": "assistant", "content": "yes"}

    assert all(b.can_mark for b in claude(tools=[{"name": "f"}], messages=[answer]).blocks)
    blocks = claude(fewer, tools=[{"name": "f"}], messages=[answer, user("hi")]).blocks
    assert [False, False, True] == [block.can_mark for block in blocks]


def test_the_billing_block_of_claude_code_is_not_seen() -> None:
    def prompt(code: str) -> CachePrompt:
        billing = text(f"x-anthropic-billing-header: cc_version=2.1; cch={code};")
        return claude(system=[billing, text("You are Claude Code.")])

    assert chain(prompt("a1")) == chain(prompt("b2"))
    assert [False, True, True] == [block.can_mark for block in prompt("a1").blocks]
    more = "x-anthropic-billing-header: a\nYou are"
    assert claude(system=more).blocks[0].can_mark


def test_what_the_client_says_itself_is_known() -> None:
    prompt = claude(**HOUR)
    assert (3600, True) == (prompt.automatic_ttl_s, prompt.marked_by_client)
    assert not claude(cache_control=None).marked_by_client
    assert claude(system=[text("be", **MARK)]).marked_by_client
    assert 300 == claude(tools=[{"name": "f", **MARK}]).blocks[0].client_ttl_s


@pytest.mark.parametrize(
    ("body", "thinks"),
    [
        ({}, False),
        ({"thinking": {"type": "disabled"}}, False),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, True),
        ({"thinking": {"type": "adaptive"}}, True),
        ({"messages": [{"role": "assistant", "content": [{"type": "thinking"}]}]}, True),
        ({"messages": [{"role": "assistant", "content": [{"type": "redacted_thinking"}]}]}, True),
    ],
)
def test_thinking_is_known_and_forbids_splits(body: dict[str, Any], thinks: bool) -> None:
    prompt = claude(system=LONG, **body)

    assert thinks is prompt.thinks
    assert thinks is not any(block.until for block in prompt.blocks)


@pytest.mark.parametrize("name", ["model", "thinking", "output_config", "speed", "container"])
def test_what_changes_all_of_the_prefix_is_in_the_seed(name: str) -> None:
    value = {"skills": ["a"]} if name == "container" else "x"
    assert claude().seed != claude(**{name: value}).seed
    assert claude().seed == claude(temperature=1, container={"id": "c"}).seed


def test_a_tool_choice_changes_only_the_messages() -> None:
    plain, chosen = claude(system="be"), claude(system="be", tool_choice={"type": "any"})

    assert chain(plain)[0] == chain(chosen)[0]
    assert chain(plain)[1] != chain(chosen)[1]


def test_the_first_image_changes_all_messages_but_nothing_before_them() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://a"}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [image]}
    plain = chain(claude(system="be", messages=[user("hi")]))

    for held in (image, result):
        one = chain(claude(system="be", messages=[user("hi"), user([held])]))
        two = chain(claude(system="be", messages=[user("hi"), user([held]), user([image])]))
        assert plain[0] == one[0]
        assert plain[1] != one[1]
        assert one == two[:3]


def test_a_system_message_in_the_conversation_is_a_message() -> None:
    blocks = claude(messages=[user("hi"), {"role": "system", "content": LONG}]).blocks

    assert [(Section.MESSAGES, "system", 0)] == [(b.section, b.role, b.until) for b in blocks[1:]]
    assert blocks[1].can_mark


# --- pieces ----------------------------------------------------------------------------------------------


def test_a_long_system_text_is_pieces_that_add_up_to_it() -> None:
    for system in (LONG, [text(LONG)]):
        *pieces, last, _ = claude(system=system).blocks
        assert len(pieces) > 8
        assert 0 == last.until
        assert len(LONG) == sum(piece.size for piece in pieces) + last.size
        at = 0
        for piece in pieces:
            assert piece.size == piece.until - at
            assert piece.can_mark
            at = piece.until
        assert last.ends_message
        assert not any(piece.ends_message for piece in pieces)


def test_the_clients_marker_stays_on_the_last_piece() -> None:
    blocks = claude(system=[text(LONG, **MARK)]).blocks

    assert [300] == [block.client_ttl_s for block in blocks if block.client_ttl_s]
    assert 300 == blocks[-2].client_ttl_s


def test_texts_that_begin_alike_share_the_fingerprints_of_their_first_pieces() -> None:
    one = chain(claude(system=LONG + "for Ann" * 90))
    other = chain(claude(system=LONG + "for Bob" * 90))

    shared = sum(a == b for a, b in zip(one, other, strict=True))
    assert len(one) - 4 <= shared < len(one) - 1


def test_only_rules_that_allow_it_split_a_text() -> None:
    bound = dataclasses.replace(CLAUDE, binds_thinking=True)

    assert not any(block.until for block in claude(bound, system=LONG).blocks)
    assert not any(block.until for block in claude(messages=[user(LONG)]).blocks)
    assert any(block.until for block in chat({"role": "developer", "content": LONG}).blocks)
    assert not any(block.until for block in responses("hi", instructions=LONG).blocks)
    assert any(block.until for block in responses([{"role": "system", "content": LONG}]).blocks)


# --- OpenAI ------------------------------------------------------------------------------------------------


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def test_a_chat_has_its_system_messages_first_and_the_rest_in_order() -> None:
    prompt = chat(
        {"role": "system", "content": "be"},
        {"role": "developer", "content": [text("brief")]},
        user([text("hi"), {"type": "image_url", "image_url": {"url": "u"}}]),
        {"role": "assistant", "content": "well", "tool_calls": [CALL, CALL]},
        {"role": "tool", "tool_call_id": "c", "content": "done"},
        {"role": "system", "content": "later"},
        {"role": "assistant", "content": None},
        tools=[{"type": "function", "function": {"name": "f"}}],
    )

    system, messages = Section.SYSTEM, Section.MESSAGES
    assert [
        (Section.TOOLS, Kind.TOOL, False, False),
        (system, Kind.TEXT, True, True),
        (system, Kind.TEXT, True, True),
        (messages, Kind.TEXT, True, False),
        (messages, Kind.MEDIA, True, True),
        (messages, Kind.TEXT, False, False),
        (messages, Kind.TOOL_USE, False, False),
        (messages, Kind.TOOL_USE, False, True),
        (messages, Kind.TOOL_RESULT, True, True),
        (messages, Kind.TEXT, True, True),
        (messages, Kind.OTHER, False, True),
    ] == [(b.section, b.kind, b.can_mark, b.ends_message) for b in prompt.blocks]
    assert ("messages", 3, "tool_calls", 1) == prompt.blocks[7].path


def test_a_router_to_claude_takes_markers_on_what_the_assistant_said() -> None:
    answer = {"role": "assistant", "content": "yes", "tool_calls": [CALL]}

    assert [True, False] == [b.can_mark for b in chat(answer, rules=ROUTED).blocks]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning_details", "reasoning"])
def test_reasoning_that_is_passed_back_is_thinking(name: str) -> None:
    prompt = chat({"role": "assistant", "content": "yes", name: "hm"})

    assert [Kind.THINKING, Kind.TEXT] == [block.kind for block in prompt.blocks]
    assert prompt.thinks
    assert not chat({"role": "assistant", "content": "yes", name: None}).thinks


@pytest.mark.parametrize(
    ("body", "thinks"),
    [
        ({"reasoning_effort": "high"}, True),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": None}, False),
        ({"reasoning": {"effort": "low"}}, True),
        ({"reasoning": {"effort": "none"}}, False),
        ({"thinking": {"type": "enabled"}}, True),
        ({"thinking": {"type": "disabled"}}, False),
    ],
)
def test_whether_openai_is_asked_to_reason_is_known(body: dict[str, Any], thinks: bool) -> None:
    assert thinks is chat(user("hi"), **body).thinks
    assert thinks is responses("hi", **body).thinks


def test_a_marker_on_a_message_counts_for_its_last_block() -> None:
    assert [0, 300] == [
        b.client_ttl_s for b in chat({**user([text("a"), text("b")]), **MARK}, rules=ROUTED).blocks
    ]
    assert chain(chat({**user("a"), **MARK})) == chain(chat(user("a")))
    assert [0, 1800] == [b.client_ttl_s for b in chat(user([text("a"), text("b", **POINT)])).blocks]
    function = {"type": "function", "function": {"name": "f", **MARK}}
    tool = chat(user("a"), tools=[function], rules=ROUTED).blocks[0]
    plain = {"type": "function", "function": {"name": "f"}}
    assert 300 == tool.client_ttl_s
    assert tool.digest == chat(user("a"), tools=[plain], rules=ROUTED).blocks[0].digest


def test_openais_own_options_are_known() -> None:
    prompt = chat(
        user("hi"), prompt_cache_options={"mode": "explicit", "ttl": "30m"}, prompt_cache_key="k"
    )

    assert ("explicit", "k", True) == (
        prompt.client_mode,
        prompt.client_key,
        prompt.marked_by_client,
    )
    assert prompt.seed != chat(user("hi")).seed


@pytest.mark.parametrize(
    "name",
    ["parallel_tool_calls", "response_format", "reasoning_effort", "verbosity", "service_tier"],
)
def test_what_breaks_openais_prefix_is_in_the_seed(name: str) -> None:
    assert chat(user("hi")).seed != chat(user("hi"), **{name: "x"}).seed
    assert chat(user("hi")).seed == chat(user("hi"), **{name: None}, tool_choice="none").seed


def test_items_of_responses_are_blocks_in_order() -> None:
    prompt = responses(
        [
            {"role": "developer", "content": "be"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "reasoning", "summary": [], "encrypted_content": "abcd"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "y"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "done"},
            {
                "type": "function_call_output",
                "call_id": "c",
                "output": [{"type": "input_text", "text": "done", **POINT}],
            },
            {
                "type": "computer_call_output",
                "call_id": "c",
                "output": {"type": "computer_screenshot", "image_url": "u"},
            },
            {"type": "item_reference", "id": "x"},
        ],
        instructions="brief",
        tools=[{"type": "function", "name": "f"}],
    )  # fmt: skip

    assert [
        (("tools", 0), Kind.TOOL, False),
        (("instructions",), Kind.TEXT, False),
        (("input", 0, "content"), Kind.TEXT, True),
        (("input", 1, "content", 0), Kind.TEXT, True),
        (("input", 2), Kind.THINKING, False),
        (("input", 3, "content", 0), Kind.TEXT, False),
        (("input", 4), Kind.TOOL_USE, False),
        (("input", 5), Kind.TOOL_RESULT, False),
        (("input", 6, "output", 0), Kind.TOOL_RESULT, True),
        (("input", 7, "output"), Kind.TOOL_RESULT, True),
        (("input", 8), Kind.OTHER, False),
    ] == [(b.path, b.kind, b.can_mark) for b in prompt.blocks]
    assert prompt.thinks
    assert 1800 == prompt.blocks[8].client_ttl_s
    assert [3, 2] == [prompt.blocks[4].size, prompt.blocks[3].size]


def test_a_bare_input_takes_no_marker() -> None:
    (block,) = responses("hi").blocks

    assert (("input",), False, True) == (block.path, block.can_mark, block.ends_message)


def test_what_openai_keeps_stands_behind_the_instructions() -> None:
    one, other = (
        responses("hi", instructions="be"),
        responses("hi", instructions="be", conversation="c"),
    )

    assert chain(one)[0] == chain(other)[0]
    assert chain(one)[1] != chain(other)[1]
    assert responses("hi", include=["reasoning.encrypted_content"]).thinks


# --- Bedrock -----------------------------------------------------------------------------------------------


def test_a_cache_point_belongs_to_the_block_before_it() -> None:
    point = {"cachePoint": {"type": "default"}}
    body: dict[str, Any] = {
        "system": [point, {"text": "be"}, {"cachePoint": {"type": "default", "ttl": "1h"}}],
        "toolConfig": {"tools": [{"toolSpec": {"name": "f"}}, point], "toolChoice": {"any": {}}},
        "messages": [
            user([{"text": "hi"}, {"image": {"format": "png"}}, {"text": " "}]),
            {"role": "assistant", "content": [{"toolUse": {}}, {"reasoningContent": {}}]},
        ],
        "inferenceConfig": {"maxTokens": 5},
    }

    prompt = cache_prompt("bedrock_converse", body, CONVERSE)

    assert [
        (("toolConfig", "tools", 0), Kind.TOOL, True, 300),
        (("system", 1), Kind.TEXT, True, 3600),
        (("messages", 0, "content", 0), Kind.TEXT, True, 0),
        (("messages", 0, "content", 1), Kind.MEDIA, True, 0),
        (("messages", 0, "content", 2), Kind.TEXT, False, 0),
        (("messages", 1, "content", 0), Kind.TOOL_USE, True, 0),
        (("messages", 1, "content", 1), Kind.THINKING, False, 0),
    ] == [(b.path, b.kind, b.can_mark, b.client_ttl_s) for b in prompt.blocks]
    assert prompt.thinks
    assert not prompt.text_only
    assert [1, 4, 6] == [i for i, block in enumerate(prompt.blocks) if block.ends_message]
    bare = {
        **body,
        "system": [{"text": "be"}],
        "toolConfig": {"tools": [{"toolSpec": {"name": "f"}}]},
    }
    same = cache_prompt("bedrock_converse", bare, CONVERSE)
    assert chain(prompt)[:2] == chain(same)[:2]
    assert chain(prompt)[2] != chain(same)[2]
    asked: dict[str, Any] = {
        **bare,
        "additionalModelRequestFields": {"thinking": {"type": "enabled"}},
    }
    assert cache_prompt("bedrock_converse", asked, CONVERSE).seed != same.seed


def test_names_of_any_length_are_told_apart_and_not_remembered() -> None:
    memories = (block_parts._known_seed, anthropic_messages_blocks._known_seeds)
    said({"type": "text", "text": "hi"})
    before = [memory.cache_info().currsize for memory in memories]
    words = ["x" * 1000, "x" * 1001]
    kinds = [[block.digest for block in said({"type": word, "x": 1})] for word in words]
    for read in (said, lambda *_, role: chat({"role": role, "content": "hi"})):
        with pytest.raises(NotUnderstood):
            read({"type": "text", "text": "hi"}, role=words[0])
    assert kinds[0] != kinds[1]
    assert [memory.cache_info().currsize for memory in memories] == before
