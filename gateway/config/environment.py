"""The environment: which variables set what.

pydantic-settings knows how a variable's name nests and which values are documents; it is asked
one variable at a time, because it stops at the first mistake and we name them all.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError

from gateway.config.catalogue import NESTS, PREFIX, catalogue, find
from gateway.config.document import Steps, Unreadable, read_text, spell
from gateway.config.tree import Config
from gateway.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from pydantic.fields import FieldInfo

ALIASES = {"REDIS_URL": "GATEWAY_STORE__URL", "PORT": "GATEWAY_SERVER__PORT"}
"""What platforms set by themselves, and which variable it stands for when that is unset."""

FROM_FILE = "_FILE"
CONFIG_FILE = "GATEWAY_CONFIG"
"""Names the config file; read by the command line, and no setting itself."""

_SECRETS = ("cache", "secret")
# For every Service, Kubernetes gives each pod of the namespace such variables. A Service named
# `gateway` makes them ours by name only.
_SERVICE = re.compile(
    r"GATEWAY_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://\S+")


@dataclass(frozen=True, slots=True)
class Variable:
    """What one variable sets: the part of the tree that it names, alone."""

    name: str
    path: Steps
    tree: dict[str, Any]


class _Source(EnvSettingsSource):
    """Documents may be YAML, of which JSON is a part."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        del field_name, field
        try:
            return _names_as_text(yaml.safe_load(value))
        except (yaml.YAMLError, RecursionError) as error:
            # What is raised must be a ValueError, and must not quote the value.
            raise ValueError("neither JSON nor YAML") from error


def _names_as_text(value: Any) -> Any:
    # YAML reads a bare `5` as a number, and pydantic-settings relies on names being text.
    if isinstance(value, dict):
        return {str(name): _names_as_text(member) for name, member in value.items()}
    return [_names_as_text(member) for member in value] if isinstance(value, list) else value


def read_environment(
    environ: Mapping[str, str], upstreams: Collection[str]
) -> tuple[list[Variable], list[Fault]]:
    """All that the environment sets, wider settings first, and what is wrong with it.

    A variable that could not be used is there too, with an empty tree.

    An empty variable counts as unset. `upstreams` are the names that the file gives: a hyphen
    in one is written as an underscore here, because a shell can't set it otherwise.
    """
    # The source asks for nothing but `model_config` and `model_fields`, which Config has too.
    source = _Source(
        cast("type[BaseSettings]", Config), env_prefix=PREFIX, env_nested_delimiter=NESTS
    )
    variables: list[Variable] = []
    faults: list[Fault] = []
    given = {name: value for name, value in sorted(environ.items()) if value}
    for name, target in _ours(given):
        path = _restore_hyphens(_path(target), upstreams)
        if find(path) is None:
            faults.append(_unknown(name, upstreams))
            continue
        try:
            tree = _decode(source, path, _value(name, target, given))
        except _Mistake as mistake:
            faults.append(Fault(name, mistake.problem, mistake.mend))
            tree = {}
        variables.append(Variable(name, path, tree))
    variables.sort(key=lambda variable: len(variable.path))
    return variables, faults


class _Mistake(Exception):
    def __init__(self, problem: str, mend: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.mend = mend


def _ours(given: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(variable, the variable that names its setting)."""
    for name, value in given.items():
        if name in ALIASES:
            target = ALIASES[name]
            if target not in given and target + FROM_FILE not in given:
                yield name, target
        elif name.startswith(PREFIX) and name != CONFIG_FILE and not _is_service(name, value):
            yield name, name.removesuffix(FROM_FILE)


def _is_service(name: str, value: str) -> bool:
    if not _SERVICE.fullmatch(name):
        return False
    # GATEWAY_PORT=8080 is somebody's mistake, not Kubernetes.
    return not name.endswith("_PORT") or bool(
        _SERVICE_URL.fullmatch(value) or re.search(r"_SERVICE_PORT$|_(TCP|UDP|SCTP)_PORT$", name)
    )


def _path(target: str) -> tuple[str, ...]:
    # Names are upper-case throughout: two spellings of one setting could contradict each other.
    return tuple(target.removeprefix(PREFIX).lower().split(NESTS)) if target.isupper() else ()


def _value(name: str, target: str, given: Mapping[str, str]) -> str:
    value = given[name]
    if name in ALIASES or name == target:
        return value
    if target in given:
        raise _Mistake(f"is set, and so is {target}", "unset one of the two")
    try:
        text = read_text(Path(value))
    except Unreadable as unreadable:
        raise _Mistake(
            f"names a file that {unreadable}", "give the path of a file that this user may read"
        ) from None
    text = re.sub(r"\r?\n\Z", "", text)
    if not text:
        raise _Mistake("names an empty file", "write the value into it")
    return text


def _decode(source: EnvSettingsSource, path: tuple[str, ...], value: str) -> dict[str, Any]:
    if path == _SECRETS:
        if not (secrets := _secrets(value)):
            raise _Mistake("holds no secret", "write one of 16 characters or more, or unset it")
        return {path[0]: {path[1]: secrets}}
    source.env_vars = {(PREFIX + NESTS.join(path)).lower(): value}
    mend = f"write {spell(path)} as JSON, in one line"
    try:
        tree = source()
    except (SettingsError, ValueError):
        raise _Mistake("is neither JSON nor YAML", mend) from None
    if not tree:
        raise _Mistake("holds no value", f"{mend}, or unset it")
    return tree


def _secrets(text: str) -> list[str]:
    """One secret, one on each line, or a JSON list: a bare secret is never read as YAML."""
    if text.lstrip().startswith("["):
        try:
            # BaseLoader makes strings of everything; a secret may well look like a number.
            listed = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - safer than SafeLoader
        except yaml.YAMLError:
            listed = None
        if isinstance(listed, list) and all(isinstance(secret, str) for secret in listed):
            return listed
    return [line for line in text.splitlines() if line]


def _restore_hyphens(path: tuple[str, ...], upstreams: Collection[str]) -> tuple[str, ...]:
    if path[:1] != ("upstreams",) or len(path) == 1 or path[1] in upstreams:
        return path
    spelled = {name.replace("-", "_"): name for name in sorted(upstreams)}
    return (path[0], spelled.get(path[1], path[1]), *path[2:])


def _unknown(name: str, upstreams: Collection[str]) -> Fault:
    known = {CONFIG_FILE}
    for setting in catalogue():
        if setting.env:
            known |= {
                setting.env.replace("<NAME>", upstream.upper().replace("-", "_"))
                for upstream in upstreams
            }
    # A single underscore where two belong is the commonest mistake: compare without them.
    bare = {variable.replace("_", ""): variable for variable in sorted(known)}
    from_file = FROM_FILE if name.endswith(FROM_FILE) else ""
    asked = name.removesuffix(FROM_FILE).upper().replace("_", "")
    close = difflib.get_close_matches(asked, bare, n=1, cutoff=0.75)
    # What names nothing beyond the prefix comes close to whatever is short.
    close = close if asked != PREFIX.replace("_", "") else []
    if close and bare[close[0]] == CONFIG_FILE:
        # It names a file as it is.
        from_file = ""
    mend = f"did you mean {bare[close[0]]}{from_file}?" if close else "unset it"
    return Fault(name, "names no setting", f"{mend} (all are in docs/reference/settings.md)")
