"""JSON text -> exact value -> canonical bytes.

Rule 1: parsing loses nothing that could matter: numbers keep their spelling, members their order.
Rule 2: what JSON itself leaves undefined (a member named twice, lone surrogates, NaN, integers
beyond 64 bits, bytes that are no UTF-8) has no canonical form: `Uncacheable`. Nor has a nest
deeper than MAX_DEPTH: so every parsed value can be folded, looked into and encoded.
Rule 3: folding is a choice of the caller, place by place: `fold` for the envelope (parameters,
message and part objects), nothing for JSON that is rendered into the prompt.
Rule 4: a plain int or float stands for the one spelling that `encode` gives it; a number that was
spelled in any other way is a `Number`. So a text has one value, whichever way it was read.
"""

from __future__ import annotations

import json
import re
from typing import TypeAlias, TypeGuard, Union

import orjson

Json: TypeAlias = Union[bool, str, int, float, "Number", "list[Json]", "dict[str, Json]", None]


class Uncacheable(ValueError):
    """The text has no canonical form; `str()` says why."""


class Number:
    """A JSON number as it was spelled (`raw`). Equal only to the same spelling."""

    __slots__ = ("raw",)

    def __init__(self, raw: str) -> None:
        """Keep the spelling."""
        self.raw = raw

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Number) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"Number({self.raw!r})"


_INT_MIN = -(1 << 63)
_INT_MAX = (1 << 64) - 1
_MAX_INT_DIGITS = 20

MAX_DEPTH = 128
"""Arrays and objects within each other: far above any schema, far below anybody's stack."""

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# Up to here it costs less to count brackets than to sink a value.
_SHORT = 4096
# Escapes that orjson doesn't write. Looked for only behind a spaced head: it takes a while.
_ESCAPED = re.compile(rb"\\u(?!00[01])")
_HEAD = 64
_SPACE = b" \t\n\r"


def _integer(raw: str) -> int | Number:
    if len(raw) > _MAX_INT_DIGITS or not _INT_MIN <= int(raw) <= _INT_MAX:
        # Readers differ: some clip, some turn it into a float, some refuse.
        raise Uncacheable(f"integer beyond 64 bits: {raw[:24]}")
    return Number(raw) if raw == "-0" else int(raw)


def _fraction(raw: str) -> float | Number:
    value = float(raw)
    return value if spelled(value) == raw else Number(raw)


def _constant(raw: str) -> Number:
    raise Uncacheable(f"{raw} is no JSON")


def _members(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        # RFC 8259 section 4: with names that are not unique "the behavior of software that
        # receives such an object is unpredictable".
        raise Uncacheable("a member is named twice")
    return members


def parse(text: bytes) -> Json:
    """The exact value of a JSON text. Raises `Uncacheable`."""
    if b'": ' in text[:_HEAD] and _ESCAPED.search(text):
        return parse_slowly(text)  # as Python's json writes it: the fast way would be for nothing
    try:
        value: Json = orjson.loads(text)
        is_flat = len(text) <= _SHORT and text.count(b"[") + text.count(b"{") <= MAX_DEPTH
        deep = 0 if is_flat else _SUNK
        written = orjson.dumps(value if is_flat else _sunk(value))
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return parse_slowly(text)  # it knows why, and nests that orjson doesn't take
    # What orjson writes names no member twice and spells every number and character in its own
    # way: if the text is just that, nothing was lost in reading it. White space makes no
    # difference: without it both texts are still the same tokens in the same order (strings
    # have lost their spaces alike), and so have as many members and the same numbers.
    if len(written) == len(text) + 2 * deep and written.startswith(text, deep):
        return value
    written = written[deep : len(written) - deep]
    if written.translate(None, _SPACE) == text.translate(None, _SPACE):
        return value
    return parse_slowly(text)


def parse_slowly(text: bytes) -> Json:
    """`parse` for any spelling of a text, number by number and member by member."""
    try:
        value: Json = json.loads(
            text.decode("utf-8"),
            parse_float=_fraction,
            parse_int=_integer,
            parse_constant=_constant,
            object_pairs_hook=_members,
        )
    except UnicodeDecodeError as error:
        raise Uncacheable("not UTF-8") from error
    except RecursionError as error:
        raise Uncacheable("nested too deeply") from error
    except json.JSONDecodeError as error:
        raise Uncacheable(f"not JSON: {error.msg} at character {error.pos}") from error
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH:
        _check_depth(value)
    if _SURROGATE.search(text):
        encode(value)  # only what is paired comes out again
    return value


def _check_depth(value: Json) -> None:
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return
    raise Uncacheable("nested too deeply")


def _levels() -> int:
    """How many arrays orjson writes within each other before it refuses."""
    value: Json = []
    levels = 1
    while True:
        value = [value]
        try:
            orjson.dumps(value)
        except orjson.JSONEncodeError:
            return levels
        levels += 1


# A value that sits so deep that orjson refuses to write what is nested deeper than MAX_DEPTH in
# it: the check costs nothing beside the writing.
_SUNK = _levels() - MAX_DEPTH


def _sunk(value: Json) -> Json:
    for _ in range(_SUNK):
        value = [value]
    return value


def encode(value: Json) -> bytes:
    """The value as compact JSON: members in their order, numbers as spelled, strings in UTF-8.

    Raises `Uncacheable` for lone surrogates.
    """
    try:
        return orjson.dumps(value, default=_raw)
    except (orjson.JSONEncodeError, RecursionError) as error:
        raise Uncacheable(f"no UTF-8 form: {error}") from error


def kept(value: Json) -> Json:
    """The value as `encode` writes it, to be part of a larger one that is `ordered`."""
    written: Json = orjson.Fragment(orjson.dumps(value, _raw))  # type: ignore[assignment]
    return written


def ordered(value: Json) -> Json:
    """The value with all members sorted, all the way down, but for what is `kept` in it; to be
    part of a larger one that is encoded. Numbers stay as they are spelled.
    """
    written: Json = orjson.Fragment(  # type: ignore[assignment]
        orjson.dumps(value, _raw, orjson.OPT_SORT_KEYS)
    )
    return written


def _raw(value: object) -> orjson.Fragment:
    if isinstance(value, Number):
        return orjson.Fragment(value.raw)
    raise TypeError(type(value).__name__)


def spelled(number: float | Number) -> str:
    """How a number is spelled."""
    return number.raw if isinstance(number, Number) else orjson.dumps(number).decode()


def is_number(value: Json) -> TypeGuard[float | Number]:
    """Is it a JSON number? Python's booleans are none."""
    return type(value) in _NUMBERS


_NUMBERS = frozenset({int, float, Number})


def same(one: Json, other: Json) -> bool:
    """Is it the same value, numbers in the same spelling? Python calls 1, 1.0 and True equal."""
    if one is other:
        return True
    if isinstance(one, str):
        return one == other
    try:
        return orjson.dumps(one, _raw, orjson.OPT_SORT_KEYS) == orjson.dumps(
            other, _raw, orjson.OPT_SORT_KEYS
        )
    except orjson.JSONEncodeError:
        return False  # deeper than any two texts that were parsed


def fold(value: Json) -> Json:
    """The value with its spelling folded, all the way down: members sorted, numbers in the one
    spelling of their exact decimal value (`1`, `1.0` and `10e-1` are one number; nothing is
    rounded, so 0.1 and 0.1000000000000000055 stay two).
    """
    if isinstance(value, (float, Number)):
        return Number(spelling(spelled(value)))
    if isinstance(value, dict):
        return {name: fold(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [fold(item) for item in value]
    return value


_MAX_PLAIN_EXPONENT = 40


def spelling(raw: str) -> str:
    """The one spelling of a JSON number's exact value: `-0.50e1` -> `-5`, `1E+60` -> `1e60`."""
    sign = "-" if raw[0] == "-" else ""
    mantissa, _, exponent = raw.lstrip("-").replace("E", "e").partition("e")
    whole, _, fraction = mantissa.partition(".")
    if len(exponent) > _MAX_INT_DIGITS:
        return raw  # a number nobody can mean; spelled differently it is a different key
    digits = (whole + fraction).lstrip("0")
    shift = int(exponent or "0") - len(fraction)
    trimmed = digits.rstrip("0")
    shift += len(digits) - len(trimmed)
    if not trimmed:
        return "0"
    if 0 <= shift <= _MAX_PLAIN_EXPONENT:
        return f"{sign}{trimmed}{'0' * shift}"
    return f"{sign}{trimmed}e{shift}"


def plain(value: Json) -> object:
    """The value with ordinary Python numbers, for code that only looks (never for keys)."""
    if isinstance(value, Number):
        return float(value.raw) if any(c in value.raw for c in ".eE") else int(value.raw)
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value
