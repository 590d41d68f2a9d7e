"""What a request may ask for, and what is never touched."""

from __future__ import annotations

import pytest

from gateway.core.directives import NOTHING, Directives
from gateway.core.model import Ask, Form, Reason
from gateway.core.plan import Markers, PlanReason
from gateway.core.prompt_policy import PromptPolicy, markers_for, untouchable

ASK = Ask(form=Form.BODY, model="m")


@pytest.mark.parametrize(
    ("config", "header", "expected"),
    [
        ("auto", None, "auto"),
        ("auto", "off", "off"),
        ("auto", " Respect ", "respect"),
        ("auto", "strip", "strip"),
        ("auto", "all of them", "auto"),
        ("respect", "auto", "respect"),
        ("respect", "strip", "respect"),
        ("respect", "off", "off"),
        ("strip", "auto", "auto"),
        ("off", "auto", "off"),
        ("off", "strip", "off"),
    ],
)
def test_a_request_asks_for_no_more_than_the_operator_allows(
    config: str, header: str | None, expected: str
) -> None:
    assert markers_for(PromptPolicy(Markers(config)), header) is Markers(expected)


@pytest.mark.parametrize(
    ("markers", "directives", "pass_reason", "ask", "expected"),
    [
        (Markers.AUTO, NOTHING, None, ASK, None),
        (Markers.AUTO, NOTHING, Reason.HOSTED_TOOL, ASK, None),
        (Markers.OFF, NOTHING, None, ASK, PlanReason.OFF),
        (Markers.AUTO, Directives(no_transform=True), None, ASK, PlanReason.NO_TRANSFORM),
        (Markers.AUTO, NOTHING, Reason.SIGNED, None, PlanReason.SIGNED),
        (Markers.STRIP, NOTHING, Reason.UNCACHEABLE_JSON, None, PlanReason.NOT_UNDERSTOOD),
        (Markers.STRIP, NOTHING, Reason.ENCODED_BODY, None, PlanReason.NOT_UNDERSTOOD),
    ],
)
def test_what_must_go_as_it_came_says_why(
    markers: Markers,
    directives: Directives,
    pass_reason: Reason | None,
    ask: Ask | None,
    expected: PlanReason | None,
) -> None:
    assert untouchable(markers, directives, pass_reason, ask) is expected
