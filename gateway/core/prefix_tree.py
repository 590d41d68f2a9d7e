"""What recurs, where, how often, and what a provider's cache probably holds of it: `PrefixTree`.

A fingerprint stands for all blocks up to its boundary, so that a table from fingerprint to node is
the whole tree. It holds no content. Bounded: what has not been seen for longest is forgotten, which
may cost money, never an answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gateway.core.recurrence import Awaited, Recurrence

NODE_BYTES = 320
"""What a node takes with its place in the table; a test holds it to what the process really pays."""

DETAIL_BYTES = 1400
"""What a node takes beside that, on which more is known than that it was seen."""

_PORTION = 4000


class Held:
    """A prefix that the provider's cache probably holds."""

    __slots__ = ("form", "ready_at", "ttl_s", "used_at")

    def __init__(self, ttl_s: int, used_at: float, ready_at: float, form: int) -> None:
        self.ttl_s = ttl_s
        self.used_at = used_at
        """Start of the request that wrote or last read it: its lifetime counts from there."""
        self.ready_at = ready_at
        """When the answer to its writer began; infinite until then."""
        self.form = form
        """Fingerprint of how texts before it were split: another split is another prefix."""


class Detail:
    """What is known about a boundary that matters: one that requests end at, or part from."""

    __slots__ = ("awaited", "classes", "held", "split", "started", "starts", "tokens")

    def __init__(self) -> None:
        self.held: list[Held] = []
        self.awaited: Awaited | None = None
        """The last request that ended here, until another comes through."""
        self.starts: Recurrence | None = None
        """Gaps between requests that could have used an entry here, having none further down."""
        self.started: Awaited | None = None
        """The last of these."""
        self.classes: dict[str, Recurrence] | None = None
        """At the end of what conversations share: how their requests go on, by kind."""
        self.split: tuple[int, ...] | None = None
        """At the end of a conversation's first request: the pieces after which its texts are
        split, now and for good."""
        self.tokens = 0
        """Estimated, when it was last written or begun with; 0 before."""


class Node:
    """A boundary."""

    __slots__ = ("branches", "detail", "next", "seen")

    def __init__(self) -> None:
        self.seen = 0
        self.next = 0
        """The fingerprint that followed last."""
        self.branches = 0
        """How often something else followed than before; a request that ends here is one."""
        self.detail: Detail | None = None

    def details(self) -> Detail:
        """Its detail, made where there is none."""
        if self.detail is None:
            self.detail = Detail()
        return self.detail


class PrefixTree:
    """One provider cache's prefixes. `budget_bytes` bounds it."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        # Two halves: what is met in the old one moves to the young one; when the young one is
        # full, the old one is dropped. Cheaper than an order by use, and nearly as good.
        self._young: dict[int, Node] = {}
        self._old: dict[int, Node] = {}
        self._young_bytes = 0
        self._old_bytes = 0

    def __len__(self) -> int:
        """Boundaries that are known."""
        return len(self._young) + len(self._old)

    @property
    def size_bytes(self) -> int:
        """About what it takes."""
        return self._young_bytes + self._old_bytes

    def shared(self) -> Iterator[list[tuple[int, Node]]]:
        """The ends of what several requests began with, by fingerprint: where half of those that came
        so far, or more, went on otherwise than the last one. In portions of a millisecond: between
        them the tree may change, and a node that moves in it may come twice.
        """
        for nodes in (self._old, self._young):
            known = list(nodes)
            for start in range(0, len(known), _PORTION):
                yield list(self._ends(known[start : start + _PORTION]))

    def _ends(self, fingerprints: Iterable[int]) -> Iterator[tuple[int, Node]]:
        for fingerprint in fingerprints:
            node = self.find(fingerprint)
            if node is None or node.detail is None or node.seen < 2:
                continue
            behind = self.find(node.next)
            if behind is None or 2 * behind.seen <= node.seen:
                yield fingerprint, node

    def find(self, fingerprint: int) -> Node | None:
        """The node, if it is known, without meaning that it was seen."""
        return self._young.get(fingerprint) or self._old.get(fingerprint)

    def path(self, chain: Iterable[int]) -> list[Node]:
        """The nodes of a chain, those that are not known yet made; `seen` is left to the caller."""
        young = self._young
        get = young.get
        found: list[Node] = []
        for fingerprint in chain:
            node = get(fingerprint)
            if node is None:
                node = self._enter(fingerprint)
                if young is not self._young:  # it had to make room
                    young = self._young
                    get = young.get
            found.append(node)
        return found

    def _enter(self, fingerprint: int) -> Node:
        node = self._old.pop(fingerprint, None)
        if node is None:
            node = Node()
            size = NODE_BYTES
        else:
            size = NODE_BYTES if node.detail is None else NODE_BYTES + DETAIL_BYTES
            self._old_bytes -= size
        if 2 * (self._young_bytes + size) > self._budget:
            self._old, self._old_bytes = self._young, self._young_bytes
            self._young, self._young_bytes = {}, 0
        self._young[fingerprint] = node
        self._young_bytes += size
        return node

    def details(self, node: Node) -> Detail:
        """The node's detail, made and counted where there is none."""
        if node.detail is None:
            self._young_bytes += DETAIL_BYTES
        return node.details()
