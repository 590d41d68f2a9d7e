"""From a model id as one provider spells it to its family as the model's author spells it.

Rule 1: what is not recognised has no family: nothing is known of it. A family alone proves nothing
either: the tables list exact ones.
Rule 2: only what doesn't change the model goes: the date of its snapshot, `-latest`, the region or
ARN at Bedrock, the author and variant at OpenRouter.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.providers.base import Rule

SOURCE = Rule(
    "how ids are made of families, by provider",
    "anthropic-sdk-python 0.121 types/model.py; openai-python e43b422 types/shared/chat_model.py;"
    " docs.aws.amazon.com/bedrock inference-profiles-support; openrouter.ai/docs models"
    " (read 2026-11)",
)


class Family(NamedTuple):
    """All snapshots of one model."""

    author: str
    """`anthropic`, `openai`; for others the provider's own name."""
    name: str
    """`claude-sonnet-4-5`, `gpt-5.6-sol`."""
    variant: str = ""
    """What the provider was asked to do otherwise: `free` (OpenRouter), `ft` (tuned by a customer
    of OpenAI). Such a model caches as its family does, but has prices of its own."""


_CLAUDE = re.compile(r"(claude-[a-z0-9-]*?[a-z0-9])(?:[-@][0-9]{8}|-latest)?")
# Aliases of the undated generation 4.
_ALIASES = {"claude-opus-4-0": "claude-opus-4", "claude-sonnet-4-0": "claude-sonnet-4"}
_GPT = re.compile(
    r"(?P<tuned>ft:)?(?P<name>[a-z0-9.-]*?[a-z0-9])(?:-[0-9]{4}-[0-9]{2}-[0-9]{2}|-latest)?"
    r"(?(tuned):[^:]+:[^:]*:[^:]+)"
)
_BEDROCK = re.compile(
    r"(?:arn:aws[a-z-]*:bedrock:[a-z0-9-]*:[0-9]*:(?:foundation-model|inference-profile)/)?"
    r"(?:(?:us|us-gov|eu|apac|jp|au|ca|global)\.)?"
    r"anthropic\.(?P<name>claude-[a-z0-9-]+?)(?:-v[0-9]+)?(?::[0-9]+)?"
)
# Variants that choose among hosts or add a plugin; `free` and any new one price otherwise.
_SAME_AT_OPENROUTER = frozenset({"", "beta", "nitro", "floor", "online", "exacto", "thinking"})


def family(provider: str, api: str, model: str) -> Family | None:
    """The family of a model id at a provider, or None for an id that isn't understood.

    `api` tells Claude from OpenAI's models where a provider has both (Azure, by deployment names).
    """
    if provider == "openrouter":
        return _at_openrouter(model)
    if provider == "bedrock":
        found = _BEDROCK.fullmatch(model)
        return _claude(found["name"]) if found else None
    if provider == "anthropic" or (provider == "azure" and api == "anthropic_messages"):
        return _claude(model)
    if provider in {"openai", "azure"}:
        return _gpt(model)
    return Family(provider, model)


def _claude(model: str) -> Family | None:
    found = _CLAUDE.fullmatch(model)
    return Family("anthropic", _ALIASES.get(found[1], found[1])) if found else None


def _gpt(model: str) -> Family | None:
    found = _GPT.fullmatch(model)
    return Family("openai", found["name"], "ft" if found["tuned"] else "") if found else None


def _at_openrouter(model: str) -> Family | None:
    author, slash, rest = model.partition("/")
    name, _, variant = rest.partition(":")
    if not slash:
        return None
    if author == "anthropic":
        # `claude-sonnet-4.5` there is `claude-sonnet-4-5` at its author's.
        found = _claude(name.replace(".", "-"))
    elif author == "openai":
        found = _gpt(name)
    else:
        found = Family(author, name)
    if found is None or variant in _SAME_AT_OPENROUTER:
        return found
    return found._replace(variant=variant)
