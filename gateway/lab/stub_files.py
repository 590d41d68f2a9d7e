"""OpenAI's `/v1/files` for the stub: uploads kept in memory, a bounded number of them."""

from __future__ import annotations

import re
import time
from typing import Any

import orjson
from aiohttp import web

from gateway.lab.stub_openai import error, fresh_id

_MOST_FILES = 64


class Shelf:
    """Uploaded files by id: their metadata and bytes. The oldest falls off."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[dict[str, Any], bytes]] = {}

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [
            web.post("/v1/files", self._upload),
            web.get("/v1/files", self._list),
            web.get("/v1/files/{id}", self._show),
            web.get("/v1/files/{id}/content", self._content),
            web.delete("/v1/files/{id}", self._delete),
        ]

    async def _upload(self, request: web.Request) -> web.Response:
        purpose, filename, content = "", "", None
        for name, given, body in _parts(
            request.headers.get("content-type", ""), await request.read()
        ):
            if name == "purpose":
                purpose = body.decode()
            elif name == "file":
                filename, content = given or "upload", body
        if content is None or not purpose:
            return _refused(400, "'file' and 'purpose' are required")
        file_id = fresh_id("file-", 22)
        meta: dict[str, Any] = {
            "object": "file",
            "id": file_id,
            "purpose": purpose,
            "filename": filename,
            "bytes": len(content),
            "created_at": int(time.time()),
            "expires_at": None,
            "status": "processed",
            "status_details": None,
        }
        self._files[file_id] = (meta, content)
        while len(self._files) > _MOST_FILES:
            del self._files[next(iter(self._files))]
        return _json(meta)

    async def _list(self, _request: web.Request) -> web.Response:
        data = [meta for meta, _ in reversed(self._files.values())]
        ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
        return _json({"object": "list", "data": data, "has_more": False, **ends})

    async def _show(self, request: web.Request) -> web.Response:
        found = self._files.get(request.match_info["id"])
        return _json(found[0]) if found else _missing(request)

    async def _content(self, request: web.Request) -> web.Response:
        found = self._files.get(request.match_info["id"])
        if not found:
            return _missing(request)
        named = f'attachment; filename="{found[0]["filename"]}"'
        return web.Response(
            body=found[1],
            content_type="application/octet-stream",
            headers={"content-disposition": named},
        )

    async def _delete(self, request: web.Request) -> web.Response:
        found = self._files.pop(request.match_info["id"], None)
        if not found:
            return _missing(request)
        return _json({"object": "file", "deleted": True, "id": found[0]["id"]})


def _parts(content_type: str, body: bytes) -> list[tuple[str, str, bytes]]:
    """Name, file name and bytes of each part of a form (RFC 7578).

    From the whole body, not from aiohttp's reader: the stub has kept the body by now.
    """
    boundary = re.search(r'boundary="?([^";]+)', content_type)
    if boundary is None:
        return []
    found = []
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary[1].encode())[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        given = dict(re.findall(r'[; ](name|filename)="([^"]*)"', head.decode()))
        found.append((given.get("name", ""), given.get("filename", ""), content))
    return found


def _json(document: dict[str, Any]) -> web.Response:
    body = orjson.dumps(document, option=orjson.OPT_INDENT_2)
    return web.Response(body=body, content_type="application/json")


def _missing(request: web.Request) -> web.Response:
    return _refused(404, f"No such File object: {request.match_info['id']}")


def _refused(status: int, message: str) -> web.Response:
    reply = error(status, message, param="id")
    return web.Response(status=status, body=reply.body, content_type="application/json")
