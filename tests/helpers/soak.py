"""Mixed traffic for as long as one likes, and whether the gateway stays as it is meanwhile.

    python -m tests.helpers.soak --minutes 30

Hits, misses, streams, large bodies, other routes, refusals, upstreams that fail or break off, bodies
that are no JSON, clients that hang up. Once a second memory, tasks and descriptors of the gateway's
process are noted; after a warm-up of a third, the line through them (Theil-Sen: the median of all
slopes, which single peaks don't bend) must not rise by more than `ALLOWED` over the rest.

What is bounded fills with requests, not with time: where a machine is slow the warm-up goes on until
there were `FILLED` of them, at the same pace, and is followed by as long a rest as ever.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import aiohttp
import orjson
from aiohttp import web

from gateway.lab.stub_openai import completion, reply, usage
from tests.helpers.gateway_process import GatewayProcess
from tests.helpers.scripted_upstream import serve_app

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

MIB = 1 << 20
CLIENTS = 24
PAUSE_S = 0.05
QUIET_S = 3.0

FILLED = 10_000
"""Requests after which the memory tier, the file, the door and what is remembered of prompts are full,
and turn over. What is remembered of a minute, and keys of prompts, go on to grow by a mebibyte."""
LONGEST_WARM_UP_S = 120.0

# Loaded by the gateway's interpreter before anything else: says how many tasks there are, if asked,
# and how much of what the C library took from the system nobody uses (mallinfo2).
COUNTER = """
import asyncio, ctypes, os, signal
class Info(ctypes.Structure):
    _fields_ = [(f"f{n}", ctypes.c_size_t) for n in range(10)]
try:
    info = ctypes.CDLL(None).mallinfo2
    info.restype = Info
except (AttributeError, OSError):
    info = Info
def tell(*_):
    try:
        tasks = len(asyncio.all_tasks())
    except RuntimeError:
        tasks = 0
    os.write(2, b"tasks %d free %d\\n" % (tasks, info().f8))
signal.signal(signal.SIGUSR2, tell)
"""


class Sample(NamedTuple):
    """The process at one moment."""

    at_s: float
    memory_bytes: int
    held_bytes: int
    """Without what the C library has in hand: its heap is full of holes, and has more of them when
    sizes come that it has not seen; what a leak takes is never free again.
    """
    tasks: int
    descriptors: int
    """In the lines drawn through them: those beyond one for each task."""


ALLOWED = Sample(0, 6 * MIB, 4 * MIB, 4, 4)
"""How much each may rise from the end of the warm-up to the end."""


class Soaked(NamedTuple):
    """What came of it."""

    samples: list[Sample]
    rises: Sample
    """By the line through the samples, from the end of the warm-up on."""
    left: int
    """Tasks when it was quiet again, beyond those at the start."""
    requests: dict[str, int]
    warm_s: float = 0.0
    """How long the warm-up took."""

    def faults(self) -> list[str]:
        """What grew."""
        names = Sample._fields[1:]
        grown = [
            f"{name} rose by {rise:.1f}, allowed are {allowed}"
            for name, rise, allowed in zip(names, self.rises[1:], ALLOWED[1:], strict=True)
            if rise > allowed
        ]
        return [*grown, f"{self.left} tasks are left"] if self.left > 0 else grown

    def __str__(self) -> str:
        first, last = self.samples[0], self.samples[-1]
        return (
            f"{sum(self.requests.values())} requests in {last.at_s:.0f} s, "
            f"{self.warm_s:.0f} s of them warm-up: {self.requests}\n"
            f"memory {first.memory_bytes / MIB:.1f} -> {last.memory_bytes / MIB:.1f} MiB, "
            f"line {self.rises.memory_bytes / MIB:+.2f} MiB, "
            f"held {first.held_bytes / MIB:.1f} -> {last.held_bytes / MIB:.1f} MiB, "
            f"line {self.rises.held_bytes / MIB:+.2f} MiB; "
            f"tasks {first.tasks} -> {last.tasks}, line {self.rises.tasks:+.1f}; "
            f"descriptors {first.descriptors} -> {last.descriptors}, "
            f"line {self.rises.descriptors:+.1f}; {self.left} tasks left in the end"
        )


async def soak(seconds: float) -> Soaked:
    """Run the traffic for so long."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sitecustomize.py").write_text(COUNTER)
        async with serve_app(_upstream()) as upstream:
            config = {
                "upstreams": {"openai": {"base_url": f"{upstream}/v1", "provider": "openai"}},
                # Small, so that they are full, and turning over, when the warm-up ends.
                "store": {
                    "url": f"sqlite:///{folder}/cache.sqlite",
                    "memory_bytes": 4 * MIB,
                    "sqlite_bytes": 8 * MIB,
                },
                "cache": {"door_entries": 500},
                "prompt_cache": {"tree_bytes": 2 * MIB},
                "admin": {"recent_requests": 1000},
                "log": {"level": "error"},
            }
            async with GatewayProcess(config, {"PYTHONPATH": folder}) as gateway:
                return await _soaked(gateway, seconds)


async def _soaked(gateway: GatewayProcess, seconds: float) -> Soaked:
    loop = asyncio.get_running_loop()
    began = loop.time()
    requests: dict[str, int] = {}
    samples: list[Sample] = []
    warm_s = 0.0
    over = asyncio.Event()
    idle = await _sample(gateway, 0)

    async def watch() -> None:
        nonlocal warm_s
        while (at_s := loop.time() - began) < warm_s + seconds * 2 / 3 or not warm_s:
            samples.append(await _sample(gateway, at_s))
            filled = sum(requests.values()) >= FILLED or at_s > LONGEST_WARM_UP_S
            if not warm_s and at_s >= seconds / 3 and filled:
                warm_s = at_s
            await asyncio.sleep(1)
        over.set()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(watch())
        for number in range(CLIENTS):
            tasks.create_task(_client(gateway.api_url, number, over, requests))
    await asyncio.sleep(QUIET_S)
    after = await _sample(gateway, loop.time() - began)
    # A request under way holds a task and a connection to the upstream, and there are more of them
    # when something else keeps the machine busy: the line is drawn through what is beyond that.
    judged = [s._replace(descriptors=s.descriptors - s.tasks) for s in samples if s.at_s >= warm_s]
    rises = Sample(*(_rise(judged, place) for place in range(len(Sample._fields))))  # type: ignore[arg-type] # rises are fractions
    return Soaked(samples, rises, after.tasks - idle.tasks, requests, warm_s)


async def _sample(gateway: GatewayProcess, at_s: float) -> Sample:
    process = Path(f"/proc/{gateway.pid}")
    seen = sum(line.startswith("tasks ") for line in gateway.lines)
    del gateway.lines[: -50 if seen > 50 else 0]
    before = len(gateway.lines)
    assert gateway.pid is not None
    os.kill(gateway.pid, signal.SIGUSR2)
    async with asyncio.timeout(20):
        while not (new := [x for x in gateway.lines[before:] if x.startswith("tasks ")]):  # noqa: ASYNC110 - another process answers
            await asyncio.sleep(0.005)
    pages = int((process / "statm").read_text().split()[1])
    memory = pages * os.sysconf("SC_PAGE_SIZE")
    _, tasks, _, free = new[-1].split()
    descriptors = len(os.listdir(process / "fd"))  # noqa: PTH208 - counts only
    return Sample(at_s, memory, memory - int(free), int(tasks), descriptors)


def _rise(samples: Sequence[Sample], place: int) -> float:
    """Of the line through one of their figures, over their whole length."""
    thinned = samples[:: max(1, len(samples) // 300)]
    slopes = [
        (b[place] - a[place]) / (b.at_s - a.at_s) for a, b in itertools.combinations(thinned, 2)
    ]
    return statistics.median(slopes) * (samples[-1].at_s - samples[0].at_s)


# --- what the clients do -------------------------------------------------------------------------


async def _client(api_url: str, number: int, over: asyncio.Event, requests: dict[str, int]) -> None:
    dice = random.Random(number)
    fresh = itertools.count(number, CLIENTS)
    kinds = list(_KINDS)
    async with aiohttp.ClientSession(api_url) as session:
        while not over.is_set():
            kind = dice.choices(kinds, [_KINDS[each][0] for each in kinds])[0]
            await _KINDS[kind][1](session, dice, next(fresh))
            requests[kind] = requests.get(kind, 0) + 1
            await asyncio.sleep(dice.uniform(0, 2 * PAUSE_S))


def _body(words: str, **more: object) -> bytes:
    messages = [{"role": "user", "content": words}]
    return orjson.dumps({"model": "gpt-4o", "temperature": 0, "messages": messages, **more})


async def _ask(session: aiohttp.ClientSession, body: bytes, expected: int = 200) -> None:
    async with session.post("/v1/chat/completions", data=body, headers=_HEADERS) as response:
        got = await response.read()
        assert response.status == expected, (response.status, got[:300])
        assert got


_HEADERS = {"authorization": "Bearer sk-test", "content-type": "application/json"}


async def _hit(session: aiohttp.ClientSession, dice: random.Random, _: int) -> None:
    await _ask(session, _body(f"popular {dice.randrange(50)}", stream=dice.random() < 0.5))


async def _miss(session: aiohttp.ClientSession, dice: random.Random, number: int) -> None:
    await _ask(session, _body(f"new {number}", stream=dice.random() < 0.5))


async def _large(session: aiohttp.ClientSession, dice: random.Random, number: int) -> None:
    words = f"large {number} " + dice.randbytes(4).hex() * 32_000
    await _ask(session, _body(words, stream=dice.random() < 0.5))


async def _refused(session: aiohttp.ClientSession, _: random.Random, number: int) -> None:
    await _ask(session, _body(f"refuse {number}"), expected=429)


async def _no_json(session: aiohttp.ClientSession, _: random.Random, number: int) -> None:
    await _ask(session, b'{"refuse %d' % number, expected=429)


async def _broken(session: aiohttp.ClientSession, _: random.Random, number: int) -> None:
    with suppress(aiohttp.ClientError):
        await _ask(session, _body(f"break {number}", stream=True))
        raise AssertionError("an answer that broke off was taken for a whole one")


async def _hang_up(session: aiohttp.ClientSession, _: random.Random, number: int) -> None:
    body = _body(f"slow {number}", stream=True)
    async with session.post("/v1/chat/completions", data=body, headers=_HEADERS) as response:
        await response.content.readany()
        response.close()


async def _models(session: aiohttp.ClientSession, _: random.Random, number: int) -> None:
    async with session.get(f"/v1/models/{number}", headers=_HEADERS) as response:
        assert response.status == 200
        await response.read()


_KINDS: dict[
    str, tuple[int, Callable[[aiohttp.ClientSession, random.Random, int], Awaitable[None]]]
] = {
    "hit": (40, _hit),
    "miss": (25, _miss),
    "large": (5, _large),
    "refused": (5, _refused),
    "no json": (5, _no_json),
    "broken": (5, _broken),
    "hang-up": (5, _hang_up),
    "models": (10, _models),
}


def _upstream() -> web.Application:
    async def chat(request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        if b"refuse" in raw:
            return web.json_response({"error": {"message": "too many"}}, status=429)
        body = orjson.loads(raw)
        words = body["messages"][0]["content"]
        message = {"role": "assistant", "content": words[:3000] + " answered", "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        sent = reply(completion("gpt-4o", [choice], usage(9, 5)), body)
        if not sent.events:
            return web.Response(body=sent.body, headers={"content-type": sent.content_type})
        out = web.StreamResponse(headers={"content-type": sent.content_type})
        await out.prepare(request)
        for event in sent.events:
            await out.write(event)
            if words.startswith("slow"):
                await asyncio.sleep(0.05)
            if words.startswith("break"):
                assert request.transport is not None
                request.transport.abort()
                break
        return out

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"id": request.match_info["name"], "object": "model"})

    app = web.Application(client_max_size=4 * MIB)
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/v1/models/{name}", models)
    return app


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    began = time.monotonic()
    soaked = asyncio.run(soak(parser.parse_args().minutes * 60))
    print(soaked)
    for at in range(0, len(soaked.samples), max(1, len(soaked.samples) // 30)):
        sample = soaked.samples[at]
        print(
            f"{sample.at_s:7.0f} s {sample.memory_bytes / MIB:7.1f} MiB, "
            f"held {sample.held_bytes / MIB:6.1f} "
            f"{sample.tasks:5} tasks {sample.descriptors:5} descriptors"
        )
    faults = soaked.faults()
    print(f"{time.monotonic() - began:.0f} s;", "; ".join(faults) or "nothing grew")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
