"""Looking into answers that may hold anything: what isn't of the kind asked for is empty."""

from __future__ import annotations

from gateway.core.canonical import Json, Number, is_number


def text(value: Json) -> str:
    """The string, or ""."""
    return value if isinstance(value, str) else ""


def texts(owner: dict[str, Json], *names: str) -> tuple[str, ...]:
    """The members that are strings and not empty, in this order."""
    return tuple(said for name in names if (said := text(owner.get(name))))


def items(value: Json) -> list[Json]:
    """The list, or []."""
    return value if isinstance(value, list) else []


def members(value: Json) -> dict[str, Json]:
    """The object, or {}."""
    return value if isinstance(value, dict) else {}


def objects(value: Json) -> list[dict[str, Json]]:
    """The objects of the list."""
    return [item for item in items(value) if isinstance(item, dict)]


def objects_within(*values: Json) -> list[dict[str, Json]]:
    """All objects in the values, however deep; each before those that it holds."""
    found: list[dict[str, Json]] = []
    waiting = list(values)
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            found.append(each)
            for value in each.values():
                if value.__class__ is dict or value.__class__ is list:
                    waiting.append(value)  # noqa: PERF401 - a comprehension costs a call for each
        elif isinstance(each, list):
            waiting += each
    return found


def index(value: Json) -> int | None:
    """A number that counts from 0, or None."""
    if type(value) is int:
        return value if value >= 0 else None
    if not isinstance(value, Number) or not value.raw.isdigit():
        return None
    return int(value.raw)


def says(value: Json) -> bool:
    """Does it say anything? Null, false and what is empty say nothing; a number does, even 0."""
    return bool(value) or is_number(value)
