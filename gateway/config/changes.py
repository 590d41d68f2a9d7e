"""What another config changes: what of it holds at once, and what waits for a restart.

Rule 1: what owns a port, a connection to the store or to a collector, or the books, is made once in a
process's life. Everything else is decided anew for each request, and so may change between two.
Rule 2: nothing here is refused: what can't change yet stays as it is, and is named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.config.document import spell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.config.document import Steps
    from gateway.config.tree import Config

_WHOLE = ("store", "telemetry", "ledger", "admin")
"""Sections that wait as a whole."""
_PARTS = {
    "server": ("host", "port", "probe_host", "probe_port", "drain_delay_s", "drain_idle_s"),
    "cache": ("purge_bound_s",),
    "log": ("format",),
}
"""Settings that wait, of sections that don't."""

WAITING = (*_WHOLE, *(f"{name}.{each}" for name, parts in _PARTS.items() for each in parts))
"""What waits for a restart, as dotted paths; `cache.secret` does only where it is first set, or unset."""


class Changes(NamedTuple):
    """What differs between the config that holds and one that was read."""

    config: Config
    """What can hold now: what was read, and of what has to wait what held before."""
    applied: tuple[str, ...]
    """The settings that hold from now on, as dotted paths, sorted."""
    waiting: tuple[str, ...]
    """Those that wait for a restart."""


def changes(held: Config, read: Config) -> Changes:
    """What becomes of `read` where `held` holds. Equal ones change nothing."""
    config = _merged(held, read)
    return Changes(config, _differing(held, config), _differing(config, read))


def _merged(held: Config, read: Config) -> Config:
    kept: dict[str, Any] = {name: getattr(held, name) for name in _WHOLE}
    for name, parts in _PARTS.items():
        before = getattr(held, name)
        kept[name] = getattr(read, name).model_copy(
            update={each: getattr(before, each) for each in parts}
        )
    if bool(held.cache.secret) is not bool(read.cache.secret):
        # From then on the secret comes from somewhere else: from the store, or from it no more.
        kept["cache"] = kept["cache"].model_copy(update={"secret": held.cache.secret})
    return read.model_copy(update=kept)


def _differing(one: Config, other: Config) -> tuple[str, ...]:
    return tuple(sorted(spell(path) for path in _paths(one.model_dump(), other.model_dump(), ())))


def _paths(one: Any, other: Any, path: Steps) -> Iterator[Steps]:
    if one == other:
        return
    if not (isinstance(one, dict) and isinstance(other, dict)):
        # (Of a list the order counts, so it is one setting.)
        yield path
        return
    for name in one.keys() | other.keys():
        if name not in one or name not in other:
            yield (*path, name)
        else:
            yield from _paths(one[name], other[name], (*path, name))
