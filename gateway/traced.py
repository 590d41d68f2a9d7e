"""What only spans tell of a model call: what was asked for beside the prompt and, where the operator
wants it, what was said. Found out for calls that are traced, and for no others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from gateway.core.mint import Mint
from gateway.core.model import Ask, Form
from gateway.journey import session_said
from gateway.telemetry.attributes import REQUEST_NAMES
from gateway.telemetry.semconv import (
    GEN_AI_CONVERSATION_ID,
    OPENAI_API_TYPE,
    OPENAI_API_TYPES,
)
from gateway.telemetry.spans import NO_ATTRIBUTES
from gateway.wire import said
from gateway.wire.parameters import parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.core.model import Answer, Entry
    from gateway.telemetry.spans import AttributeValue
    from gateway.turn import Turn

_log = structlog.get_logger("warmgate.traced")

Content = tuple[list[said.Object], list[said.Object], list[said.Object], list[said.Object]]
"""System instructions, messages, tools, and the answer's messages."""


def attributes(turn: Turn) -> Mapping[str, AttributeValue]:
    """What the request asks for, for its inference span; nothing where nobody will see it. Never
    raises: what can't be read is left out.
    """
    if not turn.exchange.span.recorded:
        return NO_ATTRIBUTES
    try:
        return _attributes(turn)
    except Exception:  # noqa: BLE001 - it is only told
        _log.exception("what was asked for can't be told", api=turn.api.name)
        return NO_ATTRIBUTES


def _attributes(turn: Turn) -> Mapping[str, AttributeValue]:
    api = turn.api.name
    told: dict[str, AttributeValue] = {
        REQUEST_NAMES[name]: value for name, value in parameters(api, turn.body).items()
    }
    if session := session_said(turn.request.headers):
        told[GEN_AI_CONVERSATION_ID] = session
    if api in OPENAI_API_TYPES:
        told[OPENAI_API_TYPE] = OPENAI_API_TYPES[api]
    return told


def content(
    turn: Turn, answer: Answer | None, as_entry: Callable[[Turn, Answer, float], Entry]
) -> Content:
    """What was asked and answered. Never raises: what can't be read is left out."""
    api = turn.api.name
    try:
        system, messages, tools = said.asked(api, turn.body)
        return system, messages, tools, said.answered(api, _document(turn, answer, as_entry))
    except Exception:  # noqa: BLE001 - it is only told
        _log.exception("what was said can't be told", api=api)
        return [], [], [], []


def _document(
    turn: Turn, answer: Answer | None, as_entry: Callable[[Turn, Answer, float], Entry]
) -> bytes:
    """The answer as a document; empty where it is none and can't be made one without loss."""
    if answer is None or len(answer.payload) > said.MOST_BYTES or Form.BODY not in answer.forms:
        return b""
    if answer.recorded is Form.BODY:
        return answer.payload
    entry = as_entry(turn, answer, 0.0)
    return turn.api.serve(entry, Ask(Form.BODY, answer.model), Mint(0, b""), turn.rules)
