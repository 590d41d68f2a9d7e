"""The kinds of values a setting can have, each with its rule; a broken rule says how to mend it.

No message here repeats the value it refuses: it may hold a password.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_core import PydanticCustomError

from gateway.config.redis_store import fault_of_many, fault_of_one, is_of_many

RULE = "rule"
"""The type of every error raised here; its context has `problem` and `mend`."""

MIN_SECRET_CHARS = 16
_STORE_FORMS = (
    "memory://, sqlite:///path, redis://host:6379/0, redis+sentinel://host1,host2/service or "
    "redis+cluster://host1,host2 (rediss for TLS)"
)
_UPSTREAM_NAME = re.compile(r"[a-z0-9_-]{1,64}")
# A header's value and a part of a path; an address with its port is one.
_BACKEND_NAME = re.compile(r"[A-Za-z0-9_.:\[\]-]{1,128}")
# RFC 9110 section 5.1: field-name = token.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VISIBLE_ASCII = re.compile(r"[!-~]+")


def broken(problem: str, mend: str) -> PydanticCustomError:
    """The error of a broken rule."""
    return PydanticCustomError(RULE, "{problem}; {mend}", {"problem": problem, "mend": mend})


def _number(value: Any) -> Any:
    # Python's True is 1: `port: yes` would otherwise listen on port 1.
    if isinstance(value, bool):
        raise broken("is true or false, not a number", "write a number")
    return value


def _switch(value: Any) -> Any:
    # YAML 1.1 reads a bare `on` or `off` as a boolean, and Helm writes it out as one.
    if isinstance(value, bool):
        return "on" if value else "off"
    return value


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str | SecretStr) else value


def _upstream_name(name: str) -> str:
    if not _UPSTREAM_NAME.fullmatch(name):
        raise broken(
            "is not a name for an upstream",
            "use 1 to 64 of a-z, 0-9, - and _, because it is part of /u/NAME/v1",
        )
    return name


def _warm_name(name: str) -> str:
    if not _UPSTREAM_NAME.fullmatch(name):
        raise broken("is not a name for a warm-up", "use 1 to 64 of a-z, 0-9, - and _")
    return name


def _backend_name(name: str) -> str:
    if not _BACKEND_NAME.fullmatch(name):
        raise broken(
            "is not a name for a backend", "use 1 to 128 of a-z, A-Z, 0-9, _ . : [ ] and -"
        )
    return name


def _header_name(name: str) -> str:
    if not _HEADER_NAME.fullmatch(name):
        raise broken(
            "is not a header name", "use letters, digits and hyphens, such as x-gateway-tenant"
        )
    return name.lower()


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        try:
            whole = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise broken("is not a CIDR range", "write one such as 10.0.0.0/8") from None
        raise broken("names an address inside its range, not the range", f"write {whole}") from None
    return text


def _credential(secret: SecretStr) -> SecretStr:
    # It goes out in a header: a newline or a space would end or split it.
    if not _VISIBLE_ASCII.fullmatch(secret.get_secret_value()):
        raise broken(
            "is empty or has a space, a line break or a letter beyond ASCII",
            "give the bare key, as the provider shows it",
        )
    return secret


def _scope_key(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value()) < MIN_SECRET_CHARS:
        raise broken(
            f"is shorter than {MIN_SECRET_CHARS} characters",
            "give a long random one, such as the output of `openssl rand -hex 32`",
        )
    return secret


def _glob_over_path(glob: str) -> str:
    if not glob.startswith(("/", "*")):
        raise broken("can match no path", "begin it with / or *, such as /v1/chat/completions")
    return glob


def _base_url(url: str) -> str:
    example = "write one such as https://api.openai.com/v1"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise broken("is not a URL", example) from None
    if parts.scheme not in {"http", "https"} or not host:
        raise broken("is not an absolute http:// or https:// URL with a host", example)
    if not _VISIBLE_ASCII.fullmatch(url):
        raise broken("has a space or a letter beyond ASCII", "percent-encode it")
    if "@" in parts.netloc:
        raise broken("holds a user name or password", "leave it out and set api_key instead")
    if "?" in url or "#" in url:
        raise broken("has a query or a fragment", "end it with the provider's prefix, such as /v1")
    return url.rstrip("/")


def _store_url(url: str) -> str:
    if is_of_many(url):
        if fault := fault_of_many(url):
            raise broken(*fault)
        return url
    try:
        parts = urlsplit(url)
        _ = parts.hostname, parts.port
    except ValueError:
        raise broken("is not a URL", f"write {_STORE_FORMS}") from None
    match parts.scheme:
        case "memory":
            if url != "memory://":
                raise broken("says more than memory:// can hold", "write memory://")
        case "sqlite":
            if parts.netloc or not parts.path.strip("/") or not url.startswith("sqlite:///"):
                raise broken(
                    "names no SQLite file",
                    "write three slashes and the path: sqlite:///var/lib/warmgate/cache.db",
                )
        case "redis" | "rediss":
            if fault := fault_of_one(parts):
                raise broken(*fault)
        case _:
            raise broken("is of a kind that no store knows", f"write {_STORE_FORMS}")
    return url


ProviderName = Literal[
    "openai", "azure", "anthropic", "vllm", "sglang", "llamacpp", "openrouter", "unknown"
]
ENGINES = ("vllm", "sglang", "llamacpp")
"""Providers that one hosts oneself: they tell what their prefix cache does, and usually ask for no
credential. The providers' own list is `providers.base.ENGINES`; the config knows no provider."""
When = Annotated[Literal["always", "deterministic", "off"], BeforeValidator(_switch)]
Coalesce = Annotated[Literal["deterministic", "all", "off"], BeforeValidator(_switch)]
Markers = Annotated[Literal["off", "respect", "auto", "strip"], BeforeValidator(_switch)]
Rewrite = Literal[
    "strip-billing",
    "sort-tools",
    "sort-schemas",
    "round-time",
    "round-hour",
    "move-volatile",
]
Refresh = Annotated[Literal["off", "local", "all"], BeforeValidator(_switch)]
Policy = Literal["prefix", "session", "round_robin", "least_pending", "delegate"]
Traces = Annotated[Literal["auto", "on", "off"], BeforeValidator(_switch)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_number)]
Duration = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_number)]
PositiveInt = Annotated[int, Field(gt=0), BeforeValidator(_number)]
Count = Annotated[int, Field(ge=0), BeforeValidator(_number)]
Port = Annotated[int, Field(ge=0, le=65535), BeforeValidator(_number)]
Samples = Annotated[int, Field(ge=1, le=20), BeforeValidator(_number)]
Host = Annotated[str, Field(min_length=1)]
Network = Annotated[str, AfterValidator(_network)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
WarmName = Annotated[str, AfterValidator(_warm_name)]
UpstreamName = Annotated[str, AfterValidator(_upstream_name)]
BackendName = Annotated[str, AfterValidator(_backend_name)]
PathGlob = Annotated[str, AfterValidator(_glob_over_path)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
StoreUrl = Annotated[str, AfterValidator(_store_url)]
Credential = Annotated[SecretStr, AfterValidator(_credential)]
AdminToken = Annotated[SecretStr, AfterValidator(_credential), AfterValidator(_scope_key)]
ScopeKeys = Annotated[
    tuple[Annotated[SecretStr, AfterValidator(_scope_key)], ...], BeforeValidator(_one_or_many)
]
