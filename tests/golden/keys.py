"""Makes `keys.json`: `python -m tests.golden.keys`.

It refuses to change a key that is there, unless KEY_VERSION was raised: whoever changes what goes
into a key would otherwise have old entries answer new requests. New cases are just added.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from multidict import CIMultiDict

from gateway.config import Config
from gateway.core import identity
from gateway.door import Door
from gateway.providers.registry import PROVIDERS, rules
from gateway.recognition import Recognition, Sender
from gateway.store.secret import ScopeSecrets
from gateway.upstream.choice import Choice, take_apart
from gateway.wire.table import APIS
from tests.golden.cases import cases

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.door import Known
    from tests.golden.cases import Case, Lines

FILE = Path(__file__).with_name("keys.json")
_CONFIG = Config.model_validate(
    {
        "upstreams": {
            name: {"base_url": f"http://{name}.test/v1", "provider": name} for name in PROVIDERS
        }
    }
)
_RECOGNITION = Recognition(
    _CONFIG, Choice(_CONFIG), ScopeSecrets(["golden"], None), Door(0, b"golden")
)


def known(provider: str, route: str, body: bytes, headers: Lines = (), query: str = "") -> Known:
    """What the gateway makes of a request to an upstream of this provider."""
    lines = CIMultiDict(headers)
    sender = Sender(tuple((n.lower(), v) for n, v in lines.items()), lines, None)
    target = f"/u/{provider}{route}{'?' if query else ''}{query}"
    return _RECOGNITION.recognise(sender, take_apart(target), APIS[route], body)


def vector(case: Case) -> dict[str, Any]:
    """The case and its key: canonical form, identity, and those of a batch's units."""
    api = APIS[case.route]
    body = case.body.encode()
    found = known(case.provider, case.route, body, case.headers, case.query)
    made: dict[str, Any] = {
        "key_version": identity.KEY_VERSION,
        "provider": case.provider,
        "route": case.route,
        "query": case.query,
        "headers": [list(line) for line in case.headers],
        "body": case.body,
        "canonical": api.understand(body, rules(PROVIDERS[case.provider], api.name)).canonical.decode(),
        "identity": [each.hex() for each in found.identities],
        "pass": found.pass_reason,
    }  # fmt: skip
    if found.batch is not None:
        made["units"] = [unit[0].hex() for unit in found.batch.units]
        made["frame"] = found.batch.frame[0].hex()
    return made


def vectors(of: Iterable[Case]) -> dict[str, Any]:
    """By name."""
    made: dict[str, Any] = orjson.loads(orjson.dumps({case.name: vector(case) for case in of}))
    return made


def regenerate(file: Path) -> str:
    """Write the file anew, or say in a sentence why not; empty when it was written."""
    made = vectors(cases())
    old: dict[str, Any] = orjson.loads(file.read_bytes()) if file.exists() else {}
    changed = [name for name, before in old.items() if made.get(name) != before]
    unraised = [n for n in changed if old[n]["key_version"] >= identity.KEY_VERSION]
    if unraised:
        return (
            f"{len(unraised)} keys are other ones under the same key version, {unraised[0]!r} "
            "first: raise KEY_VERSION in gateway/core/identity.py, or leave the cases as they were"
        )
    file.write_bytes(orjson.dumps(made, option=orjson.OPT_INDENT_2) + b"\n")
    return ""


if __name__ == "__main__":
    sys.exit(regenerate(FILE) or None)
