"""What the models refused, in words that an operator understands."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from gateway.config.catalogue import NESTS, PREFIX, catalogue, find, kind, section_of
from gateway.config.document import Steps, spell
from gateway.config.tree import DEFAULT_UPSTREAMS, Config

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

_LONGEST_SHOWN = 20  # a key pasted into the wrong place is longer
_MOST_NAMED = 3
_KEY = "[key]"  # what pydantic adds to the place of a name that broke a rule


def path_of(error: ErrorDetails) -> Steps:
    """The way to the setting that an error is about."""
    return tuple(step for step in error["loc"] if step != _KEY)


def explain(error: ErrorDetails, tree: Mapping[Any, Any]) -> tuple[str, str]:
    """(problem, mend) of one error; `tree` is all that was given."""
    path = path_of(error)
    match error["type"]:
        case "rule":
            context = error["ctx"]
            return context["problem"], context["mend"]
        case "extra_forbidden":
            return _unknown(path)
        case "missing":
            return "is missing", _how_to_set(path, tree)
        case _:
            return _wrong_kind(path, error)


def _wrong_kind(path: Steps, error: ErrorDetails) -> tuple[str, str]:
    found = find(path)
    assert found is not None, "pydantic checks the kind of known fields only"
    info = found.info
    if found.member:
        expected = "a section" if section_of(info.annotation) else "text"
    else:
        expected = kind(info, found.name)
    mend = f"write {expected}"
    if isinstance(error["input"], int | float) and expected in {"text", "a secret"}:
        mend = "put it in quotes"
    elif not found.member and isinstance(info.default, str | int | float):
        mend += f"; unset, it is {_spell(info.default)}"
    return f"{_shown(error['input'], expected)} is not {expected}", mend


def _spell(value: str | float) -> str:
    """As YAML spells it: true, not True."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _shown(value: Any, expected: str) -> str:
    """The value, where showing it helps and it can't be a secret."""
    harmless = expected.startswith(("a number", "a whole", "true", "one of"))
    if not harmless or not isinstance(value, str | int | float) or "://" in str(value):
        return "the value"
    text = str(value)
    if len(text) > _LONGEST_SHOWN or not text.isprintable():
        return "the value"
    return f"`{text}`"


def _unknown(path: Steps) -> tuple[str, str]:
    *before, last = path
    found = find(tuple(before))
    model = section_of(found.info.annotation) if found else Config
    assert model is not None, "only a section has names to forbid"
    members = list(model.model_fields)
    problem = "is not a setting"
    close = difflib.get_close_matches(str(last), members, n=1, cutoff=0.6)
    if close:
        return problem, f"did you mean `{spell((*before, close[0]))}`?"
    elsewhere = [s.path for s in catalogue() if s.path.rpartition(".")[2] == str(last)]
    if 1 <= len(elsewhere) <= _MOST_NAMED:
        either = " or ".join(f"`{each}`" for each in elsewhere)
        return problem, f"did you mean {either}?"
    return problem, f"remove it, or use one of {', '.join(members)}"


def _how_to_set(path: Steps, tree: Mapping[Any, Any]) -> str:
    if any(isinstance(step, int) for step in path):
        return "add it there: a list is set as a whole"
    variable = PREFIX + NESTS.join(str(step).upper().replace("-", "_") for step in path)
    mend = f"set it in the file or as {variable}"
    if len(path) == 3 and path[0] == "upstreams":
        others = ({*tree.get("upstreams", ()), *DEFAULT_UPSTREAMS}) - {path[1]}
        close = difflib.get_close_matches(str(path[1]), sorted(map(str, others)), n=1)
        if close:
            mend += f"; or did you mean the upstream `{close[0]}`?"
    return mend
