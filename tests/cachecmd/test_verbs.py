"""The verbs of `gateway cache`, on real stores and beside running gateways."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import TYPE_CHECKING, Any

import orjson
import pytest
import yaml

from gateway.cli import main
from gateway.config import load
from gateway.core.purges import ALL
from gateway.store import codec
from gateway.store.generations import Generations
from gateway.store.open import open_store
from gateway.store.registers import open_register
from gateway.store.walk import walk
from tests.helpers.chat_answers import HELLO as ANSWER
from tests.helpers.entries import entry
from tests.helpers.gateway_here import gateway_here
from tests.helpers.raw_client import fetch
from tests.helpers.redis_servers import RedisServer, binary
from tests.helpers.scripted_upstream import ScriptedUpstream, response

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHAT = "/v1/chat/completions"
SECRET = "a-scope-secret-of-enough-characters"
PAYLOAD = b'{"choices": ["confidential"]}'


def key_of(number: int) -> bytes:
    return number.to_bytes(2, "big") * 16


class Cache:
    """A store with a config file for it."""

    def __init__(self, url: str, folder: Path, name: str = "gateway", secret: str = SECRET) -> None:
        tree = {"store": {"url": url, "deadline_ms": 5000}, "cache": {"secret": secret}}
        self.config = folder / f"{name}.yaml"
        self.config.write_text(yaml.safe_dump(tree))
        self.url = url

    async def _store(self) -> Any:
        settings = load(self.config, {}).store.model_copy(update={"memory_bytes": 0})
        store = open_store(settings, time.time, {})
        await store.start()
        return store

    async def _fill(self, count: int, **changes: Any) -> None:
        store = await self._store()
        for number in range(count):
            key = key_of(number)
            made = entry(
                payload=PAYLOAD,
                stored_at=time.time() - 60 * (number % 50),
                tags=("even",) if number % 2 == 0 else (),
                model="gpt-4o" if number < 2 else "gpt-5",
                key_hex8=key.hex()[:8],
                **changes,
            )
            await store.put(key, codec.encode(made, key), 3600)
        await store.close()

    def fill(self, count: int, **changes: Any) -> None:
        asyncio.run(self._fill(count, **changes))

    async def _alive(self) -> set[int]:
        store = await self._store()
        generations = Generations(open_register(store, time.time))
        await generations.refresh()
        found = set()
        async for portion in walk(store):
            for key, blob in portion:
                if len(blob) > 32 and generations.refuse(codec.decode(blob, key)) is None:
                    found.add(int.from_bytes(key[:2], "big"))
        await store.close()
        return found

    def alive(self) -> set[int]:
        """The numbers of the entries that a gateway would serve."""
        return asyncio.run(self._alive())

    def put(self, key: bytes, blob: bytes) -> None:
        async def put() -> None:
            store = await self._store()
            await store.put(key, blob, 3600)
            await store.close()

        asyncio.run(put())

    def do(self, *arguments: str) -> int:
        return main(["cache", *arguments, "--config", str(self.config)])


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    executable = binary("valkey")
    assert executable is not None
    server = RedisServer(executable)
    server.start()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "redis"])
def cache(request: pytest.FixtureRequest, server: RedisServer, tmp_path: Path) -> Cache:
    if request.param == "sqlite":
        return Cache(f"sqlite:///{tmp_path}/cache.db", tmp_path)
    server.restart()
    return Cache(server.url, tmp_path)


def told(capture: pytest.CaptureFixture[bytes]) -> tuple[str, list[dict[str, Any]]]:
    """What came on stdout, and the audit lines on stderr."""
    out, err = capture.readouterr()
    lines = [orjson.loads(line) for line in err.splitlines() if line.startswith(b"{")]
    return out.decode(), [line for line in lines if line.get("event") == "audit"]


def test_stats_counts_by_model_and_tag(
    cache: Cache, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    cache.fill(10)
    cache.put(b"f" * 32, b"something else, and no entry at all")
    assert cache.do("stats", "--json") == 0
    out, _ = told(capfdbinary)
    counts = orjson.loads(out)
    assert (counts["entries"], counts["exact"], counts["damaged"]) == (10, True, 1)
    assert (counts["by_tag"], counts["by_model"]) == ({"even": 5}, {"gpt-5": 8, "gpt-4o": 2})
    assert counts["payload_bytes"] == 10 * len(PAYLOAD)
    assert cache.do("stats") == 0
    text, _ = told(capfdbinary)
    assert "10 entries" in text
    assert "tag even: 5" in text


def test_a_large_store_is_sampled_and_says_so(
    cache: Cache, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    cache.fill(600)
    assert cache.do("stats", "--limit", "100", "--json") == 0
    counts = orjson.loads(told(capfdbinary)[0])
    assert counts["exact"] is False
    assert 500 <= counts["entries"] <= 700
    assert cache.do("stats", "--limit", "100") == 0
    assert "about" in told(capfdbinary)[0]


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (["--tag", "even"], {1, 3, 5}),
        (["--tag", "odd"], {0, 1, 2, 3, 4, 5}),
        (["--model", "gpt-4o"], {2, 3, 4, 5}),
        (["--model", "gpt-4o", "--tag", "even"], {3, 5}),
        (["--key", key_of(3).hex()], {0, 1, 2, 4, 5}),
        (["--key", key_of(3).hex()[:8], "--key", key_of(1).hex()], {0, 2, 4, 5}),
        (["--older-than", "150s"], {0, 1, 2}),
        (["--older-than", "2.5m", "--tag", "even"], {0, 1, 2, 3, 5}),
        (["--all"], set()),
    ],
)
def test_purge_rehearses_and_then_kills_what_is_selected_and_nothing_else(
    cache: Cache, capfdbinary: pytest.CaptureFixture[bytes], arguments: list[str], left: set[int]
) -> None:
    cache.fill(6)
    assert cache.do("purge", *arguments) == 0
    out, audit = told(capfdbinary)
    assert f"{6 - len(left)} entr" in out
    assert "say --yes" in out
    assert audit == []
    assert cache.alive() == {0, 1, 2, 3, 4, 5}
    assert cache.do("purge", *arguments, "--yes") == 0
    _, (line,) = told(capfdbinary)
    assert (line["action"], line["result"], line["entries"]) == ("purge", "purged", 6 - len(left))
    assert "uid" in line["who"]
    assert cache.alive() == left


def test_reclaim_makes_room_at_once(
    cache: Cache, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    cache.fill(6)
    assert cache.do("purge", "--tag", "even", "--yes", "--reclaim", "--json") == 0
    out, audit = told(capfdbinary)
    assert orjson.loads(out)["reclaimed"] == 3
    assert [line["action"] for line in audit] == ["purge", "reclaim"]
    assert cache.do("stats", "--json") == 0
    counts = orjson.loads(told(capfdbinary)[0])
    assert (counts["entries"], counts["purged"]) == (3, 0)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--all", "--tag", "a"],
        ["--tag", "two words"],
        ["--key", "short"],
    ],
)
def test_a_purge_of_nothing_or_nonsense_is_wrong_usage(
    cache: Cache, capfdbinary: pytest.CaptureFixture[bytes], arguments: list[str]
) -> None:
    cache.fill(1)
    assert cache.do("purge", *arguments, "--yes") == 2
    assert b"gateway cache: " in capfdbinary.readouterr().err
    assert cache.alive() == {0}


def test_show_lists_entries_without_their_answers_unless_asked(
    cache: Cache, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    cache.fill(4)
    key = key_of(2).hex()
    for arguments, expected in (
        (["--tag", "even"], {key_of(0).hex(), key}),
        (["--key", key], {key}),
        (["--key", key[:8]], {key}),
        ([], {key_of(n).hex() for n in range(4)}),
    ):
        assert cache.do("show", *arguments) == 0
        out, _ = told(capfdbinary)
        assert {line.split()[0] for line in out.splitlines()} == expected
        assert "confidential" not in out
    assert cache.do("show", "--key", key, "--json") == 0
    shown = orjson.loads(told(capfdbinary)[0])
    assert (shown["model"], shown["tags"], shown["refused"]) == ("gpt-5", ["even"], None)
    assert cache.do("show", "--key", key, "--payload") == 0
    out, (line,) = told(capfdbinary)
    assert out.encode() == PAYLOAD
    assert line["action"] == "show payload"
    assert cache.do("show", "--key", "0" * 63 + "f") == 1
    assert cache.do("show", "--payload") == 2


def test_an_export_is_imported_elsewhere_entry_by_entry(
    cache: Cache, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    cache.fill(6)
    cache.put(b"p" * 32, key_of(1))
    assert cache.do("purge", "--key", key_of(5).hex(), "--yes") == 0
    file = tmp_path / "answers.jsonl"
    assert cache.do("export", str(file)) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert SECRET.encode() not in file.read_bytes()
    assert not (tmp_path / "answers.jsonl.part").exists()
    other = Cache(f"sqlite:///{tmp_path}/other.db", tmp_path, "other")
    capfdbinary.readouterr()
    assert other.do("import", str(file), "--yes", "--json") == 0
    done = orjson.loads(told(capfdbinary)[0])
    assert (done["stored"], done["damaged"], done["complete"]) == (6, 0, True)
    assert other.alive() == {0, 1, 2, 3, 4}
    # Again: nothing to do. And what is younger here stays.
    assert other.do("import", str(file), "--yes", "--json") == 0
    done = orjson.loads(told(capfdbinary)[0])
    assert (done["stored"], done["present"]) == (0, 6)


def test_an_import_is_a_rehearsal_unless_it_is_meant(
    cache: Cache, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    cache.fill(3)
    file = tmp_path / "answers.jsonl"
    assert cache.do("export", str(file)) == 0
    other = Cache(f"sqlite:///{tmp_path}/other.db", tmp_path, "other")
    other.fill(0)
    assert other.do("import", str(file)) == 0
    assert "3 entries would be stored" in told(capfdbinary)[0]
    assert other.alive() == set()


def test_an_import_verifies_each_entry_and_says_when_the_file_was_cut(
    cache: Cache, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    cache.fill(4)
    file = tmp_path / "answers.jsonl"
    assert cache.do("export", str(file)) == 0
    head, *lines, _ = file.read_bytes().splitlines()
    line = orjson.loads(lines[0])
    blob = bytearray(base64.b64decode(line["blob"]))
    blob[-1] ^= 1
    flipped = orjson.dumps({**line, "blob": base64.b64encode(bytes(blob)).decode()})
    moved = orjson.dumps({**orjson.loads(lines[1]), "key": "ab" * 32})
    file.write_bytes(b"\n".join([head, flipped, moved, lines[2], b"no json", lines[3][:50]]))
    other = Cache(f"sqlite:///{tmp_path}/other.db", tmp_path, "other")
    capfdbinary.readouterr()
    assert other.do("import", str(file), "--yes", "--json") == 1
    done = orjson.loads(told(capfdbinary)[0])
    assert (done["stored"], done["damaged"], done["complete"]) == (1, 4, False)
    assert len(other.alive()) == 1


def test_an_export_under_another_secret_is_refused(
    cache: Cache, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    cache.fill(2)
    file = tmp_path / "answers.jsonl"
    assert cache.do("export", str(file)) == 0
    url = f"sqlite:///{tmp_path}/other.db"
    other = Cache(url, tmp_path, "other", "another-secret-of-enough-characters")
    assert other.do("import", str(file), "--yes") == 2
    assert b"another scope secret" in capfdbinary.readouterr().err
    assert other.do("import", str(file), "--yes", "--any-secret") == 0
    assert other.alive() == {0, 1}


def test_an_entry_of_a_clock_ahead_can_still_be_purged(tmp_path: Path) -> None:
    ahead = Cache(f"sqlite:///{tmp_path}/ahead.db", tmp_path, "ahead")
    ahead.fill(1, generation=int((time.time() + 10**8) * 1e6))
    file = tmp_path / "answers.jsonl"
    assert ahead.do("export", str(file)) == 0
    here = Cache(f"sqlite:///{tmp_path}/here.db", tmp_path, "here")
    assert here.do("import", str(file), "--yes") == 0
    assert here.do("purge", "--all", "--yes") == 0
    assert here.alive() == set()


@pytest.mark.parametrize(
    "text", ["", "no json", "[]", "{}", '{"warmgate": "entries", "version": 9}']
)
def test_what_is_no_export_is_refused(tmp_path: Path, text: str) -> None:
    cache = Cache(f"sqlite:///{tmp_path}/cache.db", tmp_path)
    file = tmp_path / "other.jsonl"
    file.write_text(text)
    assert cache.do("import", str(file), "--yes") == 2
    assert cache.do("import", str(tmp_path / "nowhere"), "--yes") == 2


@pytest.mark.parametrize("verb", ["stats", "show", "export"])
def test_a_store_that_is_not_there_is_said_and_not_made(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], verb: str
) -> None:
    arguments = [verb, str(tmp_path / "file")] if verb == "export" else [verb]
    absent = Cache(f"sqlite:///{tmp_path}/absent.db", tmp_path)
    assert absent.do(*arguments) == 2
    assert not (tmp_path / "absent.db").exists()
    away = Cache("redis://127.0.0.1:1/0", tmp_path, "away")
    assert away.do(*arguments) == 2
    said = capfdbinary.readouterr().err
    assert b"not there yet" in said
    assert b"did not answer" in said
    assert not (tmp_path / "file").exists()


async def test_what_lies_in_memory_is_asked_of_the_running_gateway(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    body = orjson.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]})
    token = "an-admin-token-of-32-characters!"
    async with (
        ScriptedUpstream() as upstream,
        gateway_here(upstream.url, admin={"token": token}) as gateway,
    ):
        upstream.otherwise(response(ANSWER))
        await fetch(gateway.api_url, "POST", CHAT, body, [("x-gateway-cache-tags", "a")])
        await gateway.background.idle()
        port = int((gateway.admin_url or "").rpartition(":")[2])
        config = tmp_path / "gateway.yaml"
        tree = {"store": {"url": "memory://"}, "admin": {"port": port, "token": token}}
        config.write_text(yaml.safe_dump(tree))

        async def do(*arguments: str) -> int:
            return await asyncio.to_thread(main, ["cache", *arguments, "--config", str(config)])

        assert await do("stats") == 0
        assert "1 entries" in told(capfdbinary)[0]
        assert await do("show", "--tag", "a", "--json") == 0
        key = orjson.loads(told(capfdbinary)[0])["key"]
        assert await do("show", "--key", key, "--payload") == 0
        assert told(capfdbinary)[0].encode() == ANSWER
        assert await do("show", "--key", "00" * 32) == 1
        assert await do("purge", "--tag", "a", "--yes", "--reclaim") == 0
        assert "tag:a: 1 entry purged" in told(capfdbinary)[0]
        assert gateway._generations.marks.get("tag:a").sequence > 0
        assert gateway._generations.marks.get(ALL).sequence == 0
        assert await do("export", str(tmp_path / "file")) == 2
        assert await do("stats", "--admin-url", "http://127.0.0.1:1") == 2
        config.write_text(yaml.safe_dump(tree | {"admin": {"port": port}}))
        assert await do("stats") == 2
        assert "Authorization" in capfdbinary.readouterr().err.decode()
