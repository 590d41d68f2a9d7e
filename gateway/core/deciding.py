"""One request's markers: from its `Scene` to its `Ticket`."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from gateway.core import placing
from gateway.core.breakpoints import NOTHING, Choice, Sight, choose
from gateway.core.plan import Mark, Markers, Plan, PlanReason
from gateway.core.prefix import CLIENT_TTL_S, Kind
from gateway.core.recurrence import NEVER, Odds
from gateway.core.scene import Scene
from gateway.core.ticket import Ticket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.breakpoints import Head
    from gateway.core.cache_domain import CacheDomain
    from gateway.core.prefix import CachePrompt
    from gateway.providers.prompt_cache import CacheRules

_MOST_SPLITS = 2


class Deciding:
    """Decides about one request."""

    def __init__(
        self,
        known: CacheDomain,
        prompt: CachePrompt,
        rules: CacheRules,
        markers: Markers,
        now: float,
    ) -> None:
        self._known = known
        self._prompt = prompt
        self._rules = rules
        self._markers = markers
        self._scene = Scene(known, prompt, rules, now)
        self._end = self._scene.end()

    def ticket(self) -> Ticket:
        """Decide, and note what is expected to come of it."""
        scene, known = self._scene, self._known
        known.asked(scene.tokens[-1])
        plan, marks, choice = self._decide(scene.heads())
        if scene.opening.split is None and not self._hands_off():
            pieces = (mark.block for mark in plan.marks if scene.blocks[mark.block].until)
            scene.opening.split = tuple(pieces)[-_MOST_SPLITS:]
            scene.splits = scene.opening.split
        read = scene.found_by(marks)
        scene.renew(read)
        written = scene.written(marks, read)
        risked = choice.premium if scene.may_be_only else 0.0
        deepest = max(choice.short, choice.long)
        if risked and deepest < self._end:
            scene.stake(deepest, risked)
            risked = 0.0
        scene.expect(risked)
        return Ticket(
            plan,
            self._prompt,
            self._rules,
            scene.chain,
            scene.tokens,
            scene.now,
            marks,
            read,
            written,
            known,
        )

    def _hands_off(self) -> bool:
        return self._markers is Markers.OFF or (
            self._markers is Markers.RESPECT and self._prompt.marked_by_client
        )

    def _decide(self, heads: list[Head]) -> tuple[Plan, tuple[Mark, ...], Choice]:
        """The plan, all markers that then stand in the request, and what they are to write."""
        scene, prompt, rules = self._scene, self._prompt, self._rules
        client = _client_marks(prompt)
        if self._hands_off():
            off = self._markers is Markers.OFF
            reason = PlanReason.OFF if off else PlanReason.CLIENT_MARKS
            return Plan(reason), self._with_implicit(client, prompt.client_mode), NOTHING
        strips = self._markers is Markers.STRIP and prompt.marked_by_client
        if strips:
            client = ()
        if scene.tokens[-1] < scene.minimum:
            reason = PlanReason.CLIENT_MARKS if client else PlanReason.TOO_SHORT
            # What it was begun with stays, though its length is estimated otherwise by now.
            return Plan(reason, splits=scene.splits, strips=strips), client, NOTHING
        read, read_ttl_s, kept = scene.readable()
        choice = self._choose(heads, client, read, read_ttl_s, kept)
        mode, implicit = self._mode(choice, client, read, strips=strips)
        wanted = sorted(heads, key=lambda h: -h.odds.five_minutes * scene.tokens[h.block])
        placed = placing.place(
            choice,
            [head.block for head in wanted if not head.live],
            placing.Ground(
                client=client,
                slots=max(0, rules.max_marks - len(client) - (1 if implicit else 0)),
                positions=scene.positions,
                read=read,
                read_ttl_s=read_ttl_s,
                inner=self._inner(),
                floor=self._first_long_enough(),
                takes=scene.takes_mark,
            ),
            rules,
        )
        if implicit:
            placed = tuple(mark for mark in placed if mark.block != self._end)
        before = scene.tokens[read] if read >= 0 else 0
        until = max(choice.short, choice.long)
        marked = {mark.block for mark in placed}
        plan = Plan(
            self._reason(placed, client, implicit=implicit),
            marks=placed,
            splits=tuple(split for split in scene.splits if split not in marked),
            strips=strips,
            mode=mode,
            read_tokens=before,
            write_tokens=max(0, scene.tokens[until] - before) if until >= 0 else 0,
        )
        marks = tuple(sorted((*client, *placed)))
        return plan, self._with_implicit(marks, "implicit" if implicit else "explicit"), choice

    def _choose(
        self,
        heads: list[Head],
        client: Sequence[Mark],
        read: int,
        read_ttl_s: int,
        kept: int,
    ) -> Choice:
        scene = self._scene
        trust = self._known.reliability
        deepest = max((mark.block for mark in client), default=-1)
        sight = Sight(
            tokens=scene.tokens,
            markable=scene.takes_mark,
            read=read,
            read_ttl_s=read_ttl_s,
            kept=kept,
            end=self._end if self._can_end() else -1,
            odds=_by(trust, scene.odds()),
            heads=[head._replace(odds=_by(trust, head.odds)) for head in heads],
            minimum=scene.minimum,
            given=deepest,
            given_ttl_s=max((m.ttl_s for m in client if m.block == deepest), default=0),
        )
        choice = choose(sight, self._rules)
        deepest = max(choice.short, choice.long)
        kind = scene.kind if deepest == sight.end >= 0 else "head"
        if kind == "head" and any(h.proven for h in heads if h.block == deepest):
            return choice
        if scene.may_be_only and choice.premium and not self._known.may_risk(kind, choice.premium):
            # Only what has been seen to recur.
            proven = [head for head in sight.heads if head.proven]
            return choose(sight._replace(end=-1, odds=NEVER, heads=proven), self._rules)
        return choice

    def _can_end(self) -> bool:
        return self._end >= 0 and (self._rules.implicit or self._scene.takes_mark(self._end))

    def _mode(
        self, choice: Choice, client: Sequence[Mark], read: int, *, strips: bool
    ) -> tuple[str, bool]:
        """OpenAI's mode to set (empty: leave it), and whether the request is in implicit mode.

        A conversation's mode is not changed where nothing is gained by it: the guide says that an
        entry is lost when implicit becomes explicit. One that is asked again writes nothing anyway.
        """
        said = "" if strips else self._prompt.client_mode
        if not self._rules.implicit:
            return "", False
        if said:
            return "", said == "implicit"
        ends = self._end in {choice.short, read} and self._end >= 0
        if client or (ends and not self._is_followed()):
            return "", True
        return "explicit", False

    def _is_followed(self) -> bool:
        """Would implicit mode write what stands behind the last place for a marker, too? The next
        turn may be without that.
        """
        behind = self._scene.blocks[self._end + 1 :]
        return any(block.ends_message and block.role != "assistant" for block in behind)

    def _reason(
        self, placed: Sequence[Mark], client: Sequence[Mark], *, implicit: bool
    ) -> PlanReason:
        if placed:
            return PlanReason.PLACED
        if client:
            return PlanReason.CLIENT_MARKS
        if implicit:
            return PlanReason.IMPLICIT
        return PlanReason.NOTHING_RECURS if self._known.reliability else PlanReason.WITHDRAWN

    def _first_long_enough(self) -> int:
        return bisect_left(self._scene.tokens, self._scene.minimum)

    def _inner(self) -> int:
        """The end of what a person said before the last message."""
        scene = self._scene
        for index in range(self._end - 1, scene.shared, -1):
            block = scene.blocks[index]
            spoken = block.role == "user" and block.kind is not Kind.TOOL_RESULT
            if spoken and block.ends_message and scene.takes_mark(index):
                return index
        return -1

    def _with_implicit(self, marks: tuple[Mark, ...], mode: str) -> tuple[Mark, ...]:
        """With the marker that OpenAI's implicit mode sets by itself."""
        if not self._rules.implicit or mode == "explicit":
            return marks
        if self._end < 0 or any(mark.block == self._end for mark in marks):
            return marks
        return (*marks, Mark(self._end, self._rules.lifetimes[0].ttl_s))


def _by(trust: float, odds: Odds) -> Odds:
    return odds if trust == 1.0 else Odds(*(trust * p for p in odds))


def _client_marks(prompt: CachePrompt) -> tuple[Mark, ...]:
    blocks = prompt.blocks
    marks = [Mark(i, ttl_s) for i, ttl_s in enumerate(map(CLIENT_TTL_S, blocks)) if ttl_s]
    if prompt.automatic_ttl_s:
        last = next((i for i in range(len(blocks) - 1, -1, -1) if blocks[i].can_mark), -1)
        if last >= 0 and all(mark.block != last for mark in marks):
            marks.append(Mark(last, prompt.automatic_ttl_s))
    return tuple(marks)
