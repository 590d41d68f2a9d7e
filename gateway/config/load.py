"""load(): flags over environment over file over defaults, and every fault at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from gateway.config import document
from gateway.config.document import Document, Steps, spell
from gateway.config.environment import read_environment
from gateway.config.tree import DEFAULT_UPSTREAMS, Config, contradictions
from gateway.config.wording import explain, path_of
from gateway.errors import ConfigError, Fault

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Origin:
    """Who set something: a line of the file, a variable, or a flag."""

    label: str
    from_file: bool = False
    variable: Steps | None = None
    """For a variable: the way to what it names."""
    empty: bool = False
    """Only a mapping without members was given: nothing in it was set."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A config, and where each of its settings came from."""

    config: Config
    origins: Mapping[Steps, str]

    def origin(self, path: Steps) -> str:
        """`warmgate.yaml:3`, `GATEWAY_SERVER__PORT`, `a flag` or `default`."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.origins:
                return self.origins[path[:end]]
        return DEFAULT


def load(
    file: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any] | None = None
) -> Config:
    """The effective config. `flags` maps dotted paths to values; None is a flag not given.

    Raises ConfigError, which names every fault with its path and how to mend it, and shows no
    secret.
    """
    return load_with_origins(file, environ, flags).config


def load_with_origins(
    file: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any] | None = None
) -> Loaded:
    """As `load`, and tells where each setting came from."""
    read = document.read(file) if file else Document({})
    given = _Given()
    if read.tree:
        given.add(_without_empty(read.tree, ()), Origin(str(file), from_file=True))
    upstreams = given.tree.get("upstreams")
    names = {*DEFAULT_UPSTREAMS, *(map(str, upstreams) if isinstance(upstreams, dict) else ())}
    variables, mistakes = read_environment(environ, names)
    for variable in variables:
        given.add(variable.tree, Origin(variable.name, variable=variable.path))
    for path, value in (flags or {}).items():
        if value is not None:
            given.add(_nest(path.split("."), value), Origin("a flag"))
    faults = [*read.faults, *mistakes]
    # What should stand here may stand in what could not be read.
    lost = [variable.path for variable in variables if not variable.tree]
    config, refused = _validate(given, read, [()] if read.tree is None else lost)
    faults += refused
    if faults or config is None:
        raise ConfigError(tuple(dict.fromkeys(faults)))
    labels = {
        path: _label(origin, path, read)
        for path, origin in given.origins.items()
        if not origin.empty
    }
    return Loaded(config, labels)


class _Given:
    """Layers laid over each other, each value with its origin."""

    def __init__(self) -> None:
        self.tree: dict[Any, Any] = {}
        self.origins: dict[Steps, Origin] = {}

    def add(self, layer: Mapping[Any, Any], origin: Origin) -> None:
        """Lay `layer` over the rest: mappings merge, anything else replaces."""
        self._merge(self.tree, layer, (), origin)

    def _merge(
        self, into: dict[Any, Any], layer: Mapping[Any, Any], path: Steps, origin: Origin
    ) -> None:
        for key, value in layer.items():
            here: Steps = (*path, key)
            below = into.get(key)
            if isinstance(value, dict) and value:
                if not isinstance(below, dict):
                    below = into[key] = {}
                    self.origins.pop(here, None)
                self._merge(below, value, here, origin)
                continue
            if isinstance(value, dict) and isinstance(below, dict):
                continue
            for known in [known for known in self.origins if known[: len(here)] == here]:
                del self.origins[known]
            into[key] = value
            self.origins[here] = replace(origin, empty=value == {})

    def origin(self, path: Steps) -> Origin | None:
        """Who set this, or what is around it, or something in it."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.origins:
                return self.origins[path[:end]]
        inside = (o for known, o in self.origins.items() if known[: len(path)] == path)
        return next(inside, None)


def _validate(
    given: _Given, read: Document, lost: list[Steps]
) -> tuple[Config | None, list[Fault]]:
    faults: list[Fault] = []
    config = None
    try:
        config = Config.model_validate(given.tree)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            path = path_of(detail)
            missing = detail["type"] == "missing"
            # A contradiction has no place of its own there; they are asked for below.
            if path and not (missing and _meets(path, lost)):
                problem, mend = explain(detail, given.tree)
                faults.append(
                    _fault(path, problem, mend, None if missing else given.origin(path), read)
                )
    for path, problem, mend in contradictions(given.tree):
        others = ("upstreams",) if path[0] == "routes" else path
        if not _meets(others, lost):
            faults.append(_fault(path, problem, mend, given.origin(path), read))
    return config, faults


def _meets(path: Steps, lost: list[Steps]) -> bool:
    return any(path[: len(other)] == other[: len(path)] for other in lost)


def _fault(path: Steps, problem: str, mend: str, origin: Origin | None, read: Document) -> Fault:
    if origin is None:
        return Fault(spell(path), problem, mend)
    if origin.from_file:
        line = _line(path, read)
        return Fault(spell(path), f"{problem} (line {line})" if line else problem, mend)
    if origin.variable is None and origin.label == "a flag":
        return Fault(spell(path), f"{problem} (given as {origin.label})", mend)
    exact = path == origin.variable
    return Fault(origin.label if exact else f"{origin.label} ({spell(path)})", problem, mend)


def _line(path: Steps, read: Document) -> int | None:
    for end in range(len(path), 0, -1):
        if path[:end] in read.lines:
            return read.lines[path[:end]]
    return None


def _label(origin: Origin, path: Steps, read: Document) -> str:
    line = _line(path, read) if origin.from_file else None
    return f"{origin.label}:{line}" if line else origin.label


def _without_empty(value: Any, path: Steps) -> Any:
    """Sections of which every line is commented out are None in YAML, and mean nothing set.

    Names become text: YAML reads a bare `5` as a number.
    """
    if isinstance(value, list):
        return [_without_empty(member, (*path, i)) for i, member in enumerate(value)]
    if not isinstance(value, dict):
        return value
    kept = {
        str(name): _without_empty(member, (*path, name))
        for name, member in value.items()
        if member is not None
    }
    if path == ("upstreams",):
        # A name alone asks for that upstream, and for nothing else.
        kept |= {str(name): {} for name, member in value.items() if member is None}
    return kept


def _nest(steps: list[str], value: Any) -> dict[str, Any]:
    for step in reversed(steps):
        value = {step: value}
    nested: dict[str, Any] = value
    return nested
