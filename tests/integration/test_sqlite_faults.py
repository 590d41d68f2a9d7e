"""The SQLite file is deleted, replaced, damaged, locked, read-only or without room, with 64 clients
at work: no request fails, none gets a wrong answer, none waits beyond the deadline.

Without a memory tier, so that each lookup needs the file. The noise of the machine is measured in
the same run: before the fault, and by a gateway that has no store in a file.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import sys
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.helpers import fault_page
from tests.helpers.chat_answers import ask
from tests.helpers.crowd import Crowd, oracle, question
from tests.helpers.gateway_process import GatewayProcess
from tests.helpers.small_disk import SmallDisk, small_disk

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

CLIENTS = 64
CONTROL_CLIENTS = 16
DEADLINE_S = 0.05
RESUME_S = 2.5
KNOWN = 100
"""Questions that are asked before the fault; hit traffic asks them again and again."""
REQUESTS = 400
"""Of each phase, at least: about two seconds."""
DISK_MB = 24

# Takes the locks that SQLite's own recovery takes: no reader gets a snapshot meanwhile.
LOCK = """
import fcntl, sys, time
with open(sys.argv[1], "r+b") as shm:
    while True:
        try:
            fcntl.lockf(shm, fcntl.LOCK_EX | fcntl.LOCK_NB, 8, 120)
            break
        except OSError:
            time.sleep(0.0005)
    print("held", flush=True)
    sys.stdin.read()
"""


@dataclass
class Scene:
    """A gateway whose file is on a small disk of its own."""

    disk: SmallDisk
    other: SmallDisk
    link: Path
    """The folder that the gateway knows; it leads to one of the disks."""
    locker: asyncio.subprocess.Process | None = field(default=None)

    @property
    def file(self) -> Path:
        return self.link / "cache.sqlite"

    def lead_to(self, disk: SmallDisk) -> None:
        draft = self.link.with_name("draft")
        draft.symlink_to(disk.path, target_is_directory=True)
        draft.replace(self.link)


async def nothing(_: Scene) -> None:
    """This fault passes by itself."""


async def delete(scene: Scene) -> None:
    scene.file.unlink()


async def make_read_only(scene: Scene) -> None:
    """The file as it is now, on a read-only volume in the place of the one it was on."""
    copy = scene.other.path / "cache.sqlite"
    with closing(sqlite3.connect(scene.file)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    await asyncio.to_thread(scene.other.read_only, on=True)
    scene.lead_to(scene.other)


async def make_writable(scene: Scene) -> None:
    await asyncio.to_thread(scene.other.read_only, on=False)


async def fill(scene: Scene) -> None:
    await asyncio.to_thread(scene.disk.fill)


async def free(scene: Scene) -> None:
    scene.disk.free()


async def damage(scene: Scene) -> None:
    """All but the head of the file: the first page and the schema stay sound."""
    with closing(sqlite3.connect(scene.file)) as database:
        database.execute("PRAGMA wal_checkpoint(FULL)")
    size_bytes = scene.file.stat().st_size
    with scene.file.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size_bytes - 4096))


async def lock(scene: Scene) -> None:
    scene.locker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LOCK, f"{scene.file}-shm"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert scene.locker.stdout is not None
    assert await asyncio.wait_for(scene.locker.stdout.readline(), 20) == b"held\n"


async def unlock(scene: Scene) -> None:
    assert scene.locker is not None
    await scene.locker.communicate(b"")  # without input it leaves stdin open


async def damage_entries(scene: Scene) -> None:
    """One byte of each."""
    with closing(sqlite3.connect(scene.file, timeout=10)) as database, database:
        for rowid, blob in database.execute("SELECT rowid, blob FROM entries").fetchall():
            place = len(blob) // 2
            bad = blob[:place] + bytes([blob[place] ^ 0x20]) + blob[place + 1 :]
            database.execute("UPDATE entries SET blob = ? WHERE rowid = ?", (bad, rowid))


@dataclass(frozen=True)
class Fault:
    name: str
    begin: Callable[[Scene], Awaitable[None]]
    end: Callable[[Scene], Awaitable[None]] = nothing
    keeps: bool = True
    """What was stored before is served again afterwards."""
    blinds: bool = True
    """While it lasts, the file can't be asked."""


FAULTS = [
    Fault("file deleted", delete, keeps=False, blinds=False),
    Fault("read-only volume", make_read_only, make_writable),
    Fault("disk full (ENOSPC)", fill, free, blinds=False),
    Fault("file damaged", damage, keeps=False, blinds=False),
    Fault("locked beyond the deadline", lock, unlock),
    Fault("entries damaged", damage_entries, keeps=False, blinds=False),
]


def known(dice: random.Random) -> int:
    return dice.randrange(KNOWN)


def ever_new() -> Callable[[random.Random], int]:
    numbers = itertools.count(KNOWN)
    return lambda _: next(numbers)


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    with small_disk(folder / "one", DISK_MB) as disk, small_disk(folder / "two", DISK_MB) as other:
        made = Scene(disk, other, folder / "state")
        made.lead_to(disk)
        try:
            yield made
        finally:
            if made.locker is not None and made.locker.returncode is None:
                made.locker.kill()
                await made.locker.wait()


async def kept(api_url: str) -> int:
    """How many of the known questions have their answers in the cache."""
    found = 0
    async with aiohttp.ClientSession() as session:
        for number in range(KNOWN):
            body = question(number, stream=False)
            async with session.post(
                f"{api_url}/v1/chat/completions",
                json=body,
                headers={"authorization": "Bearer sk-test", "cache-control": "only-if-cached"},
            ) as response:
                found += response.status == 200
    return found


async def warm(api_url: str) -> None:
    """Ask the known questions until all are stored."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(30):
        while await kept(api_url) < KNOWN:
            for number in range(KNOWN):
                url = f"{api_url}/v1/chat/completions"
                await ask(session, url, question(number, stream=False))


async def works_again(api_url: str, first: int) -> float:
    """Seconds until an answer that was not known is stored and served."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with aiohttp.ClientSession() as session, asyncio.timeout(30):
        for number in itertools.count(first):
            for _ in range(3):
                url = f"{api_url}/v1/chat/completions"
                answer = await ask(session, url, question(number, stream=False))
                if answer.cache == "hit":
                    return loop.time() - began
                await asyncio.sleep(0.02)
    raise AssertionError


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("traffic", ["hits", "misses"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_no_request_fails_or_waits_and_the_file_comes_back(
    fault: Fault, traffic: str, tmp_path: Path
) -> None:
    # One quiet round is enough: other work on the machine can make any one of them late.
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        if await trial(fault, traffic, folder):
            return
    raise AssertionError("three of three rounds had requests that waited too long")


async def trial(fault: Fault, traffic: str, folder: Path) -> bool:
    print()
    async with oracle() as upstream_url, scene(folder) as here:
        upstreams = {"openai": {"base_url": upstream_url, "provider": "openai"}}
        store = {"url": f"sqlite:///{here.file}", "memory_bytes": 0}
        quiet = {"level": "warning"}
        tested = GatewayProcess({"store": store, "upstreams": upstreams, "log": quiet})
        control = GatewayProcess({"upstreams": upstreams})
        async with tested, control:
            await warm(tested.api_url)
            pick = known if traffic == "hits" else ever_new()
            crowd = Crowd(tested.api_url, pick)
            others = Crowd(control.api_url, ever_new())
            async with crowd.running(CLIENTS), others.running(CONTROL_CLIENTS):
                healthy = crowd.enter("healthy")
                await crowd.until(lambda: len(healthy.took_s) >= REQUESTS)
                await fault.begin(here)
                during = crowd.enter(fault.name)
                others.enter(fault.name)
                await crowd.until(lambda: len(during.took_s) >= REQUESTS)
                await fault.end(here)
                after = crowd.enter("after")
                again_s = await works_again(tested.api_url, 10_000_000)
                await crowd.until(lambda: len(after.took_s) >= REQUESTS / 2)
            survived = await kept(tested.api_url) if fault.keeps or traffic == "misses" else 0
            log = tested.output()
    print(healthy, during, after, *others.phases, sep="\n")
    assert crowd.faults == []
    assert others.faults == []
    assert again_s <= RESUME_S
    if fault.blinds:
        # Those that were on their way when it began may still be hits.
        assert during.hits <= CLIENTS
    if traffic == "hits":
        # A machine with too much other work may miss the deadline now and then.
        assert healthy.hits >= 0.8 * len(healthy.took_s)
        assert after.hits > 0
    if fault.keeps:
        assert survived == KNOWN
    if fault.name == "file damaged":
        assert "is damaged" in log
    if fault.begin is fill and traffic == "misses":
        assert "database or disk is full" in log
    # What a request takes on this machine without the fault, and how late it makes the unluckiest.
    quiet_phases = [healthy, *others.phases]
    usual_s = max(phase.percentile(50) for phase in quiet_phases)
    noise_s = max(max(phase.took_s) for phase in quiet_phases) - usual_s
    if during.percentile(99) - usual_s > DEADLINE_S + noise_s:
        return False
    hits = f"{during.hits} of {len(during.took_s)}"
    row = fault_page.Row(
        fault.name,
        traffic,
        hits if traffic == "hits" else "-",
        during.percentile(50) * 1000,
        during.percentile(99) * 1000,
        max(during.took_s) * 1000,
        len(crowd.faults),
        again_s,
        "nothing" if fault.keeps else "what was stored before",
    )
    fault_page.record("SQLite", row)
    return True


def test_the_page_has_every_fault() -> None:
    expected = {(fault.name, traffic) for fault in FAULTS for traffic in ("hits", "misses")}
    assert fault_page.cases("SQLite") == expected
