"""From provider, wire API and model to the rules of its prompt cache.

Rule 1: an unknown model has no rules (None): no markers, no hints, and the reason says so.
Rule 2: what is documented of a provider holds for its own hosts. Callers take the provider from
`registry.resolve(configured name, host)`, which answers `unknown` for any other host unless the
config names the provider, and `unknown` has no rules: so nothing is ever sent to a host that isn't
on the list (`Provider.serves`). Never pass a name that was guessed from a model or a path.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from gateway.providers import prompt_cache_anthropic, prompt_cache_openai, prompt_cache_other
from gateway.providers.model_names import family

if TYPE_CHECKING:
    from gateway.providers.prompt_cache import CacheRules


# Clients choose names, and memories are kept by them: here, in the planner, of refreshes. The longest
# that anybody documents is an ARN of 2048 characters, of which Bedrock's take less than 200.
LONGEST_MODEL = 512


def cache_rules(provider: str, api: str, model: str, *, deployment: str = "") -> CacheRules | None:
    """What the provider documents for this model id (as the request spells it), or None.

    `provider` is a name of the registry, or of one whose rules are known but which isn't served yet
    (`bedrock`, `gemini`, ...). `api` is the wire API's name. `deployment`: see
    `prompt_cache_openai.rules`; ignored where the provider isn't Azure. A model whose name is longer
    than `LONGEST_MODEL` characters is unknown.
    """
    return None if len(model) > LONGEST_MODEL else _rules(provider, api, model, deployment)


@lru_cache(maxsize=1024)
def _rules(provider: str, api: str, model: str, deployment: str) -> CacheRules | None:
    named = family(provider, api, model)
    if named is None:
        return None
    if named.author == "anthropic" and provider in _CLAUDE_AT:
        return prompt_cache_anthropic.rules(provider, api, named.name)
    if named.author == "openai" and provider in _GPT_AT:
        return prompt_cache_openai.rules(provider, api, named.name, deployment)
    return prompt_cache_other.rules(provider, api, model)


_CLAUDE_AT = frozenset({"anthropic", "azure", "bedrock", "openrouter"})
_GPT_AT = frozenset({"openai", "azure", "openrouter"})
