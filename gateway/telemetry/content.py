"""What prompts and answers say, on spans or as events: off, unless the standard variable asks for it.

`OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`: `NO_CONTENT` (default), `SPAN_ONLY`,
`EVENT_ONLY`, `SPAN_AND_EVENT`; `true` and `false`, as older instrumentations have it, are the first
two. Only of model calls that are traced; never in a log line of ours.

Bounded: a text beyond `MOST_TEXT` characters is cut and says so, and of what is still beyond
`MOST_JSON` characters the newest messages are told.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from gateway.telemetry import semconv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.context import Context

    from gateway.telemetry.attributes import Told

_log = logging.getLogger(__name__)

VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"

MOST_TEXT = 8 * 1024
MOST_JSON = 32 * 1024
_DEEPEST = 32

NAMES = (
    semconv.GEN_AI_SYSTEM_INSTRUCTIONS,
    semconv.GEN_AI_INPUT_MESSAGES,
    semconv.GEN_AI_TOOL_DEFINITIONS,
    semconv.GEN_AI_OUTPUT_MESSAGES,
)
"""In the order in which they are said."""

_MODES = {
    "": (False, False),
    "no_content": (False, False),
    "false": (False, False),
    "true": (True, False),
    "span_only": (True, False),
    "event_only": (False, True),
    "span_and_event": (True, True),
}


def modes(environ: Mapping[str, str]) -> tuple[bool, bool]:
    """Whether content is wanted on spans, and as events."""
    said = environ.get(VARIABLE, "").strip().lower()
    if said not in _MODES:
        _log.warning("%s: unknown, telling no content", VARIABLE)
    return _MODES.get(said, (False, False))


class Events(Protocol):
    """Where events go."""

    def emit(self, name: str, told: Mapping[str, Any], context: Context) -> None:
        """Tell it. Never raises, never waits."""


class Capture:
    """Where content is told."""

    def __init__(self, *, on_spans: bool = False, events: Events | None = None) -> None:
        self._on_spans = on_spans
        self._events = events
        self.wanted = on_spans or events is not None

    def told(self, said: Sequence[Sequence[object]], told: Told, context: Context) -> Told:
        """What goes on the span, of what was said (as `NAMES`); an event goes out besides, with
        `told` and in `context`, where events are wanted.
        """
        bounded = {
            name: parts
            for name, all_of_it in zip(NAMES, said, strict=True)
            if all_of_it and (parts := _newest(all_of_it))
        }
        if self._events is not None:
            everything = {**told, **{name: orjson.loads(raw) for name, raw in bounded.items()}}
            self._events.emit(semconv.EVENT_INFERENCE_DETAILS, everything, context)
        return {n: raw.decode() for n, raw in bounded.items()} if self._on_spans else {}


def _newest(parts: Sequence[object]) -> bytes:
    """The last of them that have room, as a JSON list; empty for none."""
    kept: list[bytes] = []
    size = 2
    for part in reversed(parts):
        try:
            raw = orjson.dumps(_cut(part, _DEEPEST))
        except (TypeError, ValueError):
            continue
        size += len(raw) + 1
        if size > MOST_JSON:
            break
        kept.append(raw)
    return b"[" + b",".join(reversed(kept)) + b"]" if kept else b""


def _cut(value: object, depth: int) -> object:
    """The value without long texts, and without what can't be encoded."""
    if isinstance(value, str):
        if len(value) > MOST_TEXT:
            value = f"{value[:MOST_TEXT]} [{len(value) - MOST_TEXT} more characters]"
        return value.encode("utf-8", "backslashreplace").decode()
    if depth == 0:
        return None
    if isinstance(value, dict):
        return {str(name): _cut(member, depth - 1) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_cut(item, depth - 1) for item in value]
    return value


NO_CONTENT = Capture()
