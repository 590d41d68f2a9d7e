"""How much of what was said is told: bounded, newest first, and always JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.context import Context

from gateway.telemetry import semconv
from gateway.telemetry.content import MOST_JSON, MOST_TEXT, NO_CONTENT, VARIABLE, Capture, modes

if TYPE_CHECKING:
    from collections.abc import Mapping


class Heard:
    """Events, kept."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Mapping[str, Any]]] = []

    def emit(self, name: str, told: Mapping[str, Any], _: Context) -> None:
        self.events.append((name, told))


def message(content: str) -> dict[str, Any]:
    return {"role": "user", "parts": [{"type": "text", "content": content}]}


def told(*messages: object) -> Any:
    """Input messages as they stand on a span, parsed; None where there are none."""
    attributes = Capture(on_spans=True).told(([], messages, [], []), {}, Context())
    assert set(attributes) <= {semconv.GEN_AI_INPUT_MESSAGES}
    text = attributes.get(semconv.GEN_AI_INPUT_MESSAGES)
    if text is None:
        return None
    assert isinstance(text, str)
    assert len(text) <= MOST_JSON
    return json.loads(text)


def test_a_long_text_is_cut_and_says_by_how_much() -> None:
    [cut] = told(message("x" * (MOST_TEXT + 5)))
    assert cut == message("x" * MOST_TEXT + " [5 more characters]")
    assert told(message("x" * MOST_TEXT)) == [message("x" * MOST_TEXT)]


def test_of_many_messages_the_newest_are_told() -> None:
    said = [message(f"{number} " + "x" * 1000) for number in range(100)]
    kept = told(*said)
    assert kept == said[-len(kept) :]
    assert 25 < len(kept) < 35


def test_what_can_not_be_encoded_is_told_as_what_can() -> None:
    [found] = told(message("\ud800 ok"))
    assert found == message("\\ud800 ok")
    deep: Any = "end"
    for _ in range(300):
        deep = {"x": deep}
    assert json.dumps(told(deep)).count("x") == 32
    assert told({"role": "user", "parts": [{"n": 10**30}]}, message("b")) == [message("b")]


def test_an_event_has_what_the_span_has_and_content_as_it_is() -> None:
    heard = Heard()
    capture = Capture(events=heard)
    on_span = capture.told(([], [message("a")], [], []), {"gen_ai.request.model": "m"}, Context())
    assert on_span == {}
    [(name, attributes)] = heard.events
    assert name == semconv.EVENT_INFERENCE_DETAILS
    assert attributes == {
        "gen_ai.request.model": "m",
        semconv.GEN_AI_INPUT_MESSAGES: [message("a")],
    }


def test_nothing_is_wanted_unless_it_is_asked_for() -> None:
    assert not NO_CONTENT.wanted
    assert Capture(on_spans=True).wanted
    assert Capture(events=Heard()).wanted


@pytest.mark.parametrize(
    ("said", "wanted", "warns"),
    [
        ("", (False, False), False),
        ("NO_CONTENT", (False, False), False),
        ("false", (False, False), False),
        ("True", (True, False), False),
        (" span_only ", (True, False), False),
        ("EVENT_ONLY", (False, True), False),
        ("SPAN_AND_EVENT", (True, True), False),
        ("yes please", (False, False), True),
    ],
)
def test_the_variable_has_the_words_of_the_conventions(
    said: str, wanted: tuple[bool, bool], warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert modes({VARIABLE: said}) == wanted
    assert bool(caplog.records) is warns
    assert "please" not in caplog.text
