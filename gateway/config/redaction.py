"""What may be shown of a setting."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel, SecretStr

MASK = "********"
_LEAST = 6
"""Characters of a secret that is looked for in other text."""
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


def secrets_in(tree: Any) -> frozenset[str]:
    """Every secret of a config: credentials, and user info and secret parameters of URLs, as they are
    written and as they are meant. Too short ones are left out: they would be anywhere.
    """
    found: set[str] = set()
    match tree:
        case SecretStr():
            found.add(tree.get_secret_value())
        case str() if "://" in tree:
            user_info = [match.group()[:-1] for match in _USERINFO.finditer(tree)]
            found.update(part for each in user_info for part in (each.partition(":")[2] or each,))
            found.update(
                match.group().partition("=")[2] for match in _SECRET_PARAMETER.finditer(tree)
            )
            found |= {unquote(each) for each in found}
        case BaseModel():
            for name in type(tree).model_fields:
                found |= secrets_in(getattr(tree, name))
        case dict():
            for member in tree.values():
                found |= secrets_in(member)
        case list() | tuple():
            for member in tree:
                found |= secrets_in(member)
        case _:
            pass
    return frozenset(each for each in found if len(each) >= _LEAST)
