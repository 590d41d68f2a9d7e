"""What the conformance tests have SDKs ask: programs by name, and what is compared of answers."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from pydantic import BaseModel

FORMS = ("body", "stream")
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
TEXT = 'Naïve café: what is a cache? ☕\n\tTwo lines, "quotes" and \\ back\\slashes.'


class Step(BaseModel):
    explanation: str
    score: float
    final: bool


class Solution(BaseModel):
    steps: list[Step]
    answer: int
    note: str | None


class GetWeather(BaseModel):
    """Tells the weather."""

    city: str
    unit: Literal["c", "f"]


class SetAlarm(BaseModel):
    """Sets an alarm."""

    hour: int


@dataclass(frozen=True)
class Program:
    name: str
    asked: dict[str, Any]
    style: str = "helper"
    """`helper`: the SDK parses and accumulates; `plain`: create(), chunks merged afterwards."""

    def __repr__(self) -> str:
        return self.name


def programs(*made: Program) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("program", made, ids=repr)


_OF_ONE_ANSWER = frozenset(
    {"id", "call_id", "created", "created_at", "completed_at", "obfuscation"}
)


def without_ids(value: Any) -> Any:
    """A parsed object as data, without ids, times and the padding of streams."""
    if isinstance(value, BaseModel):
        # Parsed models are generic, and pydantic warns of what was constructed unchecked.
        value = value.model_dump(warnings=False)
    if isinstance(value, dict):
        return {name: without_ids(v) for name, v in value.items() if name not in _OF_ONE_ANSWER}
    return [without_ids(item) for item in value] if isinstance(value, list) else value
