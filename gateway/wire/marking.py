"""A plan for a provider's cache, performed on the raw body of a request: `marked`.

Rule 1: only what the plan changes is changed; every other byte stays as the client spelled it.
Rule 2: what a text says is never changed: a split text says the same, piece by piece, and a bare
string becomes a list of one text only where the provider takes both for the same.
Rule 3: a body that is not what the prompt was read from is not touched.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

from gateway.providers.prompt_cache import MarkerForm
from gateway.wire.block_parts import INNER, MARKERS
from gateway.wire.seek import Member, Seeker, offsets
from gateway.wire.splice import Edit, applied, rewritten, without

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from gateway.core.plan import Plan
    from gateway.core.prefix import CachePrompt, Path
    from gateway.providers.prompt_cache import CacheRules
    from gateway.wire.beginnings import Landmark

_OPTIONS = "prompt_cache_options"
_KEY = "prompt_cache_key"

_TEXT_HEADS = {
    "openai_responses": b'{"type":"input_text","text":',
    "bedrock_converse": b'{"text":',
}
_TEXT_HEAD = b'{"type":"text","text":'
_QUOTE, _OBJECT, _LIST = b'"{['


class Unmarkable(ValueError):
    """The plan can't be performed on this body: it goes as it came. `str()` says why."""


def marked(
    body: bytes,
    prompt: CachePrompt,
    plan: Plan,
    rules: CacheRules,
    landmark: Landmark | None = None,
) -> bytes:
    """The body with the plan performed on it. `body` is the JSON that `prompt` was read from;
    `landmark`, if it was found in it: marks near the end are then found at once.

    Raises `Unmarkable` where they don't fit, or the plan asks for what the rules don't have.
    """
    return applied(body, edits(body, prompt, plan, rules, landmark)) if plan.changes else body


def edits(
    body: bytes,
    prompt: CachePrompt,
    plan: Plan,
    rules: CacheRules,
    landmark: Landmark | None = None,
) -> list[Edit]:
    """What `marked` changes, in the order of the body. Raises `Unmarkable`."""
    try:
        return _Marking(body, prompt, plan, rules, landmark).edits()
    except Unmarkable:
        raise
    except (ValueError, LookupError, RecursionError) as error:
        # What stands there is not what stood in the prompt.
        raise Unmarkable(f"not the body that was planned for: {error}") from error


@dataclass(slots=True)
class _Change:
    """What is to be done at one block's path."""

    ttl_s: int = 0
    """Of the marker on the block, or on the last part of it; 0 for none."""
    cuts: dict[int, int] = field(default_factory=dict)
    """Characters before which its text is split, and the lifetime of the marker there, or 0."""
    strips: bool = False
    """The client's markers on it and in it are taken out."""


class _Node:
    """A place on the way to changes."""

    __slots__ = ("change", "inner")

    def __init__(self) -> None:
        self.inner: dict[str | int, _Node] = {}
        self.change: _Change | None = None


def _changes(prompt: CachePrompt, plan: Plan) -> dict[Path, _Change]:
    """What the plan does, by place."""
    changes: dict[Path, _Change] = {}
    for index, ttl_s in (*((split, 0) for split in plan.splits), *plan.marks):
        block = prompt.blocks[index]
        if not block.can_mark:
            raise Unmarkable(f"no marker may stand on block {index}")
        change = changes.setdefault(block.path, _Change())
        if block.until:
            change.cuts[block.until] = ttl_s
        elif ttl_s:
            change.ttl_s = ttl_s
        else:
            raise Unmarkable(f"block {index} is no piece of a text")
    if plan.strips:
        for block in prompt.blocks:
            if block.client_ttl_s:
                changes.setdefault(block.path, _Change()).strips = True
    return changes


def _tree(changes: dict[Path, _Change]) -> _Node:
    root = _Node()
    for path, change in changes.items():
        node = root
        for step in path:
            inner = node.inner.get(step)
            if inner is None:
                inner = node.inner[step] = _Node()
            node = inner
        node.change = change
    return root


class _Marking:
    """One performance of one plan."""

    def __init__(
        self,
        body: bytes,
        prompt: CachePrompt,
        plan: Plan,
        rules: CacheRules,
        landmark: Landmark | None,
    ) -> None:
        if landmark is not None and landmark.seeker.text is not body:
            landmark = None
        self._landmark = landmark
        self._seek = Seeker(body) if landmark is None else landmark.seeker
        self._body = body
        self._plan = plan
        self._rules = rules
        self._head = _TEXT_HEADS.get(prompt.api, _TEXT_HEAD)
        self._points = rules.form is MarkerForm.CACHE_POINT
        self._removed = MARKERS if plan.strips and not self._points else frozenset[str]()
        self._edits: list[Edit] = []
        self._tree = _tree(_changes(prompt, plan))

    def edits(self) -> list[Edit]:
        """All of them, in order."""
        added: dict[str, bytes] = {}
        if self._plan.cache_key:
            added[_KEY] = orjson.dumps(self._plan.cache_key)
        if self._plan.mode or self._plan.strips:
            # Set where it is found, if the client has options of its own.
            self._tree.inner.setdefault(_OPTIONS, _Node())
        self._object(self._seek.begin(), self._tree, is_root=True, added=added)
        return sorted(self._edits)

    # --- the way to the blocks ----------------------------------------------------------------------

    def _walk(self, at: int, node: _Node) -> int:
        """Do what is to be done in the value that begins here; returns where it ends."""
        if node.change is not None:
            return self._block(at, node.change)
        if self._body[at] == _LIST:
            return self._list(at, node)
        return self._object(at, node, is_root=False, added={})

    def _object(self, at: int, node: _Node, *, is_root: bool, added: dict[str, bytes]) -> int:
        found: list[Member] = []
        missing = set(node.inner)
        opened = start = self._seek.opened(at, _OBJECT)
        while (member := self._seek.member(start)) is not None:
            if (inner := node.inner.get(member.name)) is not None:
                if member.name not in missing:
                    raise Unmarkable(f"{member.name} is named twice")
                missing.discard(member.name)
                if is_root and member.name == _OPTIONS:
                    end = self._options(member.value, added)
                elif is_root and self._is_marked(member, inner):
                    end = self._near_the_end(inner)
                else:
                    end = self._walk(member.value, inner)
            else:
                end = self._seek.end(member.value)
            found.append(Member(member.name, member.start, member.value, end))
            start = self._seek.next(end)
        if is_root and _OPTIONS in missing:
            missing.discard(_OPTIONS)
            if self._plan.mode:
                added[_OPTIONS] = _options(self._plan.mode)
        if missing:
            raise Unmarkable(f"{missing.pop()} is gone")
        if self._removed or added:
            self._rewrite(opened, found, added, replaces=is_root)
        return start + 1

    def _options(self, at: int, added: dict[str, bytes]) -> int:
        """The client's own options: only the mode in them is ours to set."""
        mode = self._plan.mode
        if self._body[at] != _OBJECT:
            if mode:
                added[_OPTIONS] = _options(mode)
            return self._seek.end(at)
        members, end = self._seek.members(at)
        self._rewrite(
            self._seek.opened(at, _OBJECT),
            members,
            {"mode": orjson.dumps(mode)} if mode else {},
            removed={"mode"} if self._plan.strips else (),
            replaces=True,
        )
        return end

    def _list(self, at: int, node: _Node) -> int:
        wanted = node.inner
        left = len(wanted)
        strips_points = self._points and self._plan.strips
        spans: list[tuple[int, int]] = []
        gone: list[bool] = []
        index = 0
        start = self._seek.opened(at, _LIST)
        while (left or strips_points) and (item := self._seek.item(start)) is not None:
            end, following = item
            if index in wanted:
                left -= 1
                self._walk(start, wanted[index])
            if strips_points:
                spans.append((start, end))
                gone.append(self._is_point(start))
            start = following
            index += 1
        if left:
            raise Unmarkable("a list is shorter than it was")
        self._edits += without(spans, gone)
        return self._seek.closing(start) + 1

    def _is_marked(self, member: Member, node: _Node) -> bool:
        """Is it the list of the landmark, and everything to be done in it not before that?"""
        landmark = self._landmark
        return (
            landmark is not None
            and node.change is None
            and landmark.name == member.name
            and not (self._points and self._plan.strips)
            and all(isinstance(n, int) and n >= landmark.first for n in node.inner)
        )

    def _near_the_end(self, node: _Node) -> int:
        assert self._landmark is not None
        first, places = self._landmark.first, self._landmark.places
        for index, inner in node.inner.items():
            assert isinstance(index, int)
            self._walk(places[index - first], inner)
        return self._seek.closing(places[-1]) + 1

    def _is_point(self, at: int) -> bool:
        if self._body[at] != _OBJECT:
            return False
        return any(member.name == self._rules.form.value for member in self._seek.members(at)[0])

    # --- the blocks ---------------------------------------------------------------------------------

    def _block(self, at: int, change: _Change) -> int:
        if self._body[at] == _QUOTE:
            end = self._seek.string_end(at)
            self._bare(at, end, change)
            return end
        members, end = self._seek.members(at)
        if change.cuts:
            self._split(at, members, change)
        if self._points:
            if change.ttl_s:
                self._edits.append(Edit(end, end, self._point(change.ttl_s)))
            return end
        added = {self._rules.form.value: self._marker(change.ttl_s)} if change.ttl_s else {}
        self._rewrite(self._seek.opened(at, _OBJECT), members, added)
        if change.strips:
            self._strip_within(members)
        return end

    def _bare(self, at: int, end: int, change: _Change) -> None:
        """A string becomes a list of texts; its own spelling stays where it is."""
        if not change.cuts and not change.ttl_s:
            return
        self._edits.append(Edit(at, at, b"[" + self._head))
        cuts = sorted(change.cuts)
        for cut, place in zip(cuts, offsets(self._body[at + 1 : end - 1], cuts), strict=True):
            where = at + 1 + place
            new = b'"' + self._tail(change.cuts[cut]) + b"," + self._head + b'"'
            self._edits.append(Edit(where, where, new))
        self._edits.append(Edit(end, end, self._tail(change.ttl_s) + b"]"))

    def _split(self, at: int, members: list[Member], change: _Change) -> None:
        """The head of a text becomes blocks before this one, which keeps all else that it has."""
        texts = [member for member in members if member.name == "text"]
        if len(texts) != 1 or self._body[texts[0].value] != _QUOTE:
            raise Unmarkable("no text to split")
        begin = texts[0].value + 1
        spelled = self._body[begin : texts[0].end - 1]
        cuts = sorted(change.cuts)
        new: list[bytes] = []
        done = 0
        for cut, place in zip(cuts, offsets(spelled, cuts), strict=True):
            new += (self._head, b'"', spelled[done:place], b'"', self._tail(change.cuts[cut]), b",")
            done = place
        self._edits.append(Edit(at, at, b"".join(new)))
        self._edits.append(Edit(begin, begin + done, b""))

    def _strip_within(self, members: Iterable[Member]) -> None:
        """The markers of the blocks inside a block: of what a tool returned, of a document."""
        for member in members:
            if member.name not in INNER:
                continue
            first = self._body[member.value]
            inside = [member.value] if first == _OBJECT else []
            if first == _LIST:
                inside = [at for at in self._seek.items(member.value) if self._body[at] == _OBJECT]
            for at in inside:
                held, _ = self._seek.members(at)
                self._rewrite(self._seek.opened(at, _OBJECT), held, {})
                self._strip_within(held)

    # --- spelling -----------------------------------------------------------------------------------

    def _rewrite(
        self,
        opened: int,
        members: list[Member],
        added: dict[str, bytes],
        *,
        removed: Collection[str] | None = None,
        replaces: bool = False,
    ) -> None:
        removed = self._removed if removed is None else removed
        for name in (*removed, *added):
            if sum(member.name == name for member in members) > 1:
                raise Unmarkable(f"{name} is named twice")
        self._edits += rewritten(
            self._body, opened, members, removed=removed, added=added, replaces=replaces
        )

    def _tail(self, ttl_s: int) -> bytes:
        """The end of a text block, with a marker or without."""
        if not ttl_s:
            return b"}"
        if self._points:
            return b"}" + self._point(ttl_s)
        return b',"' + self._rules.form.value.encode() + b'":' + self._marker(ttl_s) + b"}"

    def _point(self, ttl_s: int) -> bytes:
        return b',{"cachePoint":' + self._marker(ttl_s) + b"}"

    def _marker(self, ttl_s: int) -> bytes:
        lifetime = self._rules.lifetime(ttl_s)
        if self._rules.form is MarkerForm.BREAKPOINT:
            return b'{"mode":"explicit"}'
        kind = b"default" if self._points else b"ephemeral"
        if lifetime is self._rules.lifetimes[0]:
            # The shortest is what a marker without a lifetime means.
            return b'{"type":"' + kind + b'"}'
        return b'{"type":"' + kind + b'","ttl":"' + lifetime.wire.encode() + b'"}'


def _options(mode: str) -> bytes:
    return b'{"mode":' + orjson.dumps(mode) + b"}"
