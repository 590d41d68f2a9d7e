"""The door: an exact repeat of a request pays neither parsing nor canonicalisation.

A memo, bounded in bytes, from BLAKE3 over the *raw* request (and the generation of the config) to
what was found out about it: the identities, and what is needed to serve a hit. It holds no content.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core.identity import digest
from gateway.store.eviction import ScanProof

if TYPE_CHECKING:
    from gateway.core.model import Ask, Pairs, Reason
    from gateway.upstream.choice import Endpoint
    from gateway.wire.openai_embeddings import Batch


@dataclass(frozen=True, slots=True)
class Known:
    """What the full way through parsing found out about a request."""

    endpoint: Endpoint
    identities: tuple[bytes, ...]
    """The identity under each secret, the writing one first; empty for a pass."""
    ask: Ask | None
    pass_reason: Reason | None
    who: bytes
    """The credential at this endpoint, hashed: what acceptance is remembered by."""
    batch: Parts | None = None
    """Set for a request that is answered part by part; then `identities` are of the whole."""
    keys: tuple[bytes, ...] = ()
    """Where an entry for it may lie, but for samples: under each identity, with the other form or
    alone. Empty where the identities are."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A batch of embeddings and the identities of its units, in their order, and of its frame."""

    batch: Batch
    units: tuple[tuple[bytes, ...], ...]
    frame: tuple[bytes, ...]


ENTRY_BYTES = 1408
"""What an ordinary request takes, everything included; one with a long history of tool calls takes
the room of several. A test holds it to what the process really pays.
"""

_ID_BYTES = 192
_SHORT = 64


def _size(known: Known) -> int:
    # The first identity is in the entry's bytes; there is one more for each secret in use.
    size = ENTRY_BYTES + _ID_BYTES * max(0, len(known.identities) - 1)
    ask = known.ask
    if ask is None:
        return size
    if not ask.history_ids and len(ask.model) <= _SHORT:
        return size
    # Names and ids are as long as the client likes; Python takes up to four bytes a character.
    longer = sum(max(0, len(text) - _SHORT) for text in (ask.model, *ask.history_ids))
    return size + _ID_BYTES * len(ask.history_ids) + 4 * longer


class Door:
    """Remembers about `entries` distinct requests, in 1.4 KiB for each; 0 remembers none."""

    def __init__(self, entries: int, generation: bytes) -> None:
        """`generation` stands for all that is known beside the request: the config's."""
        self._memo: ScanProof[Known] | None = ScanProof(entries * ENTRY_BYTES) if entries else None
        self._generation = generation

    @property
    def size_bytes(self) -> int:
        """Bytes that the memo takes now."""
        return 0 if self._memo is None else self._memo.used_bytes

    def key(
        self, target: str, who: bytes, secrets_generation: int, headers: Pairs, body: bytes
    ) -> bytes | None:
        """The memo key of a raw request; None when the door is closed."""
        if self._memo is None:
            return None
        return digest(
            (
                self._generation,
                secrets_generation.to_bytes(8, "big"),
                target.encode("utf-8", "surrogateescape"),
                who,
                # Raw and in order: what differs here only costs the full way. No header holds a
                # line end, so that no two lists of them make the same text.
                "\n".join([f"{n}:{v}" for n, v in headers]).encode("utf-8", "surrogateescape"),
                body,
            )
        )

    def close(self) -> None:
        """Forget everything, and remember nothing more."""
        self._memo = None

    def get(self, key: bytes | None) -> Known | None:
        """What is known of the request, or None."""
        return None if key is None or self._memo is None else self._memo.get(key)

    def put(self, key: bytes | None, known: Known) -> None:
        """Remember it."""
        if key is None or self._memo is None or known.batch is not None:
            # The units of a batch hold their texts: that would be content.
            return
        size = _size(known)
        if size <= self._memo.budget:
            self._memo.put(key, known, size)
