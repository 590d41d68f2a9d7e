"""The page of the admin port: one file, and what a browser is told of how far to trust it."""

from __future__ import annotations

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

_FILE = Path(__file__).with_name("page.html")
_INLINE = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)


class PageFile(NamedTuple):
    """The file and its headers."""

    body: bytes
    headers: dict[str, str]


@cache
def page_file() -> PageFile:
    """Read once. Raises OSError where the installation lacks it."""
    body = _FILE.read_bytes()
    hashes: dict[bytes, list[str]] = {b"script": [], b"style": []}
    for kind, text in _INLINE.findall(body):
        hashes[kind].append(f"'sha256-{b64encode(sha256(text).digest()).decode()}'")
    policy = (
        # What is written in the file runs, and nothing else: no other script, no other host, no
        # text of a client's that somebody took for HTML.
        "default-src 'none'",
        f"script-src {' '.join(hashes[b'script'])}",
        f"style-src {' '.join(hashes[b'style'])}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    return PageFile(
        body,
        {
            "Cache-Control": "no-store",
            "Content-Security-Policy": "; ".join(policy),
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
        },
    )
