"""The shape of a provider's table.

Rule 1: a field is KEYED unless a line here says otherwise: a field we don't know is keyed.
A member can be KEYED (as sent), SCALAR (keyed, its spelling folded), EXCLUDED, DEFAULT (keyed,
but left out at that value); inside of parts and tools a MARKER is left out.
Rule 2: every line carries its reason and its source; a line without both does not get in.
Rule 3: a default is eliminated only where it is documented as unconditional and the same for
every model. `unknown` eliminates none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_NONE: Mapping[str, Any] = MappingProxyType({})


ENGINES = frozenset({"vllm", "sglang", "llamacpp"})
"""Providers that one hosts oneself. The config has the same list, since it knows no provider."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Why a line stands in a table, and who says so (page or SDK file, with its date)."""

    reason: str
    source: str


def sourced(source: str, reasons: Mapping[str, str]) -> dict[str, Rule]:
    """Lines that one source speaks for: member -> reason."""
    return {name: Rule(reason, source) for name, reason in reasons.items()}


@dataclass(frozen=True, slots=True)
class Default:
    """A documented default: sending `value` means the same as sending nothing."""

    value: Any
    rule: Rule


@dataclass(frozen=True, slots=True)
class ApiRules:
    """One provider's rules for one wire API."""

    keyed: Mapping[str, Rule] = field(default_factory=lambda: _NONE)
    """Top-level members that were looked at and stay in the key as they were sent. So does every
    member that no table mentions: a line here only says that it was thought about, and what of it."""
    excluded: Mapping[str, Rule] = field(default_factory=lambda: _NONE)
    """Top-level members that cannot change the answer."""
    excluded_members: Mapping[str, Mapping[str, Rule]] = field(default_factory=lambda: _NONE)
    """Members of top-level objects that cannot change the answer: `metadata` -> `user_id`."""
    defaults: Mapping[str, Default] = field(default_factory=lambda: _NONE)
    """Top-level members that may be left out when they hold this value."""
    scalars: Mapping[str, Rule] = field(default_factory=lambda: _NONE)
    """Top-level members that are parameters, not prompt: number spelling and member order fold.
    Everything else that is not a message is kept as it was spelled."""
    markers: Mapping[str, Rule] = field(default_factory=lambda: _NONE)
    """Members of content parts, blocks and tools that only steer the provider's prompt cache."""
    fold_tools: Rule | None = None
    """Member order of tool objects (never of their schemas) does not reach the prompt."""
    fold_schemas: Rule | None = None
    """The order of keywords in a JSON Schema (`type` before `description`) does not reach the
    prompt. The order of properties always does: answers are written in it."""
    string_is_text_part: Rule | None = None
    """`content: "x"` and `content: [{"type": "text", "text": "x"}]` are documented as the same."""
    rename_tool_ids: Rule | None = None
    """Tool-call ids are opaque handles here: never rendered into the prompt."""
    plain_models: tuple[str, ...] = ()
    """Prefixes of model names that do not think unless asked to; any other model may."""
    fold_text: Rule | None = None
    """Line ends and white space before them fold in prompt text; only ever by configuration."""
    stream_usage: Rule | None = None
    """`stream_options.include_usage` may be added to a request that did not ask for it."""
    usage_always: Rule | None = None
    """A stream states its usage whether or not it is asked to, and so must one that is replayed."""
    message_defaults: Mapping[str, Any] = field(default_factory=lambda: _NONE)
    """Members that the message of a whole answer carries and a stream leaves out when empty."""


def spoken_elsewhere(
    original: ApiRules,
    scalars: Mapping[str, Rule],
    form: Mapping[str, Rule],
    *,
    excluded: Mapping[str, Rule] = _NONE,
    keyed: Mapping[str, Rule] = _NONE,
    stream_usage: Rule | None = None,
    usage_always: Rule | None = None,
) -> ApiRules:
    """The rules for a server that speaks the format of `original` but is not its author's: only
    `form` and `excluded` are left out and only `scalars` folded. Every other member that `original`
    knows is keyed: what its author documents says nothing about this server.
    """
    left_out = {**form, **excluded}
    keyed_here = dict(original.keyed)
    inner = {owner: rule for owner, of in original.excluded_members.items() for rule in of.values()}
    for name, rule in (*original.excluded.items(), *inner.items(), *original.scalars.items()):
        keyed_here[name] = Rule(
            f"here nothing says what its author does: {rule.reason}", rule.source
        )
    for name in (*left_out, *scalars):
        keyed_here.pop(name, None)
    return ApiRules(
        keyed={**keyed_here, **keyed},
        excluded=left_out,
        scalars={name: rule for name, rule in scalars.items() if name not in left_out},
        stream_usage=stream_usage,
        usage_always=usage_always,
    )


@dataclass(frozen=True, slots=True)
class Provider:
    """Who answers. `name` is also the word used in the config."""

    name: str
    otel_name: str
    """`gen_ai.provider.name`."""
    base_url: str | None
    hosts: frozenset[str]
    """Hosts that this table is about; any other host is `unknown` unless the config says so, or
    it ends in one of `host_suffixes`."""
    apis: Mapping[str, ApiRules]
    """By wire API name. An API that is missing here gets the rules of `unknown`."""
    header_prefixes: tuple[str, ...] | None
    """Request headers with these prefixes may change the answer and are keyed; None: every
    header is, but transport metadata, credentials and our own."""
    header_sets: frozenset[str] = frozenset()
    """Headers that are comma-separated sets: order and repetition don't matter."""
    headers_excluded: Mapping[str, Rule] = field(default_factory=lambda: _NONE)
    """Headers that cannot change the answer, whatever `header_prefixes` says."""
    credential_header: str = "authorization"
    """Where a configured credential goes: `authorization` (as Bearer), or bare in another one,
    such as `x-api-key` or `api-key`."""
    host_suffixes: tuple[str, ...] = ()
    """Ends of host names, from a dot on, where each customer has a host of its own."""

    def serves(self, host: str) -> bool:
        """Is this one of the provider's own hosts? Case doesn't matter."""
        host = host.lower()
        return host in self.hosts or host.endswith(self.host_suffixes)
