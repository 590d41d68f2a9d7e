"""The last requests, as their records tell of them: `Recent`, bounded in number, and so in bytes.

Rule 1: what is kept is what `RequestRecord` has: no content, no credentials.
Rule 2: a request pays for a place in a queue; who looks for one pays for looking, in portions.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

from gateway.core.minutes import Minutes

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.records import RequestRecord

KEPT = 10_000
RECORD_BYTES = 2300
"""What a record takes with its steps and its place; a test holds it to what the process really pays."""
LARGEST_BYTES = RECORD_BYTES + 2400
"""With the longest path and model that are remembered (`gateway.exchange`), in four bytes a letter."""
MOST = 64 * 1024 * 1024 // LARGEST_BYTES
"""More than so many would take more than 64 MiB."""
PORTION = 1000
"""Records that are looked at in one go: about a millisecond."""

_MOST_NAMED = 100
_TEXTS = (
    *("request_id", "path", "api", "upstream", "provider", "model", "scope", "key_hex8"),
    *("plan", "backend", "trace_id", "error", "aborted"),
)
_BY = ("result", "reason", "stored", "model", "upstream", "scope", "backend")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which requests; what is empty doesn't matter."""

    text: str = ""
    """Anywhere in the request's words, whatever its case."""
    result: str = ""
    reason: str = ""
    stored: str = ""
    model: str = ""
    upstream: str = ""
    scope: str = ""
    backend: str = ""
    status: str = ""
    """`404`; `5xx` for all that begin with 5; `error` for what failed or was broken off."""
    cause: str = ""
    """Of the provider's prompt cache: a `MissCause`, or `any`."""

    def tests(self) -> list[Callable[[RequestRecord], bool]]:
        """All of them must hold."""
        found: list[Callable[[RequestRecord], bool]] = []
        for name in _BY:
            value = getattr(self, name)
            if value:
                found.append(_has(name, value))
        if self.status:
            found.append(_status(self.status))
        if self.cause:
            found.append(_cause(self.cause))
        if self.text:
            found.append(_text(self.text.casefold()))
        return found


class Found(NamedTuple):
    """A portion of what was looked for, the latest first."""

    records: list[tuple[int, RequestRecord]]
    """With their numbers."""
    next: int
    """The number to go on before; 0: there is no more."""


@dataclass(slots=True)
class Served:
    """What a replica did for the requests that are remembered. Tokens of prompts."""

    requests: int = 0
    input: int = 0
    read: int = 0


class Recent:
    """What is remembered. `version` rises with every request."""

    def __init__(self, kept: int = KEPT) -> None:
        self._records: deque[RequestRecord] = deque(maxlen=min(kept, MOST))
        self.served: dict[tuple[str, str], Served] = {}
        """By upstream and replica; of those that none of the requests went to, nothing."""
        self.version = 0
        self.minutes = Minutes()

    def __repr__(self) -> str:
        return f"<Recent {len(self._records)} of {self.version} requests>"

    def __len__(self) -> int:
        """Records that are kept."""
        return len(self._records)

    def add(self, record: RequestRecord) -> None:
        """A request is over."""
        self.version += 1
        records = self._records
        if len(records) == records.maxlen and records and records[0].backend is not None:
            self._serve(records[0], -1)
        records.append(record)
        if record.backend is not None and records:
            self._serve(record, 1)
        self.minutes.add(record)

    def _serve(self, record: RequestRecord, by: int) -> None:
        where = record.upstream or "", record.backend or ""
        served = self.served.get(where)
        if served is None:
            served = self.served[where] = Served()
        served.requests += by
        if record.usage is not None:
            served.input += by * record.usage.input
            served.read += by * record.usage.cache_read
        if not served.requests:
            del self.served[where]

    def find(self, request_id: str) -> tuple[int, RequestRecord] | None:
        """The latest request of this id, if it is still remembered."""
        for back, record in enumerate(reversed(self._records)):
            if record.request_id == request_id:
                return self.version - back, record
        return None

    def look(self, wanted: Wanted, *, before: int = 0, after: int = 0, most: int = 100) -> Found:
        """Up to `most` of the wanted, the latest first, from those with numbers below `before` (0:
        from the latest) and above `after`. Looks at PORTION of them: call again with `next`.
        """
        tests = wanted.tests()
        records = self._records
        first = self.version - len(records) + 1
        oldest = max(first, after + 1)
        number = min(before - 1, self.version) if before else self.version
        last = max(oldest, number - PORTION + 1)
        found: list[tuple[int, RequestRecord]] = []
        while number >= last and len(found) < most:
            record = records[number - first]
            if all(test(record) for test in tests):
                found.append((number, record))
            number -= 1
        return Found(found, number + 1 if number >= oldest else 0)

    def names(self, counts: dict[str, Counter[str]], before: int = 0) -> int:
        """Count what the records of one PORTION can be told apart by into `counts`; returns where
        to go on, as `Found.next`.
        """
        found = self.look(Wanted(), before=before, most=PORTION)
        for name in _BY:
            count = counts.setdefault(name, Counter())
            count.update(str(value) for _, each in found.records if (value := getattr(each, name)))
        return found.next


def most_common(counts: dict[str, Counter[str]]) -> dict[str, list[str]]:
    """The names of each kind, the most frequent first, of many only some."""
    return {kind: [name for name, _ in c.most_common(_MOST_NAMED)] for kind, c in counts.items()}


WANTED = tuple(each.name for each in fields(Wanted))
"""What can be asked for, by name."""


def _has(name: str, value: str) -> Callable[[RequestRecord], bool]:
    return lambda record: getattr(record, name) == value


def _status(wanted: str) -> Callable[[RequestRecord], bool]:
    if wanted == "error":
        return lambda record: bool(record.error or record.aborted or record.status >= 400)
    if wanted.endswith("xx"):
        return lambda record: f"{record.status // 100}xx" == wanted
    return lambda record: str(record.status) == wanted


def _cause(wanted: str) -> Callable[[RequestRecord], bool]:
    def holds(record: RequestRecord) -> bool:
        outcome = record.prompt_cache
        if outcome is None or outcome.miss is None:
            return False
        return wanted in {"any", outcome.miss.cause}

    return holds


def _text(wanted: str) -> Callable[[RequestRecord], bool]:
    def holds(record: RequestRecord) -> bool:
        return any(wanted in (getattr(record, name) or "").casefold() for name in _TEXTS)

    return holds
