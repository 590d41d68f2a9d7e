"""From a configured name or a base URL's host to the provider's table."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.providers.anthropic import ANTHROPIC
from gateway.providers.azure import AZURE
from gateway.providers.base import Rule
from gateway.providers.llamacpp import LLAMACPP
from gateway.providers.openai import OPENAI
from gateway.providers.openrouter import OPENROUTER
from gateway.providers.sglang import SGLANG
from gateway.providers.unknown import UNKNOWN
from gateway.providers.vllm import VLLM

if TYPE_CHECKING:
    from gateway.providers.base import ApiRules, Provider

PROVIDERS = {
    provider.name: provider
    for provider in (OPENAI, AZURE, ANTHROPIC, VLLM, SGLANG, LLAMACPP, OPENROUTER, UNKNOWN)
}


def resolve(name: str | None, host: str) -> Provider:
    """The provider that `name` says, else the one whose host it is, else `unknown`."""
    if name is not None:
        return PROVIDERS[name]
    return next((p for p in PROVIDERS.values() if p.serves(host)), UNKNOWN)


_FOLD_TEXT = Rule("configured by the operator: cache.fold_text", "docs/reference/settings.md")


def rules(provider: Provider, api: str, *, fold_text: bool = False) -> ApiRules:
    """The provider's rules for a wire API; those of `unknown` where it documents none."""
    documented = provider.apis.get(api) or UNKNOWN.apis[api]
    return replace(documented, fold_text=_FOLD_TEXT) if fold_text else documented
