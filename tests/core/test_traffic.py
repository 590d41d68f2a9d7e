"""What requests show together that none shows alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core import canonical
from gateway.core.findings import Finding, Grade, Shape, What
from gateway.core.traffic import lint
from gateway.core.volatile import Kind
from gateway.wire import prompts
from gateway.wire.base import NotUnderstood

if TYPE_CHECKING:
    from gateway.core.blocks import Prompt

RULES = "".join(f"Rule {word}: be {word} in all that you say.\n" for word in "abcdefghijklmnop")


def prompt(body: dict[str, Any]) -> Prompt:
    return prompts.read(canonical.parse(orjson.dumps(body)))


def chat(system: str, *turns: str, **more: Any) -> Prompt:
    messages = [{"role": "system", "content": system}]
    for number, turn in enumerate(turns):
        messages.append({"role": ("user", "assistant")[number % 2], "content": turn})
    return prompt({"model": "gpt-5", "messages": messages, **more})


def told(found: list[Finding]) -> list[tuple[What, Grade]]:
    return [(f.what, f.grade) for f in found]


def tool(name: str, description: str = "") -> dict[str, Any]:
    schema = {"type": "object", "properties": {"x": {"type": "string"}}}
    function = {"name": name, "description": description or name * 9, "parameters": schema}
    return {"type": "function", "function": function}


def test_a_value_that_looks_volatile_but_recurs_is_none() -> None:
    system = "Request id: 8471923\n" + RULES
    assert [(Kind.ID, Grade.FAULT)] == told(lint([chat(system, "One?")]))
    assert [] == lint([chat(system, "One?"), chat(system, "Two?")])


def test_what_may_stay_for_a_session_is_suspect_until_two_conversations_share_it() -> None:
    system = "Hostname: worker-7f9c4d\n" + RULES
    turns = "One?", "1. " + "Yes. " * 20, "Sure?"
    one = [chat(system, *turns[:1]), chat(system, *turns)]
    assert [(Kind.ENVIRONMENT, Grade.FAULT)] == told(lint(one))
    assert [] == lint([*one, chat(system, "Two?")])


def test_every_change_of_a_clock_is_counted_with_the_history_it_loses() -> None:
    turns = ["One?", "1. " + "Yes. " * 40, "Two?", "2. " + "No. " * 40, "Three?"]
    found = lint(chat(f"Now: 23:1{n}:50\n" + RULES, *turns[:n]) for n in (1, 3, 5))
    (finding,) = found
    assert (Kind.TIMESTAMP, True, 2) == (finding.what, finding.seen, finding.requests)
    # The third request has the rules and three turns of the second one.
    assert finding.lost_tokens > (len(RULES) + 200) // 4
    assert "23:11:50 -> 23:13:50" == finding.excerpt


def test_text_without_any_pattern_is_found_by_what_recurs_behind_it() -> None:
    found = lint(chat(f"You serve {who}.\n" + RULES, "Hi") for who in ("Ann", "Bo", "Cy"))
    assert [(Shape.CHANGING_TEXT, Grade.FAULT)] == told(found)
    assert 2 == found[0].requests
    assert "Ann" in found[0].excerpt


def test_two_versions_of_a_prompt_in_long_use_are_a_note() -> None:
    versions = ["You serve Ann.\n" + RULES, "You serve Bo, our best customer.\n" + RULES]
    found = lint(chat(versions[n % 2], f"Question {n}?") for n in range(12))
    assert [(Shape.CHANGING_TEXT, Grade.NOTE)] == told(found)


def test_tools_in_another_order_cost_what_stands_behind_the_first_moved_one() -> None:
    tools = [tool(name) for name in ("alpha", "beta", "gamma")]
    found = lint([chat(RULES, "One?", tools=tools), chat(RULES, "Two?", tools=tools[::-1])])
    (finding,) = found
    assert (Shape.TOOL_ORDER, "$.tools[0]") == (finding.what, finding.path)
    assert finding.lost_tokens >= len(RULES) // 4


def test_another_order_of_the_envelope_is_none() -> None:
    body = {"model": "gpt-5", "messages": [{"role": "system", "content": RULES}]}
    turned = {
        "messages": [{"content": RULES, "role": "system"}, {"content": "Hi", "role": "user"}],
        "model": "gpt-5",
    }
    assert [] == lint([prompt(body), prompt(turned)])


def test_another_model_has_another_cache() -> None:
    one, other = (
        prompt({"model": model, "messages": [{"role": "system", "content": who + RULES}]})
        for model, who in (("gpt-5", "You serve Ann.\n"), ("gpt-5-mini", "You serve Bo.\n"))
    )
    assert [] == lint([one, other])


def test_prompts_that_have_little_in_common_are_not_compared() -> None:
    assert [] == lint(
        [chat("Translate into French.", "Hi"), chat("Write SQL only.\n" + RULES, "Hi")]
    )


def test_a_conversation_that_branches_is_no_rewriting() -> None:
    start = ["One?", "1. " + "Yes. " * 80, "Two?", "2. " + "No. " * 80]
    branches = [
        chat(RULES, *start, "Three?"),
        chat(RULES, *start[:2], "Another?", "3. Maybe.", "So?"),
    ]
    assert [] == lint(branches)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "type", "text", "tools", "function", "name", "input", "output"]
            )
            | st.text(max_size=4),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "model": st.just("m") | JSON,
        "messages": st.lists(
            st.fixed_dictionaries(
                {
                    "role": st.sampled_from(["system", "user", "assistant", "tool"]) | JSON,
                    "content": st.sampled_from(["Now: 23:33\nBe kind.", RULES, ""]) | JSON,
                },
                optional={"tool_calls": JSON},
            )
            | JSON,
            max_size=5,
        )
        | JSON,
        "tools": st.lists(st.just(tool("a")) | JSON, max_size=4) | JSON,
        "system": JSON,
        "input": JSON,
        "prompt": JSON,
        "instructions": JSON,
        "response_format": JSON,
    },
)


@settings(max_examples=150, deadline=None)
@given(st.lists(BODIES, max_size=4))
def test_no_body_makes_it_raise_and_repeating_one_finds_nothing_new(
    bodies: list[dict[str, Any]],
) -> None:
    read = []
    for body in bodies:
        try:
            read.append(prompts.read(canonical.parse(orjson.dumps(body))))
        except (NotUnderstood, canonical.Uncacheable):
            continue
    found = lint(read)
    assert all(f.lost_tokens >= 0 and 1 <= f.requests <= len(read) for f in found)
    assert all(0 <= f.first < len(read) for f in found)
    seen = [f for f in found if f.seen]
    assert seen == [f for f in lint([*read, *read[-1:]]) if f.seen] or not read
