"""The shape of a provider's table.

Rule 1: a field is KEYED unless a line here says otherwise: a field we don't know is keyed.
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


@dataclass(frozen=True, slots=True)
class Rule:
    """Why a line stands in a table, and who says so (page or SDK file, with its date)."""

    reason: str
    source: str


@dataclass(frozen=True, slots=True)
class Default:
    """A documented default: sending `value` means the same as sending nothing."""

    value: Any
    rule: Rule


@dataclass(frozen=True, slots=True)
class ApiRules:
    """One provider's rules for one wire API."""

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
    message_defaults: Mapping[str, Any] = field(default_factory=lambda: _NONE)
    """Members that the message of a whole answer carries and a stream leaves out when empty."""


@dataclass(frozen=True, slots=True)
class Provider:
    """Who answers. `name` is also the word used in the config."""

    name: str
    otel_name: str
    """`gen_ai.provider.name`."""
    base_url: str | None
    hosts: frozenset[str]
    """Hosts that this table is about; any other host is `unknown` unless the config says so."""
    apis: Mapping[str, ApiRules]
    """By wire API name. An API that is missing here gets the rules of `unknown`."""
    header_prefixes: tuple[str, ...] | None
    """Request headers with these prefixes may change the answer and are keyed; None: every
    header is, but transport metadata, credentials and our own."""
    header_sets: frozenset[str] = frozenset()
    """Headers that are comma-separated sets: order and repetition don't matter."""
    credential_header: str = "authorization"
    """Where a configured credential goes: `authorization` (as Bearer) or `x-api-key`."""
