"""Why a simulated provider's cache gave less than it could have: what it alone can know.

Rule 1: it knows everything: each entry that was ever written, whatever became of it, and each prompt
that was ever sent. What the gateway says of misses is held against this.
Rule 2: the definitions are those of `core.miss`, carried out apart from the code that serves.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from gateway.core.blocks import BYTES_PER_TOKEN, Section
from gateway.core.miss import Miss, MissCause
from gateway.lab import sim_pieces
from gateway.lab.sim_seen import Seen, Wanted

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Sequence

    from gateway.core.prefix import PrefixBlock
    from gateway.lab.sim_seen import Compared, Likest, Piece

_PATHS = {
    sim_pieces.MODEL: "$.model",
    sim_pieces.KEY: "$.prompt_cache_key",
    sim_pieces.TOOL_CHOICE: "$.tool_choice",
    sim_pieces.SETTINGS: "$",
}
_PART = 0.25
"""Of what is left of a prompt, so much has to recur in another one for it to be called changed."""


class Entry(Protocol):
    """One written prefix, as the cache keeps it up to date."""

    ttl_s: float
    used: float
    readable: float


@dataclass(slots=True)
class Case:
    """One request to be judged, and the judgement."""

    owner: Hashable
    """Whose prompts it is compared with: credential and API."""
    cache: Hashable
    """What keeps entries apart for good: owner, and the key where it does."""
    scope: Hashable
    """The machine that is asked, within that cache."""
    pieces: Sequence[Piece]
    blocks: Sequence[PrefixBlock] = ()
    """Those that the pieces are of, where they are not cut as the provider sees them: a text that the
    gateway has split stands whole in the client's request."""
    miss: Miss | None = None


class Asked(NamedTuple):
    """A request as the cache takes it."""

    now: float
    readable: float
    """When its answer begins."""
    chain: Sequence[int]
    tokens: Sequence[int]
    blocks: Sequence[PrefixBlock]
    minimum: int
    grain: int = 1
    """What is read is rounded down to so many tokens."""

    def readable_tokens(self, index: int) -> int:
        """What an entry at the end of that block gives."""
        found = self.tokens[index] // self.grain * self.grain
        return found if found >= self.minimum else 0


class Kept(NamedTuple):
    """The deepest boundary at which something was ever kept."""

    block: int
    tokens: int
    expired: bool
    """On every machine."""
    here: bool
    """It is on the machine that is asked that it has not expired."""


class Causes:
    """All that one provider ever saw and kept, for all its models. Not bounded."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Hashable, int], dict[Hashable, list[Entry]]] = {}
        self._seen: dict[Hashable, Seen] = {}

    def __repr__(self) -> str:
        return f"<Causes {len(self._kept)} entries, {self._seen or 'no prompts'}>"

    def kept(self, case: Case, asked: Asked) -> Kept | None:
        """What could be read at best. To be asked before the request changes anything."""
        for block in range(len(asked.chain) - 1, -1, -1):
            tokens = asked.readable_tokens(block)
            if not tokens:
                return None
            machines = self._kept.get((case.cache, asked.chain[block]))
            if machines is None:
                continue
            # One that is being written anew is what it was until that can be read.
            last = {
                scope: ready[-1]
                for scope, entries in machines.items()
                if (ready := [each for each in entries if each.readable <= asked.now])
            }
            if last:
                alive = [s for s, each in last.items() if asked.now <= each.used + each.ttl_s]
                return Kept(block, tokens, not alive, case.scope in alive)
        return None

    def wrote(self, case: Case, fingerprint: int, entry: Entry, now: float) -> None:
        """An entry was made, or one made anew."""
        machines = self._kept.setdefault((case.cache, fingerprint), {})
        before = machines.get(case.scope, [])
        ready = [each for each in before if each.readable <= now]
        machines[case.scope] = [*ready[-1:], entry]

    def judge(
        self, case: Case, asked: Asked, kept: Kept | None, looked: Collection[int], hit: int
    ) -> None:
        """Say what was missed, and remember the request. `looked`: the blocks at whose ends an entry
        was looked for; `hit`: the one that was read up to, or -1.
        """
        read = asked.readable_tokens(hit) if hit >= 0 else 0
        if kept is not None and read < kept.tokens:
            case.miss = Miss(_why(kept, looked), kept.tokens - read)
        else:
            case.miss = self._otherwise(case, asked, hit if read else -1)
        seen = self._seen.setdefault(case.owner, Seen())
        seen.add(case.pieces, asked.now, asked.readable)

    def _otherwise(self, case: Case, asked: Asked, hit: int) -> Miss | None:
        """All that was kept was read. Could more have been, if the prompt were not what it is?"""
        pieces, least = case.pieces, asked.minimum * BYTES_PER_TOKEN
        behind = _behind(pieces, sum(each.size for each in asked.blocks[: hit + 1]))
        seen = self._seen.get(case.owner) or Seen()
        compared = seen.compare(pieces, asked.now, Wanted(behind, least, _PART))
        if compared.likest is not None:
            return _changed(pieces, compared.likest, case.blocks or asked.blocks)
        if hit >= 0:
            return None
        if asked.tokens[-1] < asked.minimum:
            return Miss(MissCause.BELOW_MINIMUM, 0)
        return Miss(_never_kept(pieces, compared, least), 0)


def _behind(pieces: Sequence[Piece], size: int) -> int:
    """The first piece behind so many bytes."""
    for index, piece in enumerate(pieces):
        if size <= 0:
            return index
        size -= piece.size
    return len(pieces)


def _why(kept: Kept, looked: Collection[int]) -> MissCause:
    if kept.expired:
        return MissCause.TTL_EXPIRED
    if kept.block not in looked:
        return MissCause.LOOKBACK_EXCEEDED
    return MissCause.EVICTED if kept.here else MissCause.OTHER_BACKEND


def _never_kept(pieces: Sequence[Piece], compared: Compared, least: int) -> MissCause:
    shared = sum(each.size for each in pieces[: compared.shared])
    return MissCause.BELOW_MINIMUM if 0 < shared < least else MissCause.COLD


def _changed(pieces: Sequence[Piece], likest: Likest, blocks: Sequence[PrefixBlock]) -> Miss:
    piece = pieces[likest.at]
    block = blocks[piece.block]
    if piece.size:
        kind = _kind(pieces, likest, blocks)
        path = "$" + "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in block.path)
    else:
        kind = _setting(piece)
        path = _PATHS[kind]
    lost = likest.size // BYTES_PER_TOKEN
    return Miss(MissCause.PREFIX_CHANGED, lost, path, kind, piece.block)


def _setting(piece: Piece) -> str:
    """A piece without text says itself what it is."""
    assert isinstance(piece.label, tuple)
    return str(piece.label[0])


def _kind(pieces: Sequence[Piece], likest: Likest, blocks: Sequence[PrefixBlock]) -> str:
    section = blocks[pieces[likest.at].block].section
    if section is not Section.TOOLS:
        return "system" if section is Section.SYSTEM else "message"
    first = next(i for i, each in enumerate(pieces) if each.size)
    mine = [each.label for each in pieces if each.size and blocks[each.block].section is section]
    theirs = likest.labels[first : first + len(mine)]
    return "tool_order" if Counter(mine) == Counter(theirs) else "tools"
