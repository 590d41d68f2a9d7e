"""Where two texts are the same and where they are not: `gaps`, `shared_start`, `shared_end`.

In time O(n log n) on any input, unlike a shortest edit script: lines that occur once on both sides
hold the texts together (as in patience diff), and what stands between them is compared from its
both ends. A gap may so be larger than necessary, never smaller.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Gap(NamedTuple):
    """`left[left_start:left_end]` became `right[right_start:right_end]`; one may be empty."""

    left_start: int
    left_end: int
    right_start: int
    right_end: int


def gaps(left: Sequence[str], right: Sequence[str]) -> list[Gap]:
    """The places where two sequences differ, in order; between them they are equal."""
    whole = _trimmed(left, right, Gap(0, len(left), 0, len(right)))
    if whole is None:
        return []
    found: list[Gap] = []
    left_at, right_at = whole.left_start, whole.right_start
    ends = [(whole.left_end, whole.right_end)]
    for left_next, right_next in _anchors(left, right, whole) + ends:
        gap = _trimmed(left, right, Gap(left_at, left_next, right_at, right_next))
        if gap is not None:
            found.append(gap)
        left_at, right_at = left_next + 1, right_next + 1
    return found


def _trimmed(left: Sequence[str], right: Sequence[str], gap: Gap) -> Gap | None:
    """The gap without what is equal at its both ends; None if nothing is left."""
    left_start, left_end, right_start, right_end = gap
    while left_start < left_end and right_start < right_end:
        if left[left_start] != right[right_start]:
            break
        left_start += 1
        right_start += 1
    while left_start < left_end and right_start < right_end:
        if left[left_end - 1] != right[right_end - 1]:
            break
        left_end -= 1
        right_end -= 1
    if left_start == left_end and right_start == right_end:
        return None
    return Gap(left_start, left_end, right_start, right_end)


def _anchors(left: Sequence[str], right: Sequence[str], gap: Gap) -> list[tuple[int, int]]:
    """Pairs of equal items that occur once on each side, ascending on both."""
    in_left = _once(left, gap.left_start, gap.left_end)
    in_right = _once(right, gap.right_start, gap.right_end)
    pairs = [(i, in_right[item]) for item, i in in_left.items() if item in in_right]
    # The longest run of pairs that ascends on the right, too.
    tails: list[int] = []
    last: list[int] = []
    before: list[int] = []
    for number, (_, position) in enumerate(pairs):
        at = bisect_left(tails, position)
        before.append(last[at - 1] if at else -1)
        tails[at : at + 1] = [position]
        last[at : at + 1] = [number]
    chain: list[tuple[int, int]] = []
    number = last[-1] if last else -1
    while number >= 0:
        chain.append(pairs[number])
        number = before[number]
    return chain[::-1]


def _once(items: Sequence[str], start: int, end: int) -> dict[str, int]:
    """The items that occur once in a range, with their positions, in order."""
    seen: dict[str, int] = {}
    for index in range(start, end):
        seen[items[index]] = -1 if items[index] in seen else index
    return {item: index for item, index in seen.items() if index >= 0}


def shared_start(left: str, right: str) -> int:
    """How many characters two texts have in common at their beginning."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def shared_end(left: str, right: str, limit: int) -> int:
    """How many characters two texts have in common at their end, at most `limit`."""
    low, high = 0, min(len(left), len(right), limit)
    while low < high:
        middle = (low + high + 1) // 2
        if left[len(left) - middle :] == right[len(right) - middle :]:
            low = middle
        else:
            high = middle - 1
    return low
