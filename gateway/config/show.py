"""The effective config, printed: what holds, and who said so. Secrets are masked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from gateway.config.document import Steps, spell

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway.config.load import Loaded


def as_yaml(loaded: Loaded) -> str:
    """A YAML document with the origin of each setting in a comment."""
    head = f"# generation {loaded.config.generation()}\n"
    return head + "".join(f"{line}\n" for line in _lines(loaded, loaded.config.redacted(), ()))


def as_json(loaded: Loaded) -> dict[str, Any]:
    """`config` as above, `origins` by dotted path for all that isn't a default."""
    return {
        "ok": True,
        "generation": loaded.config.generation(),
        "config": loaded.config.redacted(),
        "origins": origins(loaded),
    }


def origins(loaded: Loaded) -> dict[str, str]:
    """Who said each setting, by dotted path."""
    tree = loaded.config.redacted()
    return {spell(path): loaded.origin(path) for path in _leaves(tree, ())}


def _lines(loaded: Loaded, tree: Mapping[str, Any], path: Steps) -> Iterator[str]:
    indent = "  " * len(path)
    for name, value in tree.items():
        here = (*path, name)
        if isinstance(value, dict) and value:
            yield f"{indent}{name}:"
            yield from _lines(loaded, value, here)
            continue
        comment = f"  # {loaded.origin(here)}"
        if isinstance(value, list) and any(isinstance(member, dict) for member in value):
            yield f"{indent}{name}:{comment}"
            yield from (f"{indent}- {_flow(member)}" for member in value)
        else:
            yield f"{indent}{name}: {_flow(value)}{comment}"


def _flow(value: Any) -> str:
    text = yaml.safe_dump(
        value, default_flow_style=True, width=float("inf"), sort_keys=False, allow_unicode=True
    )
    return text.removesuffix("...\n").strip()


def _leaves(tree: Mapping[str, Any], path: Steps) -> Iterator[Steps]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name)
