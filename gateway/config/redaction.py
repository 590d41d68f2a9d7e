"""What may be shown of a setting."""

from __future__ import annotations

import re
from typing import Any

from pydantic import SecretStr

MASK = "********"
# Up to the last @ before the path: passwords in the wild have unescaped @ in them.
_USERINFO = re.compile(r"(?<=://)[^/?#]*@")
# redis-py also takes a password from the query.
_SECRET_PARAMETER = re.compile(
    r"(?<=[?&])([^=&#]*(?:pass|pwd|secret|token|key)[^=&#]*)=[^&#]*", re.IGNORECASE
)


def redact_url(text: str) -> str:
    """`redis://user:pw@host` -> `redis://user:********@host`; other text as it is.

    User info without a colon is masked whole: it may be a token.
    """
    if "://" not in text:
        return text
    return _SECRET_PARAMETER.sub(rf"\1={MASK}", _USERINFO.sub(_mask_userinfo, text))


def _mask_userinfo(match: re.Match[str]) -> str:
    user, colon, _ = match.group()[:-1].partition(":")
    return f"{user}:{MASK}@" if colon else f"{MASK}@"


def redact(value: Any) -> Any:
    """A dumped tree as plain JSON values, secrets masked."""
    match value:
        case SecretStr():
            return MASK
        case str():
            return redact_url(value)
        case dict():
            return {name: redact(member) for name, member in value.items()}
        case list() | tuple():
            return [redact(member) for member in value]
        case _:
            return value
