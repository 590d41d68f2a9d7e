"""Through the admin port of a running gateway: for memory://, and for whoever can't reach the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from gateway.cachecmd.desk import Trouble, operator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.cachecmd.desk import Wanted
    from gateway.config import Config

_DEADLINE_S = 300.0
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to ask, not to listen


class Remote:
    """A running gateway, asked over HTTP."""

    def __init__(self, url: str, token: str | None) -> None:
        """`url` is that of the admin port. Raises `Trouble` for one that can't be asked."""
        if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).netloc:
            raise Trouble(f"{url!r} is not the URL of an admin port, such as http://127.0.0.1:9181")
        self._url = url.rstrip("/")
        self._headers = {"x-gateway-operator": operator()}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    async def stats(self, limit: int) -> dict[str, Any]:
        """Counts."""
        return await self._ask("GET", "/admin/stats", params=[("limit", str(limit))])

    async def entries(self, wanted: Wanted, limit: int) -> list[dict[str, Any]]:
        """Some of the entries."""
        params = [("limit", str(limit)), *(("tag", tag) for tag in wanted.tags)]
        params += [("model", model) for model in wanted.models]
        told = await self._ask("GET", "/admin/cache/entries", params=params)
        return list(told["entries"])

    async def show(self, key: str) -> list[dict[str, Any]]:
        """The entries of a key."""
        told = await self._ask("GET", f"/admin/cache/entries/{key}", absent={"entries": []})
        return list(told["entries"])

    async def payload(self, key: str) -> bytes:
        """The answer under a key."""
        status, body = await self._send(
            "GET", f"/admin/cache/entries/{key}", params=[("payload", "1")]
        )
        if status != 200:
            raise Trouble(_said(status, body))
        return body

    async def purge(self, wanted: Wanted, *, dry_run: bool) -> dict[str, Any]:
        """Count what is selected, and kill it unless `dry_run`."""
        asked = {
            "keys": wanted.keys,
            "tags": wanted.tags,
            "models": wanted.models,
            "older_than_s": wanted.older_than_s,
            "all": wanted.everything,
            "dry_run": dry_run,
        }
        return await self._ask("POST", "/admin/cache/purge", body=asked)

    async def reclaim(self) -> int:
        """Delete what is purged or lapsed."""
        return int((await self._ask("POST", "/admin/cache/reclaim", body={}))["deleted"])

    async def savings(self, since: str, until: str, by: Sequence[str]) -> dict[str, Any]:
        """What was paid and saved on these days."""
        params = [("since", since), ("until", until), ("by", ",".join(by))]
        return await self._ask("GET", "/admin/savings", params=params)

    async def close(self) -> None:
        """Nothing is open."""

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        params: list[tuple[str, str]] | None = None,
        body: dict[str, Any] | None = None,
        absent: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        status, answer = await self._send(method, path, params=params, body=body)
        if status == 404 and absent is not None:
            return absent
        if status != 200:
            raise Trouble(_said(status, answer))
        try:
            read: dict[str, Any] = orjson.loads(answer)
        except ValueError:
            raise Trouble(f"{self._url} is no admin port of Warmgate") from None
        return read

    async def _send(
        self,
        method: str,
        path: str,
        *,
        params: list[tuple[str, str]] | None = None,
        body: dict[str, Any] | None = None,
    ) -> tuple[int, bytes]:
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_DEADLINE_S)) as session,
                session.request(
                    method,
                    self._url + path,
                    params=params,
                    data=None if body is None else orjson.dumps(body),
                    headers=headers,
                    # A credential goes to the address that was given, and nowhere else.
                    allow_redirects=False,
                ) as answer,
            ):
                return answer.status, await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise Trouble(f"{self._url} can't be asked: {exc or type(exc).__name__}") from exc


def admin_url(config: Config) -> str:
    """Where a gateway with this config has its admin port."""
    host = _LOOPBACK.get(config.admin.host, config.admin.host)
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{config.admin.port}"


def _said(status: int, body: bytes) -> str:
    try:
        return f"{orjson.loads(body)['error']['message']} ({status})"
    except (ValueError, KeyError, TypeError):
        return f"the admin port answered {status}"
