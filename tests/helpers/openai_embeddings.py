"""OpenAI's embeddings for tests: a provider that spells its answers oddly, and a proxy that does
with a dict what ours does with a store.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.core.mint import Mint
from gateway.providers.openai_other import EMBEDDINGS
from gateway.providers.unknown import UNKNOWN
from gateway.wire.openai_embeddings import remaining, understand
from gateway.wire.openai_embeddings_answer import answer_parts, assemble, frame_of

if TYPE_CHECKING:
    from gateway.core.model import Answer
    from gateway.providers.base import ApiRules
    from gateway.wire.openai_embeddings import Batch

UNKNOWN_EMBEDDINGS: ApiRules = UNKNOWN.apis["openai_embeddings"]
NOW_S = 1_800_000_000


def request(given: Any, **changes: Any) -> dict[str, Any]:
    """A plain request with members added or replaced."""
    return {"model": "text-embedding-3-small", "input": given, **changes}


def batch_of(body: bytes | dict[str, Any], rules: ApiRules = EMBEDDINGS) -> Batch:
    """The request, understood."""
    return understand(body if isinstance(body, bytes) else json.dumps(body).encode(), rules)


def tokens_of(given: Any) -> int:
    """What the provider counts."""
    return len(given) if isinstance(given, list) else 1 + len(given) // 4


def vector(given: Any) -> list[float]:
    """Depends on nothing but the input."""
    text = json.dumps(given)
    return [len(text), sum(map(ord, text)), *map(ord, text[-3:])]


def spelled(given: Any, index: int, encoding: str | None) -> str:
    """One embedding, in a spelling that no JSON library would choose again."""
    numbers = ", ".join(f"-0.0{int(n)}0e-1" for n in vector(given))
    value = f"[{numbers}]" if encoding != "base64" else f'"{"".join(f"{int(n):04x}" for n in vector(given))}=="'  # fmt: skip
    return f'{{ "object": "embedding", "x":1.50, "index": {index} ,"embedding": {value}}}'


@dataclass
class Provider:
    """Answers requests, and remembers them."""

    extra: str = ""
    """More members of the document, as JSON text that ends in a comma."""
    model: str = "text-embedding-3-small"
    asked: list[bytes] = field(default_factory=list)
    billed: int = 0

    def answer(self, body: bytes) -> bytes:
        """The answer as sent."""
        self.asked.append(body)
        value = json.loads(body)
        given = value["input"]
        alone = isinstance(given, str) or isinstance(given[0], int)
        inputs = [given] if alone else given
        spent = sum(map(tokens_of, inputs))
        self.billed += spent
        data = " ,\n".join(
            spelled(each, i, value.get("encoding_format")) for i, each in enumerate(inputs)
        )
        usage = f'{{"prompt_tokens": {spent}, "total_tokens":{spent} }}'
        return (
            f'{{\n "object":"list",{self.extra}"data" : [ {data} ],'
            f'"model": "{self.model}", "usage": {usage}, "z":null}}\n'
        ).encode()


@dataclass
class Proxy:
    """What the proxy does with a batch, step by step; its store is a dict."""

    provider: Provider
    rules: ApiRules = EMBEDDINGS
    store: dict[bytes, bytes] = field(default_factory=dict)
    hit: int = 0
    miss: int = 0

    def ask(self, body: dict[str, Any] | bytes) -> bytes:
        """The answer that the client gets. `hit` and `miss` say what the header would."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        batch = understand(raw, self.rules)
        found = {u.canonical: self.store[u.canonical] for u in batch.units if u.canonical in self.store}  # fmt: skip
        missing = batch.missing(found.keys())
        self.miss = sum(batch.units[position].size for position in missing)
        self.hit = sum(unit.size for unit in batch.units) - self.miss
        if not missing:
            parts = [found[unit.canonical] for unit in batch.units]
            mint = Mint(NOW_S, b"seed")
            framed = assemble(batch.units, parts, self.store.get(batch.frame), mint)
            whole = framed or assemble(batch.units, parts, None, mint)
            return self.ask_whole(batch, raw) if whole is None else whole.payload
        if len(missing) == len(batch.units):
            return self.ask_whole(batch, raw)
        document = self.provider.answer(remaining(raw, batch, missing))
        units = [batch.units[position] for position in missing]
        fresh = answer_parts(document, units)
        if fresh is None:
            return self.ask_whole(batch, raw)
        by_unit = found | {u.canonical: a.payload for u, a in zip(units, fresh, strict=True)}
        parts = [by_unit[unit.canonical] for unit in batch.units]
        joined = assemble(batch.units, parts, document, None)
        if joined is None:
            return self.ask_whole(batch, raw)
        self.keep(batch, missing, fresh, joined.payload)
        return joined.payload

    def ask_whole(self, batch: Batch, raw: bytes) -> bytes:
        """Ask for all of it; what comes back is passed on untouched."""
        self.hit, self.miss = 0, sum(unit.size for unit in batch.units)
        document = self.provider.answer(raw)
        parts = answer_parts(document, batch.units)
        if parts is not None:
            self.keep(batch, range(len(batch.units)), parts, document)
        return document

    def keep(self, batch: Batch, positions: Any, parts: list[Answer], document: bytes) -> None:
        """Store each unit, and the frame of a batch."""
        for position, part in zip(positions, parts, strict=True):
            self.store[batch.units[position].canonical] = part.payload
        if len(batch.units) > 1:
            self.store[batch.frame] = frame_of(document).payload
