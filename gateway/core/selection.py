"""What an operator picks out of the cache: entries by name, by age, or all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core import purges

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.model import Entry

HEX8 = 8
_HEX64 = 64


@dataclass(frozen=True, slots=True)
class Selection:
    """Entries under any of the names (`core.purges`), and, if `before` is set, stored before it."""

    names: tuple[str, ...] = (purges.ALL,)
    before: float | None = None

    def __str__(self) -> str:
        what = "everything" if self.names == (purges.ALL,) else ", ".join(self.names)
        return what if self.before is None else f"{what}, stored before {self.before:.0f}"

    def picks(self, entry: Entry) -> bool:
        """Is the entry meant?"""
        if self.before is not None and entry.stored_at >= self.before:
            return False
        return not set(self.names).isdisjoint(purges.names(entry))


def select(
    *,
    keys: Sequence[str] = (),
    tags: Sequence[str] = (),
    models: Sequence[str] = (),
    older_than_s: float | None = None,
    everything: bool = False,
    now: float,
) -> Selection:
    """The selection of these words; `now` is seconds since the epoch.

    Raises ValueError, in words for people, when nothing is selected, or both everything and a part.
    """
    names = [purges.KEY + hex8(key) for key in keys]
    for tag in tags:
        if purges.tags([tag]) != (tag,):
            raise ValueError(f"{tag!r} is not a tag that an entry can have")
        names.append(purges.TAG + tag)
    names += [purges.MODEL + model for model in models]
    if everything and (names or older_than_s is not None):
        raise ValueError("everything is selected already: name a part of it, or nothing else")
    if not (everything or names or older_than_s is not None):
        raise ValueError("nothing is selected: name a key, a tag, a model, an age, or all")
    if older_than_s is not None and not 0 <= older_than_s <= now:
        raise ValueError("an age is a number of seconds in the past")
    before = None if older_than_s is None else now - older_than_s
    return Selection(tuple(dict.fromkeys(names)) or (purges.ALL,), before)


def hex8(key: str) -> str:
    """The first 8 hex digits of a key, given whole or as the log shows it. Raises ValueError."""
    text = key.strip().lower()
    if not HEX8 <= len(text) <= _HEX64 or set(text) - set("0123456789abcdef"):
        raise ValueError(f"{key!r} is not 8 to 64 hex digits of a key")
    return text[:HEX8]
