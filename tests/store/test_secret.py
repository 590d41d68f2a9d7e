from __future__ import annotations

import asyncio
import logging
import multiprocessing
import stat
from typing import TYPE_CHECKING

import pytest
import redis.asyncio
from blake3 import blake3

from gateway.store import secret
from gateway.store.base import StoreUnavailable
from gateway.store.secret import FileSecret, ScopeSecrets, derive, scope_secrets

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.synchronize import Barrier
    from pathlib import Path

    from tests.helpers.redis_servers import RedisServer

PATIENT_S = 10.0


class Source:
    """A place that is away as often as told."""

    may_forget = False

    def __init__(self, text: str, failures: int) -> None:
        self.text = text
        self.failures = failures
        self.loads = 0
        self.closed = False

    async def load(self) -> str:
        self.loads += 1
        if self.loads <= self.failures:
            raise StoreUnavailable("away")
        return self.text

    async def close(self) -> None:
        self.closed = True


async def started(secrets: ScopeSecrets) -> tuple[bytes, ...]:
    await secrets.start()
    await secrets.close()
    return secrets.current


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENT_S):
        while not met():  # noqa: ASYNC110 - nobody tells when a secret changes
            await asyncio.sleep(0.005)


def names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


def test_a_key_is_derived_for_this_use_alone() -> None:
    key = derive("correct horse")
    assert key == blake3(b"correct horse", derive_key_context=secret.CONTEXT).digest()
    assert len(key) == 32
    assert key != blake3(b"correct horse").digest()


@pytest.mark.parametrize("url", ["memory://", "sqlite:///nowhere/x.sqlite", "redis://nowhere"])
async def test_configured_secrets_win_in_their_order_and_nothing_is_fetched(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    secrets = scope_secrets(("new", "old"), url, "warmgate:")
    assert await started(secrets) == (derive("new"), derive("old"))
    assert secrets.generation == 0
    assert names(tmp_path) == []


async def test_memory_gets_a_random_one() -> None:
    one, other = (scope_secrets((), "memory://", "warmgate:") for _ in range(2))
    assert len(one.current) == 1
    assert await started(one) != await started(other)


async def test_beside_the_sqlite_file_it_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state/cache.sqlite"
    first = await started(scope_secrets((), url, "warmgate:"))
    assert await started(scope_secrets((), url, "warmgate:")) == first
    (file,) = (tmp_path / "state").iterdir()
    assert file.name == "cache.sqlite.secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert first == (derive(file.read_text().strip()),)


def _load(path: Path, together: Barrier, found: multiprocessing.Queue[str]) -> None:
    together.wait(PATIENT_S)
    found.put(asyncio.run(FileSecret(path).load()))


def test_processes_that_start_together_get_the_same_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    together, found = context.Barrier(4), context.Queue()
    path = tmp_path / "cache.sqlite.secret"
    processes = [context.Process(target=_load, args=(path, together, found)) for _ in range(4)]
    for process in processes:
        process.start()
    texts = {found.get(timeout=30) for _ in processes}
    for process in processes:
        process.join(PATIENT_S)
    assert texts == {path.read_text().strip()}
    assert names(tmp_path) == ["cache.sqlite.secret"]


@pytest.mark.parametrize("content", ["", "short\n", "caf\u00e9" * 10])
async def test_a_file_without_a_secret_is_said_and_not_overwritten(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "cache.sqlite.secret"
    path.write_text(content)
    with pytest.raises(StoreUnavailable, match=r"cache\.sqlite\.secret"):
        await FileSecret(path).load()
    assert path.read_text() == content


async def test_a_file_that_others_can_read_is_used_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cache.sqlite.secret"
    path.write_text("correct horse battery\n")
    path.chmod(0o640)
    assert await FileSecret(path).load() == "correct horse battery"
    assert "0600" in caplog.text


async def test_where_it_cannot_be_kept_a_random_one_serves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    url = f"sqlite:///{tmp_path}/state/cache.sqlite"
    one, other = (scope_secrets((), url, "warmgate:") for _ in range(2))
    assert await started(one) != await started(other)
    assert one.generation == 0
    assert "random" in caplog.text


async def test_a_source_that_is_away_is_tried_again_and_the_change_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(secret, "RETRY_S", 0.001)
    source = Source("text", failures=3)
    secrets = ScopeSecrets((), source)
    await secrets.start()
    (meanwhile,) = secrets.current
    assert len(meanwhile) == 32
    assert secrets.generation == 0
    assert secrets._fetching is not None
    await asyncio.wait_for(secrets._fetching, PATIENT_S)
    assert secrets.current == (derive("text"),)
    assert secrets.generation == 1
    assert len(caplog.records) == 1
    await secrets.close()
    assert source.closed


async def test_closing_ends_the_trying() -> None:
    secrets = ScopeSecrets((), Source("text", failures=1_000_000))
    await secrets.start()
    async with asyncio.timeout(PATIENT_S):
        await secrets.close()
    assert secrets._fetching is not None
    assert secrets._fetching.done()


async def test_replicas_that_share_a_redis_share_the_secret(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    replicas = [scope_secrets((), redis_server.url, "warmgate:") for _ in range(5)]
    async with asyncio.TaskGroup() as tasks:
        found = [tasks.create_task(started(replica)) for replica in replicas]
    assert len({task.result() for task in found}) == 1
    assert [replica.generation for replica in replicas] == [1] * 5
    elsewhere = await started(scope_secrets((), redis_server.url, "other:"))
    assert elsewhere != found[0].result()
    assert "Set cache.secret" in caplog.text


async def test_when_redis_is_down_at_start_it_is_fetched_as_soon_as_it_is_up(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(secret, "RETRY_S", 0.01)
    redis_server.kill()
    late = scope_secrets((), redis_server.url, "warmgate:")
    with caplog.at_level(logging.WARNING):
        await late.start()
    (meanwhile,) = late.current
    await asyncio.to_thread(redis_server.start)
    await until(lambda: late.generation == 1)
    assert late.current == await started(scope_secrets((), redis_server.url, "warmgate:"))
    assert late.current != (meanwhile,)
    await late.close()
    assert caplog.text.count("No lasting scope secret") == 1


async def test_a_redis_that_was_emptied_gets_the_secret_back_and_all_replicas_agree(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(secret, "RENEW_S", 0.05)
    old = scope_secrets((), redis_server.url, "warmgate:")
    await old.start()
    kept = old.current
    await asyncio.to_thread(redis_server.restart)
    client = redis.asyncio.from_url(redis_server.url)
    async with asyncio.timeout(PATIENT_S):
        while not await client.exists("warmgate:scope-secret"):  # noqa: ASYNC110 - Redis tells nobody
            await asyncio.sleep(0.005)
    await client.aclose()
    assert await started(scope_secrets((), redis_server.url, "warmgate:")) == kept
    assert old.generation == 1
    assert "another one" not in caplog.text
    await old.close()


async def test_a_replica_adopts_the_secret_that_another_one_put_into_an_emptied_redis(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(secret, "RENEW_S", 0.05)
    old = scope_secrets((), redis_server.url, "warmgate:")
    await old.start()
    former = old.current
    client = redis.asyncio.from_url(redis_server.url)
    await client.set("warmgate:scope-secret", b"of another replica")
    await client.aclose()
    await until(lambda: old.generation == 2)
    assert old.current == await started(scope_secrets((), redis_server.url, "warmgate:"))
    assert old.current != former
    assert "another one" in caplog.text
    await old.close()


async def test_configured_secrets_are_rotated_and_what_was_derived_is_void() -> None:
    secrets = ScopeSecrets(["the-first-of-them-all"], None)
    secrets.turn(["the-first-of-them-all"])
    assert secrets.generation == 0

    secrets.turn(["the-second-of-them-all", "the-first-of-them-all"])

    wanted = tuple(map(derive, ("the-second-of-them-all", "the-first-of-them-all")))
    assert (secrets.current, secrets.generation) == (wanted, 1)


async def test_a_secret_that_nobody_configured_stays_until_a_restart() -> None:
    random, configured = ScopeSecrets([], None), ScopeSecrets(["the-first-of-them-all"], None)
    before = random.current, configured.current

    random.turn(["the-second-of-them-all"])
    configured.turn([])

    assert (random.current, configured.current) == before
