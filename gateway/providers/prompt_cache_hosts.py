"""Hosts of providers whose prompt caches are documented, though not what their APIs do with each
member: for everything else they are `unknown`. Read 2026-11.
"""

from __future__ import annotations

_HOSTS = {
    # docs.x.ai, docs.mistral.ai, docs.fireworks.ai, api-docs.deepseek.com, console.groq.com: the base
    # URLs of their own examples.
    "api.x.ai": "xai",
    "api.mistral.ai": "mistral",
    "api.fireworks.ai": "fireworks",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
}


def prompt_cache_provider(host: str) -> str:
    """Whose prompt-cache rules hold at a host; empty where none are documented."""
    return _HOSTS.get(host.lower(), "")
