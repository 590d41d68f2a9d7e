"""When a config is read again, and what becomes of it: files that are written, swapped, half there."""

# ruff: noqa: ASYNC240 - its files have a few bytes

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from gateway.config.source import Source
from gateway.reloading import Outcome, Reloading

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from gateway.config import Config, Loaded

LOOK_S = 0.01


class Scene:
    """Who reads, and what held so far."""

    def __init__(self, source: Source, look_s: float = LOOK_S) -> None:
        self.held = [source.load().config]
        self.turned = asyncio.Event()
        self.fails: Exception | None = None
        self.reloading = Reloading(
            source, lambda: self.held[-1], self._turn, look_s=look_s, now=lambda: 5.0
        )

    async def _turn(self, config: Config) -> None:
        if self.fails is not None:
            raise self.fails
        self.held.append(config)
        self.turned.set()

    @property
    def ttls(self) -> list[float]:
        return [each.cache.ttl_s for each in self.held]

    async def turns(self) -> None:
        """Wait for another config."""
        async with asyncio.timeout(5):
            await self.turned.wait()
        self.turned.clear()

    async def looks(self, times: int = 4) -> None:
        """Wait until it has looked so often."""
        looked = asyncio.Event()
        left = times
        has_changed = self.reloading._has_changed

        async def counted(source: Source) -> bool:
            nonlocal left
            left -= 1
            if left <= 0:
                looked.set()
            return await has_changed(source)

        self.reloading._has_changed = counted  # type: ignore[method-assign]
        async with asyncio.timeout(5):
            await looked.wait()
        self.reloading._has_changed = has_changed  # type: ignore[method-assign]


@asynccontextmanager
async def looking(source: Source) -> AsyncIterator[Scene]:
    scene = Scene(source)
    scene.reloading.start()
    try:
        yield scene
    finally:
        await scene.reloading.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "gateway.yaml"
    file.write_text("cache: {ttl_s: 1}")
    return file


async def test_a_file_that_is_written_is_read(file: Path) -> None:
    async with looking(Source(file)) as scene:
        await scene.looks()
        file.write_text("cache: {ttl_s: 2}")
        await scene.turns()
        file.write_text("cache: {ttl_s: 3}")
        await scene.turns()

    assert scene.ttls == [1, 2, 3]
    assert scene.reloading.told().reloads == {"applied": 2, "unchanged": 0, "refused": 0}


async def test_what_was_written_while_the_gateway_started_is_found_at_the_first_look(
    file: Path,
) -> None:
    scene = Scene(Source(file))
    file.write_text("cache: {ttl_s: 2}")
    scene.reloading.start()
    await scene.turns()
    await scene.reloading.close()

    assert scene.ttls == [1, 2]


async def test_a_mount_that_is_swapped_under_its_symlink_is_followed(tmp_path: Path) -> None:
    """As the kubelet does it: `gateway.yaml -> ..data/gateway.yaml`, `..data -> ..2026`."""
    for name, ttl in (("..1", 1), ("..2", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "gateway.yaml").write_text(f"cache: {{ttl_s: {ttl}}}")
        # Same size, same moment: nothing but the file behind it tells them apart.
        os.utime(tmp_path / name / "gateway.yaml", (1, 1))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "gateway.yaml").symlink_to("..data/gateway.yaml")
    async with looking(Source(tmp_path / "gateway.yaml")) as scene:
        await scene.looks()
        (tmp_path / "..data_tmp").symlink_to("..2")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        await scene.turns()

    assert scene.ttls == [1, 2]


async def test_a_file_that_is_touched_or_copied_over_itself_is_no_change(file: Path) -> None:
    async with looking(Source(file)) as scene:
        await scene.looks()
        os.utime(file, (1, 1))
        await scene.looks()
        file.write_text(file.read_text())
        await scene.looks()

    assert scene.ttls == [1]
    assert scene.reloading.last is None


async def test_a_file_that_is_gone_or_empty_for_a_while_changes_nothing(file: Path) -> None:
    async with looking(Source(file)) as scene:
        await scene.looks()
        file.write_text("")
        await scene.looks()
        first = scene.reloading.last
        file.unlink()
        await scene.looks()
        second = scene.reloading.last
        assert first is not None
        assert second is not None
        assert (first.outcome, first.faults[0].problem) == (Outcome.REFUSED, "is empty")
        assert second.outcome is Outcome.REFUSED
        assert scene.reloading.told().refused
        file.write_text("cache: {ttl_s: 2}")
        await scene.turns()
        await scene.looks()
        assert not scene.reloading.told().refused

    assert scene.ttls == [1, 2]


async def test_a_refused_file_is_not_read_again_and_again(file: Path) -> None:
    async with looking(Source(file)) as scene:
        await scene.looks()
        file.write_text("cache: {ttl_s: -1}")
        await scene.looks(12)

    assert scene.reloading.told().reloads["refused"] == 1


async def test_a_signal_is_heard_at_once_also_where_no_file_is(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-old")
    environ = {"GATEWAY_UPSTREAMS__OPENAI__API_KEY_FILE": str(key)}
    scene = Scene(Source(None, environ), look_s=3600)
    scene.reloading.start()
    await scene.reloading.reload()
    key.write_text("sk-new")
    scene.reloading.ask()
    await scene.turns()
    await scene.reloading.close()

    assert [each.upstreams["openai"].api_key.get_secret_value() for each in scene.held] == [  # type: ignore[union-attr]
        "sk-old",
        "sk-new",
    ]


async def test_what_can_not_be_put_in_force_is_refused_and_shows_no_words(file: Path) -> None:
    scene = Scene(Source(file))
    scene.fails = RuntimeError("sk-secret")
    file.write_text("cache: {ttl_s: 2}")

    done = await scene.reloading.reload()

    assert (done.outcome, scene.ttls) == (Outcome.REFUSED, [1])
    assert "sk-secret" not in str(done)
    scene.fails = None
    assert (await scene.reloading.reload()).outcome is Outcome.APPLIED


async def test_reloads_at_the_same_time_come_one_after_the_other(file: Path) -> None:
    scene = Scene(Source(file))
    file.write_text("cache: {ttl_s: 2}")

    done = await asyncio.gather(*(scene.reloading.reload() for _ in range(5)))

    assert [each.outcome for each in done] == [Outcome.APPLIED, *[Outcome.UNCHANGED] * 4]


async def test_who_hears_of_it_and_fails_does_no_harm(file: Path) -> None:
    scene = Scene(Source(file))

    def fails(held: Config, read: Config) -> None:
        raise RuntimeError

    scene.reloading.on_applied = fails
    file.write_text("cache: {ttl_s: 2}")

    assert (await scene.reloading.reload()).outcome is Outcome.APPLIED


async def test_what_came_through_a_pipe_holds_and_is_not_read_again(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writing = asyncio.create_task(asyncio.to_thread(pipe.write_text, "cache: {ttl_s: 5}"))
    scene = await asyncio.to_thread(Scene, Source(pipe))
    await writing
    scene.reloading.start()
    with pytest.raises(LookupError, match="which is no file"):
        await scene.reloading.reload()
    await asyncio.wait_for(scene.reloading.close(), 5)
    assert scene.ttls == [5.0]


async def test_a_pipe_in_the_place_of_a_file_is_refused_and_keeps_nobody_waiting(
    tmp_path: Path,
) -> None:
    file, key = tmp_path / "gateway.yaml", tmp_path / "key"
    file.write_text("cache: {ttl_s: 5}")
    key.write_text("sk-one")
    scene = Scene(Source(file, {"GATEWAY_UPSTREAMS__OPENAI__API_KEY_FILE": str(key)}))
    key.unlink()
    os.mkfifo(key)

    done = await asyncio.wait_for(scene.reloading.reload(), 5)

    assert done.outcome is Outcome.REFUSED
    assert [(each.path, each.problem) for each in done.faults] == [(str(key), "is no file")]
    assert len(scene.held) == 1


async def test_nothing_is_read_once_it_has_been_closed(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("cache: {ttl_s: 5}")
    scene = Scene(Source(file))
    await scene.reloading.close()
    file.write_text("cache: {ttl_s: 6}")
    with pytest.raises(LookupError, match="ending"):
        await scene.reloading.reload()
    assert scene.ttls == [5.0]


async def test_what_is_written_while_it_is_read_is_read_again(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, times, load = Scene(Source(file)), 0, Source.load_again

    def torn(source: Source) -> Loaded:
        nonlocal times
        times += 1
        loaded = load(source)
        if times == 1:
            file.write_text("cache: {ttl_s: 3}")
        return loaded

    monkeypatch.setattr(Source, "load_again", torn)
    scene.reloading._may_be_blank = False
    file.write_text("cache: {ttl_s: 2}")

    done = await scene.reloading.reload()

    assert (done.outcome, scene.ttls, times) == (Outcome.APPLIED, [1, 3], 2)


async def test_what_is_written_all_the_while_is_not_used(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, load = Scene(Source(file)), Source.load_again
    sizes = iter(range(100))

    def torn(source: Source) -> Loaded:
        file.write_text("cache: {ttl_s: 3}" + " " * next(sizes))
        return load(source)

    monkeypatch.setattr(Source, "load_again", torn)
    scene.reloading._may_be_blank = False

    done = await scene.reloading.reload()

    assert (done.outcome, scene.ttls) == (Outcome.REFUSED, [1])
    assert [each.problem for each in done.faults] == ["is being written all the while"]
