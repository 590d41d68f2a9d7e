"""Which signals the standard OTEL_* variables ask for, and what they say of us.

Apart from `otlp.py`, which sends them: most gateways push nothing, and need not load how.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote

from opentelemetry.sdk.resources import Resource

from gateway.telemetry import semconv

if TYPE_CHECKING:
    from collections.abc import Mapping

Signal = Literal["TRACES", "METRICS", "LOGS"]

_log = logging.getLogger(__name__)


def disabled(environ: Mapping[str, str]) -> bool:
    """OTEL_SDK_DISABLED: no signal at all."""
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def has_endpoint(environ: Mapping[str, str], signal: Signal) -> bool:
    """Whether somebody said where this signal goes."""
    return any(
        environ.get(name, "").strip()
        for name in (f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    )


def wants_otlp(environ: Mapping[str, str], signal: Signal) -> bool:
    """OTEL_TRACES_EXPORTER or OTEL_METRICS_EXPORTER: unset means OTLP, `none` nothing."""
    names = {n.strip().lower() for n in environ.get(f"OTEL_{signal}_EXPORTER", "").split(",")}
    names.discard("")
    unknown = names - {"otlp", "none", "prometheus"}
    if unknown:
        _log.warning("OTEL_%s_EXPORTER: only otlp and none are known here", signal)
    return not names or "otlp" in names


def resource(environ: Mapping[str, str], version: str) -> Resource:
    """Who we are: OTEL_RESOURCE_ATTRIBUTES, then OTEL_SERVICE_NAME, over our own defaults."""
    attributes: dict[str, str] = {
        semconv.SERVICE_NAME: semconv.SCOPE,
        semconv.SERVICE_VERSION: version,
    }
    for item in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, found, value = item.partition("=")
        if found and key.strip():
            attributes[key.strip()] = unquote(value.strip())
    if name := environ.get("OTEL_SERVICE_NAME", "").strip():
        attributes[semconv.SERVICE_NAME] = name
    return Resource.create(attributes)
