"""`gateway key`: the canonical form and identity of a request body, or where two differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import orjson

from gateway.core import canonical, identity
from gateway.core.canonical import Json, Number
from gateway.providers import registry
from gateway.upstream.choice import Choice
from gateway.wire.base import NotUnderstood
from gateway.wire.table import APIS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.config import Config
    from gateway.core.model import Question
    from gateway.upstream.choice import Endpoint
    from gateway.wire.base import WireApi

EQUAL, DIFFERENT, UNREADABLE = 0, 1, 2
_SHOWN = 60


def run(  # noqa: PLR0917 - one line of the command line
    files: Sequence[str],
    route: str,
    upstream: str,
    config: Config,
    as_json: bool,
    out: TextIO,
    err: TextIO,
) -> int:
    """Print to `out`, complain to `err`; returns the exit status of the verb.

    The identity is that of a request without credential or headers and in a scope of its own
    (an all-zero secret): it tells two bodies apart, and is no key of any store.
    """
    api = APIS.get(route)
    endpoint = Choice(config).endpoints.get(upstream)
    if api is None:
        err.write(f"gateway key: no such route: {route}; there are: {', '.join(APIS)}\n")
        return UNREADABLE
    if endpoint is None:
        known = ", ".join(sorted(config.upstreams))
        err.write(f"gateway key: no upstream named {upstream!r}; there are: {known}\n")
        return UNREADABLE
    questions: list[Question] = []
    for name in files:
        try:
            body = Path(name).read_bytes()
            questions.append(api.understand(body, registry.rules(endpoint.provider, api.name)))
        except OSError as error:
            err.write(f"gateway key: {name}: {error.strerror or error}\n")
            return UNREADABLE
        except NotUnderstood as odd:
            err.write(f"gateway key: {name}: not cacheable ({odd.reason.value}): {odd}\n")
            return UNREADABLE
    if len(questions) == 1:
        _show(questions[0], api, endpoint, as_json, out)
        return EQUAL
    return _compare(questions[0], questions[1], as_json, out)


def _show(question: Question, api: WireApi, endpoint: Endpoint, as_json: bool, out: TextIO) -> None:
    scope = identity.scope(bytes(32), "anonymous", b"")
    key = identity.identity(scope, endpoint.identity, api.route, "", b"", question.canonical)
    passed = question.pass_reason.value if question.pass_reason else None
    if as_json:
        told = {
            "identity": key.hex(),
            "key_version": identity.KEY_VERSION,
            "route": api.route,
            "upstream": endpoint.name,
            "provider": endpoint.provider.name,
            "pass": passed,
            "canonical": orjson.Fragment(question.canonical),
        }
        out.write(orjson.dumps(told).decode() + "\n")
        return
    out.write(f"{question.canonical.decode()}\n")
    out.write(f"identity {key.hex()} (key version {identity.KEY_VERSION})\n")
    if passed:
        out.write(f"never cached: {passed}\n")


def _compare(left: Question, right: Question, as_json: bool, out: TextIO) -> int:
    if left.canonical == right.canonical:
        out.write('{"equal":true}\n' if as_json else "equal\n")
        return EQUAL
    path, one, other = first_difference(
        canonical.parse(left.canonical), canonical.parse(right.canonical)
    )
    if as_json:
        told = {"equal": False, "path": path, "left": one, "right": other}
        out.write(orjson.dumps(told).decode() + "\n")
    else:
        out.write(f"different at {path}: {one} / {other}\n")
    return DIFFERENT


def first_difference(left: Json, right: Json, path: str = "$") -> tuple[str, str, str]:
    """The JSON path of the first place where two canonical values differ, and both sides there."""
    if isinstance(left, dict) and isinstance(right, dict):
        for one, other in zip(left, right, strict=False):
            # Member order is part of the canonical form where it may reach the prompt.
            if one != other and one in right and other in left:
                return f"{path}.{one}", f"member {one!r} first", f"member {other!r} first"
        for name in (*left, *(n for n in right if n not in left)):
            if name not in left or name not in right or _differ(left[name], right[name]):
                return _inside(left, right, name, f"{path}.{name}")
    if isinstance(left, list) and isinstance(right, list):
        for index, (one_item, other_item) in enumerate(zip(left, right, strict=False)):
            if _differ(one_item, other_item):
                return first_difference(one_item, other_item, f"{path}[{index}]")
        if len(left) != len(right):
            return path, f"{len(left)} items", f"{len(right)} items"
    return path, _told(left), _told(right)


def _inside(
    left: dict[str, Json], right: dict[str, Json], name: str, path: str
) -> tuple[str, str, str]:
    if name not in left:
        return path, "absent", _told(right[name])
    if name not in right:
        return path, _told(left[name]), "absent"
    return first_difference(left[name], right[name], path)


def _differ(left: Json, right: Json) -> bool:
    # As bytes, because equal dictionaries may differ in member order.
    return canonical.encode(left) != canonical.encode(right)


def _told(value: Json) -> str:
    text = value.raw if isinstance(value, Number) else canonical.encode(value).decode()
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
