"""One request's prompt beside all that came before it: what recurs of it, and what is held.

Looking counts: a `Scene` notes that its request was seen, and tells those who waited for it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gateway.core import placing
from gateway.core.blocks import Section
from gateway.core.breakpoints import Head
from gateway.core.cache_domain import cumulative, kind_of
from gateway.core.prefix import SECTION, SIZE, chain, joined, positions
from gateway.core.prefix_tree import Held, Node
from gateway.core.recurrence import Awaited, Odds, Recurrence
from gateway.providers.prompt_cache import MarkerForm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.cache_domain import CacheDomain
    from gateway.core.plan import Mark
    from gateway.core.prefix import CachePrompt, PrefixBlock
    from gateway.core.prefix_tree import Detail
    from gateway.providers.prompt_cache import CacheRules

_SAFETY_S = 3.0
"""An entry that has less to live than this is not counted on."""

_STUCK_S = 120.0
"""A writer whose answer has not begun after this will not make an entry any more."""

_MESSAGES = Section.MESSAGES
_HEAD_WEIGHT = 3.0
_MOST_HEADS = 6
_FIRST = frozenset({"bare", "asked", "armed"})


class Scene:
    """What is known of one request's prompt at one moment."""

    def __init__(
        self, known: CacheDomain, prompt: CachePrompt, rules: CacheRules, now: float
    ) -> None:
        self.known = known
        self.prompt = prompt
        self.rules = rules
        self.now = now
        self.blocks = prompt.blocks
        self.chain = chain(prompt)
        self.tokens = cumulative(map(SIZE, prompt.blocks), known.tokens_per_byte)
        self.minimum = max(rules.minimum_tokens, known.least_tokens)
        self.positions = positions(prompt.blocks, runs_count_once=rules.runs_count_once)
        self.shared = end_of(self.blocks, Section.SYSTEM, Section.TOOLS)
        """The last block before the messages; -1 without one."""
        self._nodes = known.tree.path(self.chain)
        self.seen = self._visit()
        """The deepest block whose prefix was met before; -1 for none."""
        self.opening = known.tree.details(self._nodes[self._first_message_end()])
        """Of the conversation's first message: what holds for all of it is kept there."""
        self.continues = self._settle()
        """It goes on from where an earlier request ended."""
        self.kind = kind_of(prompt, continues=self.continues)
        self.splits = self.opening.split or ()
        self.may_split = self.opening.split is None and self.is_first
        self._marked_texts: list[bool] | None = None
        """By block: does the text that it ends or is a piece of carry the client's marker?"""

    @property
    def is_first(self) -> bool:
        """No answer of the model is in it: the first request of a conversation, or its only one."""
        return self.kind in _FIRST

    @property
    def may_be_only(self) -> bool:
        """Nothing says yet that this is more than a single question. One with a history that nobody
        has met may be: its turns are examples. Not so one that hands a tool's result back.
        """
        return self.is_first or (not self.continues and self.kind.startswith("turn"))

    @property
    def family(self) -> Detail | None:
        """What is known of those that share this beginning; None without one."""
        return self.known.tree.details(self._nodes[self.shared]) if self.shared >= 0 else None

    def _visit(self) -> int:
        deepest = -1
        before = Node()
        for index, (node, fingerprint) in enumerate(zip(self._nodes, self.chain, strict=True)):
            if node.seen:
                deepest = index
            node.seen += 1
            if before.next != fingerprint:
                if before.next:
                    before.branches += 1
                before.next = fingerprint
            before = node
        return deepest

    def _first_message_end(self) -> int:
        for index, block in enumerate(self.blocks):
            if block.section is Section.MESSAGES and block.ends_message:
                return index
        return len(self.blocks) - 1

    def _settle(self) -> bool:
        continues = False
        last = len(self._nodes) - 1
        for index, node in enumerate(self._nodes[: self.seen + 1]):
            detail = node.detail
            if detail is None or detail.awaited is None:
                continue
            if not detail.awaited.settled:
                detail.awaited.came(self.now)
                self.known.risk(-detail.awaited.premium)
            detail.awaited = None
            continues = continues or self.shared < index < last
        return continues

    # --- what is held ------------------------------------------------------------------------

    def form(self, block: int) -> int:
        """How texts up to a block are split, as one number."""
        form = 0
        for at in self.splits:
            if at <= block:
                form = joined(form, self.chain[at])
        return form

    def _entries(self, block: int) -> list[Held]:
        """What can be read just here."""
        detail = self._nodes[block].detail
        if detail is None or not detail.held:
            return []
        form, now = self.form(block), self.now
        return [
            held
            for held in detail.held
            if held.form == form
            and held.ready_at <= now
            and held.used_at + held.ttl_s - now >= _SAFETY_S
        ]

    def readable(self) -> tuple[int, int, int]:
        """The deepest block whose prefix is held, how long that entry lives, and the deepest one
        that a long-lived entry keeps for a good while; -1 for none.
        """
        far_s = self.rules.lifetimes[-1].ttl_s
        read = kept = -1
        read_ttl_s = 0
        nodes = self._nodes
        for index in range(self.seen, -1, -1):
            if nodes[index].detail is None:
                continue
            for held in self._entries(index):
                if read < 0 or read == index:
                    read, read_ttl_s = index, max(read_ttl_s, held.ttl_s)
                left = held.used_at + held.ttl_s - self.now
                if kept < 0 and held.ttl_s >= far_s and left > far_s / 4:
                    kept = index
            if read >= 0 and kept >= 0:
                break
        return read, read_ttl_s, kept

    def is_live(self, block: int) -> bool:
        """Is there an entry just here, or is somebody writing one?"""
        detail = self._nodes[block].detail
        if detail is None:
            return False
        form, now = self.form(block), self.now
        return any(
            held.form == form
            and held.used_at + held.ttl_s - now >= _SAFETY_S
            and (held.ready_at <= now or now - held.used_at < _STUCK_S)
            for held in detail.held
        )

    def found_by(self, marks: Sequence[Mark]) -> int:
        """The deepest block with an entry that one of the markers finds; -1 for none."""
        blocks = [mark.block for mark in marks]
        nodes = self._nodes
        for index in range(min(self.seen, max(blocks, default=-1)), -1, -1):
            if nodes[index].detail is None:
                continue
            if self._entries(index) and self._finds(index, blocks):
                return index
        return -1

    def _finds(self, index: int, marked: Sequence[int]) -> bool:
        if self.rules.form is MarkerForm.BREAKPOINT:
            # It looks only where markers stand; implicit mode at the ends of messages, too.
            return index in marked or (self.rules.implicit and self.blocks[index].ends_message)
        behind = [block for block in marked if block >= index]
        at = self.positions[index]
        return placing.reaches(at, behind, self.positions, self.rules.look_back)

    def renew(self, block: int) -> None:
        """This request reads the entry here: it lives on from now."""
        if self.rules.refreshes:
            for held in self._entries(block):
                held.used_at = self.now

    def written(self, marks: Sequence[Mark], read: int) -> tuple[tuple[int, int, int], ...]:
        """Note the entries that this request makes behind what it reads; none of them can be read
        before its answer begins.
        """
        made: list[tuple[int, int, int]] = []
        for mark in marks:
            if mark.block <= read or self.tokens[mark.block] < self.minimum:
                continue
            form = self.form(mark.block)
            detail = self.known.tree.details(self._nodes[mark.block])
            detail.tokens = self.tokens[mark.block]
            detail.held = [
                held
                for held in detail.held
                if held.form == form
                and held.ttl_s != mark.ttl_s
                and held.used_at + held.ttl_s > self.now
            ]
            detail.held.append(Held(mark.ttl_s, self.now, math.inf, form))
            made.append((mark.block, mark.ttl_s, form))
        return tuple(made)

    # --- what recurs -------------------------------------------------------------------------

    def takes_mark(self, block: int) -> bool:
        """May a marker of ours stand here? After a piece of a text only where the conversation was
        split so, or is about to begin.
        """
        this = self.blocks[block]
        if not this.can_mark or this.client_ttl_s:
            return False
        if not this.until:
            return True
        return (self.may_split or block in self.splits) and not self._is_marked_text(block)

    def _is_marked_text(self, piece: int) -> bool:
        """Does the text that it is a piece of carry a marker of the client? Then it is warm as it
        is, and the client's to divide.
        """
        if self._marked_texts is None:
            marked: list[bool] = []
            for block in reversed(self.blocks):
                is_inner = block.until > 0 and bool(marked)
                marked.append(marked[-1] if is_inner else block.client_ttl_s > 0)
            self._marked_texts = marked[::-1]
        return self._marked_texts[piece]

    def end(self) -> int:
        """The last block of the messages after which an entry of ours could end; -1 for none.

        Implicit mode ends one behind the last message that isn't the model's, even behind a blank
        one, which could carry no marker.
        """
        implicit = self.rules.implicit and self.prompt.client_mode != "explicit"
        for index in range(len(self.blocks) - 1, self.shared, -1):
            block = self.blocks[index]
            if block.can_mark or (implicit and block.ends_message and block.role != "assistant"):
                return index
        return -1

    def heads(self) -> list[Head]:
        """Boundaries from which requests part, in order, and the odds that one comes which needs
        an entry there. A request that starts here, and continues none, is counted.
        """
        last = len(self.blocks) - 1
        found: list[int] = []
        parted = [
            n for n, node in enumerate(self._nodes[: min(self.seen + 1, last)]) if node.branches
        ]
        for index in reversed(parted):
            if self.takes_mark(index):
                found.append(index)
                if len(found) == _MOST_HEADS:
                    break
        for end in {self.shared, end_of(self.blocks, Section.TOOLS)}:
            if 0 <= end < last and end not in found and self.takes_mark(end):
                found.append(end)
        found.sort()
        # A request that continues another tells nothing of how heads go on.
        general = self.known.odds("head") if self.continues and found else None
        return [self._head(index, general) for index in found]

    def _head(self, index: int, general: Odds | None) -> Head:
        known, now = self.known, self.now
        detail = known.tree.details(self._nodes[index])
        detail.tokens = self.tokens[index]
        general = general or known.odds("head")
        if not self.continues:
            if detail.started is not None:
                known.risk(-detail.started.premium)
                detail.started.came(now)
            # Only the first time says how heads in general go on; later ones have counts.
            first = detail.starts is None and index == self.shared
            if detail.starts is None:
                detail.starts = Recurrence()
            tellers = (detail.starts, *(known.tellers("head", None) if first else ()))
            detail.started = Awaited(now, tellers)
            known.expect(detail.started)
        odds = general if detail.starts is None else detail.starts.odds(general, _HEAD_WEIGHT)
        return Head(
            index, odds, detail.starts.weight > 0.0 if detail.starts else False, self.is_live(index)
        )

    def odds(self) -> Odds:
        """That this request will be continued."""
        return self.known.odds(self.kind, self.family)

    def stake(self, block: int, premium: float) -> None:
        """So much is spent on others starting at a boundary at which nobody has yet."""
        detail = self.known.tree.details(self._nodes[block])
        if detail.started is not None:
            detail.started.premium = premium
            self.known.risk(premium)

    def expect(self, premium: float) -> None:
        """Wait for the request that continues this one; `premium` was spent on its coming."""
        detail = self.known.tree.details(self._nodes[-1])
        if detail.awaited is not None:
            detail.awaited.came(self.now)
        detail.awaited = Awaited(
            self.now, self.known.tellers(self.kind, self.family), premium=premium
        )
        self.known.risk(premium)
        self.known.expect(detail.awaited)


def end_of(blocks: Sequence[PrefixBlock], *sections: Section) -> int:
    """The last block of these sections; -1 where there is none."""
    # The conversation comes last as a rule: what is asked for ends in front of it.
    held = list(map(SECTION, blocks))
    begun = held.index(_MESSAGES) if _MESSAGES in held else len(held)
    if _MESSAGES not in sections and held.count(_MESSAGES) == len(held) - begun:
        blocks = blocks[:begun]
    for index in range(len(blocks) - 1, -1, -1):
        if blocks[index].section in sections:
            return index
    return -1
