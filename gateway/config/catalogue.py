"""What can be set: every setting's path, kind, default and environment variable, from the models.

The reference page, the suggestions and the wording of faults all come from here, so that none
of them can name a setting that isn't there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from pydantic import BaseModel, TypeAdapter

from gateway.config.tree import Config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

    from gateway.config.document import Steps

PREFIX = "GATEWAY_"
NESTS = "__"
_UNITS = {"_per_s": "in a second", "_s": "seconds", "_ms": "milliseconds", "_bytes": "bytes"}


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of the reference. `<name>` and `[]` in a path stand for any name or position."""

    path: str
    env: str | None
    """None: it can only be set as part of a list, by the variable of that list."""
    kind: str
    default: Any
    required: bool
    description: str


@cache
def catalogue() -> tuple[Setting, ...]:
    """All settings, in the order of the tree."""
    return tuple(_settings(Config, "", PREFIX))


def _settings(model: type[BaseModel], path: str, env: str | None) -> Iterator[Setting]:
    for name, info in model.model_fields.items():
        here = path + name
        variable = None if env is None else env + name.upper()
        section = section_of(info.annotation)
        container = _container(info.annotation)
        if section is not None and container is None:
            yield from _settings(section, f"{here}.", variable and variable + NESTS)
            continue
        yield Setting(
            here,
            variable,
            kind(info, name),
            info.get_default(call_default_factory=True),
            info.is_required(),
            info.description or "",
        )
        if section is not None and container is dict:
            yield from _settings(section, f"{here}.<name>.", variable and f"{variable}__<NAME>__")
        elif section is not None:
            yield from _settings(section, f"{here}[].", None)


def _plain(annotation: Any) -> Any:
    """Without Annotated and `| None`."""
    while hasattr(annotation, "__metadata__"):
        annotation = annotation.__origin__
    members = [a for a in get_args(annotation) if a is not type(None)]
    if type(None) in get_args(annotation) and len(members) == 1:
        return _plain(members[0])
    return annotation


def _container(annotation: Any) -> type | None:
    origin = get_origin(_plain(annotation))
    return origin if origin in {dict, tuple} else None


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The model of this annotation, or of its members when it is a mapping or a list."""
    plain = _plain(annotation)
    if isinstance(plain, type) and issubclass(plain, BaseModel):
        return plain
    if _container(plain) is dict:
        return section_of(get_args(plain)[1])
    if _container(plain) is tuple:
        return section_of(get_args(plain)[0])
    return None


@dataclass(frozen=True, slots=True)
class Found:
    """The field that a path leads to; `member` when it leads into a mapping or a list there."""

    name: str
    info: FieldInfo
    member: bool


def find(path: Steps) -> Found | None:
    """The field at (or around) a path; None where there is none."""
    model: type[BaseModel] | None = Config
    found: Found | None = None
    for step in path:
        if found and not found.member and _container(found.info.annotation) is not None:
            found = replace(found, member=True)
            continue
        if model is None:
            return found
        info = model.model_fields.get(str(step))
        if info is None:
            return None
        found = Found(str(step), info, member=False)
        model = section_of(info.annotation)
    return found


def kind(info: FieldInfo, name: str) -> str:
    """In words: `a number greater than 0 (seconds)`, `one of always, deterministic, off`."""
    if section_of(info.annotation) is not None:
        match _container(info.annotation):
            case None:
                return "a section"
            case container:
                return "a mapping" if container is dict else "a list"
    annotated: Any = info.annotation
    for extra in info.metadata:
        annotated = Annotated[annotated, extra]
    schema = TypeAdapter(annotated).json_schema()
    words = _words(schema)
    unit = next((u for end, u in _UNITS.items() if name.endswith(end)), None)
    return f"{words} ({unit})" if unit else words


def _words(schema: dict[str, Any]) -> str:
    schema = next((s for s in schema.get("anyOf", ()) if s.get("type") != "null"), schema)
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    match schema.get("type"):
        case "boolean":
            return "true or false"
        case "integer" | "number":
            whole = "whole " if schema["type"] == "integer" else ""
            return f"a {whole}number{_range(schema)}"
        case "object":
            return "a mapping"
        case "array":
            return f"a list of {_plural(_words(schema['items']))}"
        case _:
            return "a secret" if schema.get("format") == "password" else "text"


def _plural(words: str) -> str:
    if words.startswith("one of "):
        return words.replace("one of", "any of", 1)
    return words if words == "text" else words.removeprefix("a ") + "s"


def _range(schema: dict[str, Any]) -> str:
    if "maximum" in schema:
        return f" from {schema['minimum']} to {schema['maximum']}"
    if "minimum" in schema:
        return f" of {schema['minimum']} or more"
    if "exclusiveMinimum" in schema:
        return f" greater than {schema['exclusiveMinimum']}"
    return ""
