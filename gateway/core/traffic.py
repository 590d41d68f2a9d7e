"""What many requests show together: which text recurs, which changes before it: `Traffic`.

A request that wholly contains an earlier one at its beginning is as it should be: each turn of a
conversation extends the one before. Any other is compared with the earlier requests that have most
in common with it; what changed there and recurs behind is what the provider reads anew.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import xxhash

from gateway.core import volatile
from gateway.core.blocks import Prompt, Section
from gateway.core.drift import changes
from gateway.core.findings import Finding, Grade, Shape, What
from gateway.core.stability import Suspect, judge, suspects
from gateway.core.volatile import Kind, Pace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.core.difference import Change
    from gateway.core.volatile import Sighting

_NEIGHBOURS = 2
# The first messages are the application's own words, each a place of its own; any later turn is as
# good as another, and so is, as a whole, any tool.
_ANY = re.compile(r"(?<=^\$\.messages\[)([3-9]|\d\d+)(?=\])|(?<=^\$\.tools\[)\d+(?=\]$)")


def lint(prompts: Iterable[Prompt]) -> list[Finding]:
    """The findings of some requests in the order they were sent, the costliest first."""
    traffic = Traffic()
    for prompt in prompts:
        traffic.add(prompt)
    return traffic.findings()


class Traffic:
    """Requests as they come. Keeps every prompt: for files, not for a server."""

    def __init__(self) -> None:
        self._prompts: list[Prompt] = []
        self._found: list[tuple[int, Change]] = []
        self._families: list[int] = []
        """Of each request, the first one that it descends from."""
        self._starts: Counter[int] = Counter()
        """Of each family, the requests that extend no other."""
        self._suspects: list[list[Suspect]] = []
        self._prefixes: set[int] = set()
        self._whole: dict[int, int] = {}
        self._latest_with: dict[int, int] = {}
        self._latest_of: dict[tuple[str, ...], int] = {}
        self._memo: dict[str, list[Sighting]] = {}

    def add(self, prompt: Prompt) -> None:
        """Take in one more request."""
        index = len(self._prompts)
        self._prompts.append(prompt)
        self._suspects.append(suspects(prompt, self._find))
        chain = _chain(prompt)
        shared = sum(1 for b in prompt.blocks if b.section is not Section.MESSAGES)
        extended = next((self._whole[c] for c in chain[shared:] if c in self._whole), None)
        if extended is None:
            covered = next((n for n, c in enumerate(chain) if c not in self._prefixes), len(chain))
            family = self._compare(index, prompt, covered)
            self._families.append(family)
            self._starts[family] += 1
        else:
            self._families.append(self._families[extended])
        self._prefixes.update(chain)
        if len(chain) > shared:
            self._whole.setdefault(chain[-1], index)
        for fingerprint, _ in _fingerprints(prompt):
            self._latest_with[fingerprint] = index
        self._latest_of[_origin(prompt)] = index

    def _find(self, text: str) -> list[Sighting]:
        known = self._memo.get(text)
        if known is None:
            known = self._memo[text] = volatile.find(text)
        return known

    def _compare(self, index: int, prompt: Prompt, covered: int) -> int:
        """Note what changed towards the likest earlier request; returns the family."""
        best: list[Change] = []
        likest: int | None = None
        for other in self._neighbours(prompt):
            found = changes(self._prompts[other], prompt, covered, self._find)
            if likest is None or _lost(found) > _lost(best):
                best, likest = found, other
        self._found.extend((index, change) for change in best)
        return index if likest is None else self._families[likest]

    def _neighbours(self, prompt: Prompt) -> list[int]:
        """Earlier requests that have much in common with this one, and the last of its kind."""
        votes: Counter[int] = Counter()
        for fingerprint, size in _fingerprints(prompt):
            if fingerprint in self._latest_with:
                votes[self._latest_with[fingerprint]] += size
        found = [other for other, _ in votes.most_common(_NEIGHBOURS)]
        latest = self._latest_of.get(_origin(prompt))
        if latest is not None and latest not in found:
            found.append(latest)
        # Caches are per model: a change of model has nothing to lose.
        return [n for n in found if _origin(self._prompts[n])[:2] == _origin(prompt)[:2]]

    def findings(self) -> list[Finding]:
        """One finding for each kind and place, the costliest first."""
        merged: dict[tuple[What, str, Grade], Finding] = {}
        seen_at: set[tuple[What, str]] = set()
        for finding in self._seen():
            seen_at.add((finding.what, _place(finding.path)))
            _merge(merged, finding)
        is_constant = _Constants(self._prompts, self._suspects)
        for index, prompt in enumerate(self._prompts):
            for finding in judge(prompt, self._suspects[index], is_constant, index):
                if (finding.what, _place(finding.path)) not in seen_at:
                    _merge(merged, finding)
        return sorted(
            merged.values(), key=lambda f: (f.grade is Grade.NOTE, -f.lost_total, f.first, f.path)
        )

    def _seen(self) -> list[Finding]:
        """The changes that were seen, one finding for each request, kind and place."""
        by_request: dict[tuple[int, What, str], list[Change]] = {}
        for index, change in self._found:
            by_request.setdefault((index, change.what, _place(change.path)), []).append(change)
        often = Counter((self._families[i], what, place) for i, what, place in by_request)
        found = []
        for (index, what, place), changed in by_request.items():
            family = self._families[index]
            chances = self._starts[family] - 1
            rare = often[family, what, place] < _OFTEN * chances
            harmless = rare and what in _VARIANTS and not any(c.in_conversation for c in changed)
            grade = Grade.NOTE if harmless else Grade.FAULT
            first, lost = changed[0], _lost(changed)
            found.append(
                Finding(what, grade, first.path, first.excerpt, True, index, 1, lost, lost)
            )
        return found


# What changes in fewer of the requests that could show it is one of several versions in use.
_OFTEN = 0.5
_VARIANTS = frozenset({Shape.CHANGING_TEXT, Shape.TOOLS_CHANGED, Shape.SYSTEM_CHANGED, Kind.DATE})


def _lost(found: Iterable[Change]) -> int:
    return sum(change.lost_tokens for change in found)


class _Constants:
    """What several requests prove not to change, although it looks volatile."""

    def __init__(self, prompts: list[Prompt], found: list[list[Suspect]]) -> None:
        self._requests: Counter[str] = Counter()
        self._openings: defaultdict[str, set[str]] = defaultdict(set)
        for prompt, each in zip(prompts, found, strict=True):
            opening = "\n".join(b.text for b in prompt.opening())
            for line in {s.line for s in each}:
                self._requests[line] += 1
                self._openings[line].add(opening)

    def __call__(self, suspect: Suspect) -> bool:
        # What changes with the session may well be the same all through one conversation.
        if suspect.sighting.pace is Pace.SESSION:
            return len(self._openings[suspect.line]) > 1
        return self._requests[suspect.line] > 1


def _merge(merged: dict[tuple[What, str, Grade], Finding], finding: Finding) -> None:
    key = finding.what, _place(finding.path), finding.grade
    known = merged.get(key)
    if known is None:
        merged[key] = finding
        return
    merged[key] = replace(
        known,
        requests=known.requests + 1,
        lost_tokens=max(known.lost_tokens, finding.lost_tokens),
        lost_total=known.lost_total + finding.lost_total,
    )


def _place(path: str) -> str:
    return _ANY.sub("*", path)


def _origin(prompt: Prompt) -> tuple[str, ...]:
    return prompt.api, prompt.model, *sorted(tool.name for tool in prompt.tools())


def _fingerprints(prompt: Prompt) -> list[tuple[int, int]]:
    return [(_fingerprint(b.text, 0), len(b.text)) for b in prompt.blocks]


def _fingerprint(text: str, seed: int) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"), seed)


def _chain(prompt: Prompt) -> list[int]:
    """A fingerprint for each prefix, over all before it: each provider cache is of one model."""
    last = _fingerprint(f"{prompt.api}\0{prompt.model}", 0)
    chain: list[int] = []
    for block in prompt.blocks:
        last = _fingerprint(f"{block.role}\0{block.text}", last)
        chain.append(last)
    return chain
