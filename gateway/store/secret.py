"""The secret of the scope hash: who may share entries is decided with it.

Rule 1: configured secrets win: the first writes, all read.
Rule 2: otherwise it lives where the entries live, so that whoever shares them shares it: beside
the SQLite file, or in Redis. Memory needs none that outlives the process.
Rule 3: there is always one. Where it can't be kept or fetched, a random one serves: it costs hits,
never separation.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import stat
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Protocol

from blake3 import blake3

from gateway.store.base import StoreUnavailable
from gateway.store.open import describe, scheme, sqlite_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gateway.store.redis_access import Access

logger = logging.getLogger(__name__)

CONTEXT = "warmgate 2026-11 scope secret"
"""Of BLAKE3's key derivation: another use of the same text gives other keys."""

REDIS_NAME = "scope-secret"
REDIS_DEADLINE_S = 1.0
"""Not on any request's path, so it may take its time."""

RETRY_S = 1.0

RENEW_S = 30.0
"""How often Redis is asked whether it still holds the secret: it may have been emptied, or have
evicted what nobody reads, and replicas that start later would agree on another one.
"""

_LEAST_CHARS = 16
"""A shorter text in a file of ours is a damaged one."""


class Source(Protocol):
    """Where a secret is kept that nobody configured."""

    may_forget: bool
    """It can lose what it was given: `load` is called again and again, and restores it."""

    async def load(self) -> str:
        """The text; made on the first call ever. Raises `StoreUnavailable`."""

    async def close(self) -> None:
        """Release what was opened."""


class FileSecret:
    """Beside the SQLite file, readable by its owner only."""

    may_forget = False

    def __init__(self, path: Path) -> None:
        """Keep it in `path`."""
        self._path = path

    async def load(self) -> str:
        """The file's text. Two processes that start together get the same one."""
        try:
            with suppress(FileExistsError):
                self._create()
            text = self._path.read_text(encoding="ascii").strip()
            if stat.S_IMODE(self._path.stat().st_mode) & 0o077:
                logger.warning("%s can be read by others; its mode should be 0600", self._path)
        except (OSError, ValueError) as exc:
            raise StoreUnavailable(f"{self._path} can't be used: {exc}") from exc
        if len(text) < _LEAST_CHARS:
            raise StoreUnavailable(f"{self._path} holds no secret; remove it to get a new one")
        return text

    async def close(self) -> None:
        """Nothing is open."""

    def _create(self) -> None:
        """Write it under another name, then link: nobody sees a half-written one, the first
        link wins. Raises FileExistsError when there is one.
        """
        if self._path.exists():
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(32) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, self._path)
        finally:
            draft.unlink()


class RedisSecret:
    """In Redis, beside the entries. Created once by whichever replica comes first."""

    may_forget = True

    def __init__(self, url: str, key_prefix: str, access: Access | None = None) -> None:
        """Keep it under `<key_prefix>scope-secret`. Raises ValueError for a URL it can't use."""
        from gateway.store.redis import RedisStore  # noqa: PLC0415 - 7 MB, for Redis only

        self._url = url
        # Asked every half minute: what stays open meanwhile would only be watched for nothing.
        self._open = partial(
            RedisStore,
            url,
            deadline_s=REDIS_DEADLINE_S,
            key_prefix=key_prefix,
            connections=1,
            access=access,
        )
        self._open()
        self._held: bytes | None = None

    async def load(self) -> str:
        """The text under that name."""
        offered = self._held or secrets.token_hex(32).encode()
        store = self._open()
        try:
            held = await store.claim(REDIS_NAME, offered)
        finally:
            await store.close()
        if self._held is None:
            logger.warning(
                "cache.secret is not set: the secret is kept in %s, where whoever can read it can "
                "tell which credential an entry belongs to. Set cache.secret to prevent that",
                describe(self._url),
            )
        self._held = held
        # Any bytes serve: what another hand put there is shared by the replicas all the same.
        return held.hex()

    async def close(self) -> None:
        """Nothing is open."""


class ScopeSecrets:
    """The secrets in use. `generation` grows when they change: what was derived is void then."""

    def __init__(self, configured: Sequence[str], source: Source | None) -> None:
        """`configured` texts win; else `source`; without either a random one."""
        self.generation = 0
        texts = tuple(configured)
        self._is_configured = bool(texts)
        self._source = None if texts else source
        self._current = tuple(map(derive, texts or (secrets.token_hex(32),)))
        self._fetching: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<ScopeSecrets {len(self._current)} in use, generation {self.generation}>"

    @property
    def current(self) -> tuple[bytes, ...]:
        """Keys of 32 bytes: the first writes, all read. Never empty."""
        return self._current

    async def start(self) -> None:
        """Fetch what was not configured; what is not there now is tried again once a second."""
        if self._source is None:
            return
        if not await self._fetch(self._source) or self._source.may_forget:
            # Owned here: `close` cancels it.
            self._fetching = asyncio.create_task(self._keep_fetching(self._source))  # noqa: TID251

    def turn(self, configured: Sequence[str]) -> None:
        """Other texts are configured. Nothing changes where they are the same, or where the secret
        came, or would come, from elsewhere.
        """
        current = tuple(map(derive, configured))
        if current and self._is_configured and current != self._current:
            self._current = current
            self.generation += 1

    async def close(self) -> None:
        """Stop trying."""
        if self._fetching is not None:
            self._fetching.cancel()
            with suppress(asyncio.CancelledError):
                await self._fetching
        if self._source is not None:
            await self._source.close()

    async def _keep_fetching(self, source: Source) -> None:
        while True:
            await asyncio.sleep(RENEW_S if self.generation else RETRY_S)
            if await self._fetch(source, again=True) and not source.may_forget:
                return

    async def _fetch(self, source: Source, *, again: bool = False) -> bool:
        try:
            text = await source.load()
        except StoreUnavailable as exc:
            if not again:
                logger.warning(
                    "No lasting scope secret (%s): a random one serves meanwhile, and answers "
                    "stored with it will not be found later",
                    exc,
                )
            return False
        if not source.may_forget:
            await source.close()
        current = (derive(text),)
        if current != self._current:
            if self.generation:
                logger.warning(
                    "The scope secret is another one now: what was stored with the former one "
                    "will not be found any more"
                )
            self._current = current
            self.generation += 1
        return True


def scope_secrets(
    configured: Sequence[str], url: str, key_prefix: str, access: Access | None = None
) -> ScopeSecrets:
    """The secrets for a store at `url`, reached with `access`, not started.

    Raises ValueError for a URL it can't use.
    """
    source: Source | None
    match scheme(url):
        case "memory":
            source = None
        case "sqlite":
            path = sqlite_path(url)
            source = FileSecret(path.with_name(path.name + ".secret"))
        case _:
            source = RedisSecret(url, key_prefix, access)
    return ScopeSecrets(configured, source)


def derive(text: str) -> bytes:
    """The 32-byte key that a secret's text stands for."""
    return blake3(text.encode(), derive_key_context=CONTEXT).digest()
