"""The config, read again while we run: when a signal or an operator says so, or its files say something
else.

Rule 1: what can't be used changes nothing: the config that holds is kept whole, and every fault is told.
Rule 2: what is used is turned over whole, between two requests (`gateway.current`). What has to wait for
a restart stays as it is, and is named.
Rule 3: files are looked at each few seconds, in a thread. A mount that is swapped under a symlink, as
Kubernetes does it, is seen so, and needs no watch that could be lost. One that is being written is left to
rest first; one whose content is the same is no change.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

import structlog
from blake3 import blake3

from gateway.config.changes import changes
from gateway.config.show import origins
from gateway.errors import ConfigError, Fault
from gateway.telemetry.config_gauges import ConfigTold

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from pathlib import Path

    from gateway.config import Config, Loaded
    from gateway.config.source import Source

_log = structlog.get_logger("warmgate.config")

LOOK_S = 2.0
"""How often files are looked at; a change is read at the second look that finds it so."""
_MOST_FAULTS = 50
"""Of one config in the log."""
_READ_BYTES = 1024 * 1024
_READ_TIMES = 5
"""At most, where files change while they are read."""
_CLOSE_S = 1.0

_Seen: TypeAlias = "tuple[tuple[int, ...] | None, ...]"


class Outcome(StrEnum):
    """What became of a config that was read again."""

    APPLIED = "applied"
    """It holds, but for what waits for a restart."""
    UNCHANGED = "unchanged"
    """Nothing that could change did."""
    REFUSED = "refused"
    """It has faults, or could not be put in force: the one before holds."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What became of one."""

    outcome: Outcome
    why: str
    """`signal`, `file` or `admin`: who wanted it."""
    at: float
    """Seconds since the epoch."""
    applied: tuple[str, ...] = ()
    """Settings, as dotted paths."""
    waiting: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    """Of what was refused."""


@dataclass(slots=True)
class _Looked:
    """What is known of the files."""

    held: _Seen | None = None
    """As they were when they were read last."""
    resting: _Seen | None = None
    """As they were at the last look, if they had changed."""
    digest: bytes = field(default=b"", repr=False)


class Reloading:
    """Owns the task that looks. For one event loop."""

    def __init__(
        self,
        source: Source | None,
        config: Callable[[], Config],
        turn: Callable[[Config], Awaitable[None]],
        *,
        look_s: float = LOOK_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`source` None: there is nothing to read again; nor is there where a part of it came through a
        pipe. `config` gives the one that holds; `turn` lets another one hold, or raises and changes
        nothing. `now` gives seconds since the epoch.
        """
        self.on_applied: Callable[[Config, Config], None] = _nobody
        """Told of what held and what was read, with all that waits, once it holds."""
        self.last: Reloaded | None = None
        """What became of the last one; None before the first."""
        self.waiting: tuple[str, ...] = ()
        """What waits for a restart now."""
        self.loaded: Loaded | None = None
        """What was read last, of those that could be used; None before the first."""
        self._once = () if source is None else source.irregular(config())
        if self._once:
            _log.warning("the config is not read again", pipes=[str(each) for each in self._once])
            source = None
        self._source = source
        self._closed = False
        self._config = config
        self._turn = turn
        self._look_s = look_s
        self._now = now
        self._counts: Counter[str] = Counter()
        self._looked = _Looked()
        self._may_be_blank = source is None or source.is_blank
        self._one_at_a_time = asyncio.Lock()
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        told = "nothing yet" if self.last is None else self.last.outcome.value
        return f"<Reloading {told}, {self._counts.total()} times>"

    def told(self) -> ConfigTold:
        """For metrics. Any thread may ask."""
        refused = self.last is not None and self.last.outcome is Outcome.REFUSED
        reloads = {each.value: self._counts[each.value] for each in Outcome}
        return ConfigTold(reloads, refused, len(self.waiting))

    def start(self) -> None:
        """Look at the files from now on, and listen to `ask`."""
        if self._source is not None:
            self._task = asyncio.get_running_loop().create_task(
                self._run(self._source), name="config"
            )

    def ask(self) -> None:
        """Read it again soon. For a signal."""
        self._asked.set()

    async def close(self) -> None:
        """Change nothing more."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=_CLOSE_S)
        # Nor does who began before.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S), self._one_at_a_time:
                pass

    def shown(self) -> dict[str, Any]:
        """What holds, without any secret, where each setting that was read came from, what waits, and
        what became of the last one: plain JSON values.
        """
        config, read = self._config(), self.loaded
        told: dict[str, Any] = {"generation": config.generation(), "config": config.redacted()}
        told["origins"] = None if read is None else origins(read)
        told["waiting"] = list(self.waiting)
        told["last"] = None if self.last is None else _shown(self.last)
        return told

    async def again(self) -> dict[str, Any]:
        """As `reload`, told in plain JSON values. Raises LookupError where there is nothing to read."""
        return _shown(await self.reload())

    async def reload(self, why: str = "admin") -> Reloaded:
        """Read it now, and put it in force. Raises LookupError where there is nothing to read, or the
        gateway ends.
        """
        if self._source is None:
            given = f"through {self._once[0]}, which is no file" if self._once else "by a program"
            raise LookupError(f"this gateway was given its config {given}, and can't read it again")
        async with self._one_at_a_time:
            if self._closed:
                raise LookupError("this gateway is ending")
            return await self._reload(self._source, why)

    async def _reload(self, source: Source, why: str) -> Reloaded:
        held = self._config()
        files = source.files(held)
        # Before it is read: what is written after it is another change.
        seen, digest = await _looked_at(files)
        try:
            loaded, seen, digest = await self._read_at_rest(source, files, seen, digest)
            found = changes(held, loaded.config)
            if found.applied:
                await self._turn(found.config)
        except ConfigError as error:
            done = Reloaded(Outcome.REFUSED, why, self._now(), faults=error.faults)
        except Exception:  # noqa: BLE001 - the one before holds, and goes on
            _log.exception("a config could not be put in force: the one before holds")
            fault = Fault("config", "could not be put in force", "the log has the details")
            done = Reloaded(Outcome.REFUSED, why, self._now(), faults=(fault,))
        else:
            outcome = Outcome.APPLIED if found.applied else Outcome.UNCHANGED
            done = Reloaded(outcome, why, self._now(), found.applied, found.waiting)
            self.loaded, self.waiting = loaded, found.waiting
            self._may_be_blank = False
            self._heard(held, loaded.config)
        if (now := source.files(self._config())) != files:
            # Of warm-ups: other ones are looked at from now on.
            seen, digest = await _looked_at(now)
        self._looked = _Looked(held=seen, digest=digest)
        self.last = done
        self._counts[done.outcome.value] += 1
        _tell(done, self._config())
        return done

    async def _read_at_rest(
        self, source: Source, files: Sequence[Path], seen: _Seen, digest: bytes
    ) -> tuple[Loaded, _Seen, bytes]:
        """Read once more what was written while it was read: half of a file may be YAML too, that of
        a config with fewer upstreams.
        """
        for _ in range(_READ_TIMES):
            found: Loaded | ConfigError
            try:
                found = await asyncio.to_thread(self._read, source)
            except ConfigError as error:
                found = error
            now, held = await _looked_at(files)
            if (now, held) == (seen, digest):
                if isinstance(found, ConfigError):
                    raise found
                return found, seen, digest
            seen, digest = now, held
        what = Fault("config", "is being written all the while", "have it read when it is whole")
        raise ConfigError((what,))

    def _read(self, source: Source) -> Loaded:
        if odd := source.irregular(self._config()):
            # To open it might wait for ever.
            raise ConfigError(
                tuple(Fault(str(each), "is no file", "put a file in its place") for each in odd)
            )
        return source.load() if self._may_be_blank else source.load_again()

    def _heard(self, held: Config, read: Config) -> None:
        try:
            self.on_applied(held, read)
        except Exception:  # noqa: BLE001 - it holds all the same
            _log.exception("hearing of another config failed")

    # --- looking ----------------------------------------------------------------------------------

    async def _run(self, source: Source) -> None:
        while True:
            try:
                await self._turn_of(source)
            except Exception:  # noqa: BLE001 - the next look may go better
                _log.exception("the config's files can't be looked at")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_s):
                    await self._asked.wait()

    async def _turn_of(self, source: Source) -> None:
        async with self._one_at_a_time:
            if self._asked.is_set():
                self._asked.clear()
                await self._reload(source, "signal")
            elif await self._has_changed(source):
                await self._reload(source, "file")

    async def _has_changed(self, source: Source) -> bool:
        """Do the files say something else, and have they said it for a while?"""
        looked, files = self._looked, source.files(self._config())
        if looked.held is None:
            # The first look: what was written between reading it at the start and now?
            looked.held, looked.digest = await _looked_at(files)
            return bool(files) and await self._differs(source)
        seen = await asyncio.to_thread(_see, files)
        if seen == looked.held:
            looked.resting = None
            return False
        if seen != looked.resting:
            looked.resting = seen
            return False
        digest = await asyncio.to_thread(_digest, files)
        looked.held, looked.resting = seen, None
        changed, looked.digest = digest != looked.digest, digest
        return changed

    async def _differs(self, source: Source) -> bool:
        try:
            loaded = await asyncio.to_thread(self._read, source)
        except ConfigError:
            return True
        return bool(changes(self._config(), loaded.config).applied)


async def _looked_at(files: Sequence[Path]) -> tuple[_Seen, bytes]:
    return await asyncio.to_thread(lambda: (_see(files), _digest(files)))


def _see(files: Iterable[Path]) -> _Seen:
    seen: list[tuple[int, ...] | None] = []
    for file in files:
        try:
            # (Of what a symlink leads to, at last.)
            found = file.stat()
        except (OSError, ValueError):
            seen.append(None)
        else:
            # (When its rights change, only the last of them does.)
            at = found.st_mtime_ns, found.st_ctime_ns
            seen.append((found.st_dev, found.st_ino, found.st_size, *at))
    return tuple(seen)


def _digest(files: Iterable[Path]) -> bytes:
    """Of what they hold, of each at most 1 MiB, which is all that is read of any."""
    whole = blake3()
    for file in files:
        try:
            # (To open a pipe might wait for ever.)
            held = b""
            if file.is_file():
                with file.open("rb") as stream:
                    held = stream.read(_READ_BYTES + 1)
        except (OSError, ValueError) as error:
            held = f"\0{type(error).__name__}".encode()
        whole.update(len(held).to_bytes(8, "big"))
        whole.update(held)
    return whole.digest()


def _tell(done: Reloaded, config: Config) -> None:
    facts: dict[str, Any] = {"why": done.why, "generation": config.generation()}
    if done.outcome is Outcome.REFUSED:
        for each in done.faults[:_MOST_FAULTS]:
            _log.error(
                "a fault in the config", path=each.path, problem=each.problem, mend=each.mend
            )
        _log.error("the config was refused: the one before holds", faults=len(done.faults), **facts)
        return
    if done.waiting:
        _log.warning("some settings wait for a restart", settings=list(done.waiting), **facts)
    if done.outcome is Outcome.APPLIED:
        _log.info("another config holds", settings=list(done.applied), **facts)
    else:
        _log.info("the config says what it said", **facts)


def _shown(done: Reloaded) -> dict[str, Any]:
    told: dict[str, Any] = {"outcome": done.outcome.value, "why": done.why, "at": round(done.at, 3)}
    if done.outcome is Outcome.REFUSED:
        told["faults"] = [
            {"path": each.path, "problem": each.problem, "mend": each.mend} for each in done.faults
        ]
    else:
        told |= {"applied": list(done.applied), "waiting": list(done.waiting)}
    return told


def _nobody(_: Config, __: Config) -> None:
    """Hears it, and does nothing."""
