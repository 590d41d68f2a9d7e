"""What an answer takes in Redis: key, expiry, metadata and compressed payload, with Redis's own share.

    python -m bench.redis_sizes

Answers are Chat Completions whose text is cut from recorded runs of a coding agent (tests/data/traces),
each from another place. They are stored as the gateway stores them, in a Redis (else Valkey) of their
own on this machine; the memory is what that server says that it uses, less its clients' buffers, before
and after.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import gzip
import json
import random
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.core.ledger import Amounts, Line
from gateway.core.model import Entry, Form, Usage
from gateway.store.codec import encode
from gateway.store.ledger import Batch
from gateway.store.ledger_redis import RedisLedger
from gateway.store.redis import RedisStore
from tests.helpers.redis_servers import RedisServer, binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

TEXTS = Path(__file__).parents[1] / "tests/data/traces/swe_agent_3_trajectories.jsonl.gz"
COUNT = 2_000
_TTL_S = 86_400.0


@functools.cache
def _text() -> str:
    def strings(value: Any) -> Iterator[str]:
        match value:
            case str():
                yield value
            case list():
                for each in value:
                    yield from strings(each)
            case dict():
                for each in value.values():
                    yield from strings(each)
            case _:
                pass

    with gzip.open(TEXTS, "rt", encoding="utf-8") as lines:
        found = (text for line in lines for text in strings(json.loads(line)))
        return "\n".join(dict.fromkeys(found))


def answer(size: int, number: int) -> bytes:
    """The JSON of a Chat Completion, of about `size` bytes; each number gives another one."""
    dice = random.Random(number)
    source = _text()
    whole: dict[str, Any] = {
        "id": f"chatcmpl-{dice.getrandbits(120):030x}",
        "object": "chat.completion",
        "created": 1_790_000_000 + number,
        "model": "gpt-4o-2024-08-06",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "", "refusal": None},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 900, "completion_tokens": size // 4, "total_tokens": 900},
    }
    room = max(1, size - len(json.dumps(whole)))
    # (Escapes take room too: cut until it fits.)
    start = dice.randrange(max(1, len(source) - room))
    text = source[start : start + room]
    whole["choices"][0]["message"]["content"] = text
    while (over := len(json.dumps(whole).encode()) - size) > 0 and text:
        text = text[: -max(1, over // 2)]
        whole["choices"][0]["message"]["content"] = text
    return json.dumps(whole).encode()


def embedding(number: int) -> bytes:
    """One input's vector of 1,536 numbers, as the official SDK asks for it (base64)."""
    dice = random.Random(number)
    vector = struct.pack("<1536f", *(dice.gauss(0, 1536**-0.5) for _ in range(1536)))
    told = {"id": "", "object": "embedding", "embedding": base64.b64encode(vector).decode()}
    return json.dumps(told).encode()


async def measure(url: str, payloads: Iterable[bytes]) -> tuple[float, float]:
    """Bytes of one of these answers, on average: as it is sent to Redis, and as Redis holds it.

    Empties the Redis at `url` first.
    """
    # What is measured is memory: a machine that is busy may take its time.
    store = RedisStore(url, deadline_s=5.0)
    await store.start()
    try:
        await store.execute(b"FLUSHALL", b"SYNC")
        before, sent, count = await _used(store), 0, 0
        for count, payload in enumerate(payloads, 1):
            key = random.Random(-count).randbytes(32)
            blob = encode(_entry(payload), key)
            sent += len(blob)
            await store.put(key, blob, _TTL_S)
        return sent / count, (await _used(store) - before) / count
    finally:
        await store.close()


def _entry(payload: bytes) -> Entry:
    return Entry(
        api="openai_chat",
        recorded=Form.BODY,
        forms=frozenset({Form.BODY, Form.STREAM}),
        payload=payload,
        stored_at=time.time(),
        ttl_s=_TTL_S,
        model="gpt-4o-2024-08-06",
        response_id=json.loads(payload)["id"],
        usage=Usage(uncached_input=900, output=len(payload) // 4),
        has_stream_usage=True,
    )


async def measure_ledger(url: str, lines: int = 2_000) -> float:
    """Bytes of one line of the ledger (day, provider, model, scope, cause), with five amounts.

    Empties the Redis at `url` first.
    """
    # What is measured is memory: a machine that is busy may take its time.
    store = RedisStore(url, deadline_s=5.0)
    await store.start()
    ledger = RedisLedger(store)
    amounts = Amounts(times=120, uncached=1_234_567, read=456_789, output=98_765, paid_pd=10**12)
    cells = {
        Line(
            "2026-11-22", "openai", f"gpt-4o-2024-08-{n % 50:02}", f"{n // 50:08x}", cause
        ): amounts
        for n in range(lines // 2)
        for cause in ("request", "response_hit")
    }
    try:
        await store.execute(b"FLUSHALL", b"SYNC")
        await ledger.add(Batch("bench", 1, cells))
        # (Its script takes memory of its own in the server, once.)
        day = store.named("{ledger}:2026-11-22")
        return int(await store.execute("MEMORY", "USAGE", day, "SAMPLES", "0")) / lines
    finally:
        await ledger.close()
        await store.close()


async def _used(store: RedisStore) -> int:
    """What Redis uses, but for the buffers of its clients: those shrink when nothing is asked."""
    said = await store.execute(b"INFO", b"memory")
    figures = dict(line.split(b":", 1) for line in said.splitlines() if b":" in line)
    return int(figures[b"used_memory"]) - int(figures[b"mem_clients_normal"])


def _answers(size: int, count: int) -> Iterator[bytes]:
    return (answer(size, number) for number in range(count))


CASES: dict[str, Callable[[int], Iterator[bytes]]] = {
    "512 bytes": functools.partial(_answers, 512),
    "2,048 bytes": functools.partial(_answers, 2_048),
    "8,192 bytes": functools.partial(_answers, 8_192),
    "32,768 bytes": functools.partial(_answers, 32_768),
    "an embedding": lambda count: (embedding(number) for number in range(count)),
}
"""By its name: so many different answers."""


def main() -> None:
    """Print the table of docs/how-to/redis-sizing.md."""
    executable = binary("redis") or binary("valkey")
    if executable is None:
        raise SystemExit("neither Redis nor Valkey is here")
    server = RedisServer(executable)
    server.start()
    try:
        print(
            "| An answer of | is sent as | takes in Redis | a GiB holds |\n"
            "| --- | ---: | ---: | ---: |"
        )
        for name, payloads in CASES.items():
            sent, held = asyncio.run(measure(server.url, payloads(COUNT)))
            print(f"| {name} | {sent:,.0f} | {held:,.0f} | {2**30 / held:,.0f} |")
        print(f"\na line of the ledger: {asyncio.run(measure_ledger(server.url)):,.0f} bytes")
    finally:
        server.close()


if __name__ == "__main__":
    main()
