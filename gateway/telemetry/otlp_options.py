"""What the standard OTEL_EXPORTER_OTLP_* variables say of one signal.

Read from the mapping that we are given, not from the process, so that a config means the same
wherever it is loaded. A faulty value is told once and replaced by its default: telemetry that can't
be configured is no reason not to serve.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from opentelemetry.util.re import parse_env_headers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.telemetry.signals import Signal

_log = logging.getLogger(__name__)

GRPC, HTTP = "grpc", "http/protobuf"
_HTTP_ENDPOINT = "http://localhost:4318"
_GRPC_ENDPOINT = "http://localhost:4317"


@dataclass(frozen=True, slots=True)
class Options:
    """How one signal is sent."""

    protocol: str
    """`grpc` or `http/protobuf`."""
    endpoint: str
    """A URL; of gRPC `host:port`, with or without a scheme."""
    insecure: bool
    """Of gRPC: without TLS."""
    headers: dict[str, str]
    timeout_s: float
    compression: str
    """`none`, `gzip` or `deflate`."""
    certificate: str | None
    client_key: str | None
    client_certificate: str | None
    """Paths of PEM files."""


def options(environ: Mapping[str, str], signal: Signal) -> Options:
    """Each signal's own variable, else the one for all signals."""
    protocol = _protocol(environ, signal)
    endpoint = _endpoint(environ, signal, protocol)
    return Options(
        protocol,
        endpoint,
        insecure=_insecure(environ, signal, endpoint),
        headers=dict(parse_env_headers(_option(environ, signal, "HEADERS") or "", liberal=True)),
        timeout_s=_timeout_s(environ, signal),
        compression=_compression(environ, signal),
        certificate=_option(environ, signal, "CERTIFICATE"),
        client_key=_option(environ, signal, "CLIENT_KEY"),
        client_certificate=_option(environ, signal, "CLIENT_CERTIFICATE"),
    )


def number(environ: Mapping[str, str], name: str, default: float) -> float:
    """A variable's number; the default where it is not set or none."""
    text = environ.get(name, "").strip()
    if not text:
        return default
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        _log.warning("%s: not a number, taking %s", name, default)
        return default
    return found


def _option(environ: Mapping[str, str], signal: Signal, name: str) -> str | None:
    for variable in (f"OTEL_EXPORTER_OTLP_{signal}_{name}", f"OTEL_EXPORTER_OTLP_{name}"):
        if value := environ.get(variable, "").strip():
            return value
    return None


def _protocol(environ: Mapping[str, str], signal: Signal) -> str:
    name = (_option(environ, signal, "PROTOCOL") or HTTP).lower()
    if name not in (GRPC, HTTP):
        _log.warning(
            "OTEL_EXPORTER_OTLP_PROTOCOL: only grpc and http/protobuf are known here, taking"
            " http/protobuf"
        )
        return HTTP
    return name


def _endpoint(environ: Mapping[str, str], signal: Signal, protocol: str) -> str:
    if protocol == GRPC:
        return _option(environ, signal, "ENDPOINT") or _GRPC_ENDPOINT
    if own := environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", "").strip():
        return own  # "used as-is without any modification" (OTLP exporter specification)
    base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip() or _HTTP_ENDPOINT
    return f"{base.removesuffix('/')}/v1/{signal.lower()}"


def _insecure(environ: Mapping[str, str], signal: Signal, endpoint: str) -> bool:
    """`A scheme of https indicates a secure connection and takes precedence over the insecure
    configuration setting`, says the specification; so does http the other way.
    """
    try:
        scheme = urlsplit(endpoint).scheme if "://" in endpoint else ""
    except ValueError:
        scheme = ""
    if scheme in ("http", "https"):
        return scheme == "http"
    return (_option(environ, signal, "INSECURE") or "").lower() == "true"


def _timeout_s(environ: Mapping[str, str], signal: Signal) -> float:
    for variable in (f"OTEL_EXPORTER_OTLP_{signal}_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"):
        if environ.get(variable, "").strip():
            return max(0.1, number(environ, variable, 10.0))
    return 10.0


def _compression(environ: Mapping[str, str], signal: Signal) -> str:
    name = (_option(environ, signal, "COMPRESSION") or "none").lower()
    if name not in ("none", "gzip", "deflate"):
        _log.warning("OTEL_EXPORTER_OTLP_COMPRESSION: unknown, sending uncompressed")
        return "none"
    return name
