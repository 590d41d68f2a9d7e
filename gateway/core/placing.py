"""From a choice of what to write to the markers that bring it about: `place`.

Four slots at most, the client's own counted; in this order: the ends of what is written, the entry
that is to be read where it would be out of sight, the boundaries from which others part, and an
inner boundary for the conversation that is taken up again from before its last turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.core.plan import Mark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gateway.core.breakpoints import Choice
    from gateway.providers.prompt_cache import CacheRules


_SPARE = 4
"""Positions of the look-back that are not relied on."""


class Ground(NamedTuple):
    """What a request leaves room for."""

    client: Sequence[Mark]
    """The client's own markers, the automatic one as one on the last block."""
    slots: int
    """How many more may be placed."""
    positions: Sequence[int]
    """Of each block, as the look-back counts."""
    read: int
    """The deepest block whose prefix can be read; -1 for none."""
    read_ttl_s: int
    inner: int
    """An inner boundary worth a slot that is left; -1 for none."""
    floor: int
    """The first block whose prefix is long enough for an entry."""
    takes: Callable[[int], bool]
    """May a marker of ours stand there? Where an entry can be read none may be able to: the end of
    a message that implicit mode wrote, and that is blank."""


def reaches(position: int, marks: Iterable[int], positions: Sequence[int], look_back: int) -> bool:
    """Does one of the marked blocks look back as far as the position?"""
    return any(
        positions[mark] >= position and (not look_back or positions[mark] - position < look_back)
        for mark in marks
    )


def place(
    choice: Choice, heads: Sequence[int], ground: Ground, rules: CacheRules
) -> tuple[Mark, ...]:
    """The markers to add, in rendering order. `heads`: boundaries that want an entry, the most
    wanted first. Fewer than wanted where the slots run out.
    """
    taken = {mark.block for mark in ground.client}
    wanted: list[int] = []
    room = ground.slots

    def want(block: int) -> None:
        if block >= 0 and block not in taken and len(wanted) < room and ground.takes(block):
            taken.add(block)
            wanted.append(block)

    deepest = max(choice.short, choice.long)
    want(deepest)
    if ground.read >= 0:
        # Not the whole look-back: what a provider counts may differ from what we do.
        look_back = max(1, rules.look_back - _SPARE) if rules.look_back else 0
        at = ground.positions[ground.read]
        if not rules.look_back or not reaches(at, taken, ground.positions, look_back):
            want(ground.read)
    want(min(choice.short, choice.long))
    for head in heads:
        if ground.read < head < deepest and head >= ground.floor:
            want(head)
    if ground.read < ground.inner < deepest and ground.inner >= ground.floor:
        want(ground.inner)
    return _with_lifetimes(sorted(wanted), choice, ground, rules)


def _with_lifetimes(
    blocks: list[int], choice: Choice, ground: Ground, rules: CacheRules
) -> tuple[Mark, ...]:
    near_s, far_s = rules.lifetimes[0].ttl_s, rules.lifetimes[-1].ttl_s
    last_far = max([m.block for m in ground.client if m.ttl_s >= far_s], default=-1)
    first_near = min([m.block for m in ground.client if m.ttl_s < far_s], default=1 << 60)
    placed: list[Mark] = []
    longest = max(choice.long, ground.read if ground.read_ttl_s >= far_s else -1)
    for block in blocks:
        ttl_s = far_s if block <= longest else near_s
        if far_s != near_s:
            # Those with the longer lifetime come first, the client's included: theirs win.
            if block < last_far:
                ttl_s = far_s
            elif block > first_near:
                ttl_s = near_s
        placed.append(Mark(block, ttl_s))
    return tuple(placed)
