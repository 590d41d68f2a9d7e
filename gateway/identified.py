"""Of one request, what its identity is made of, place by place, and why: `identified`.

What is shown is the asker's own: names and values of its body, and no value of any header.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.core import canonical, identity
from gateway.providers import registry
from gateway.wire.base import NotUnderstood

if TYPE_CHECKING:
    from gateway.core.model import Pairs
    from gateway.door import Known
    from gateway.providers.base import ApiRules
    from gateway.wire.base import WireApi

Told = dict[str, Any]

CANONICAL_BYTES = 64 * 1024
"""Of a canonical form, so much is shown."""


def identified(
    known: Known,
    body: bytes,
    document: canonical.Json,
    api: WireApi,
    pairs: Pairs,
    *,
    fold_text: bool,
) -> Told:
    """Plain JSON values. `pairs` are the request's headers, names in lower case."""
    provider = known.endpoint.provider
    rules = registry.rules(provider, api.name, fold_text=fold_text)
    members = document if isinstance(document, dict) else {}
    treated: dict[str, list[Told]] = {"keyed": [], "scope": [], "excluded": []}
    for name in dict.fromkeys(name for name, _ in pairs):
        how, why = identity.treated(name, provider)
        treated[how].append({"name": name, "why": why})
    return {
        "key": known.identities[0].hex() if known.identities else None,
        "key_version": identity.KEY_VERSION,
        "pass": known.pass_reason.value if known.pass_reason is not None else None,
        "canonical": _canonical(known, body, api, rules),
        "members": [_member(name, value, rules) for name, value in members.items()],
        "headers": treated,
    }


def _canonical(known: Known, body: bytes, api: WireApi, rules: ApiRules) -> Told | None:
    """What is hashed of the body; None where nothing is."""
    if not known.identities:
        return None
    try:
        form = api.understand(body, rules).canonical
    except NotUnderstood:
        return None
    shown = form[:CANONICAL_BYTES].decode(errors="ignore")
    return {"text": shown, "bytes": len(form), "cut": len(form) > CANONICAL_BYTES}


def _member(name: str, value: canonical.Json, rules: ApiRules) -> Told:
    if name in rules.excluded:
        return {"name": name, "treated": "excluded", "why": rules.excluded[name].reason}
    default = rules.defaults.get(name)
    if default is not None and canonical.plain(value) == default.value:
        return {"name": name, "treated": "default", "why": default.rule.reason}
    if name in rules.scalars:
        return {"name": name, "treated": "folded", "why": rules.scalars[name].reason}
    why = rules.keyed[name].reason if name in rules.keyed else None
    told: Told = {"name": name, "treated": "keyed", "why": why}
    if name in rules.excluded_members:
        told["without"] = sorted(rules.excluded_members[name])
    return told
