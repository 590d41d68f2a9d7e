"""What Kubernetes says to a manifest: its own schemas, and those of the kinds that others bring.

The schemas of Kubernetes come with the package kubernetes-validate, strict: an unknown member is a
fault. Kinds of the Prometheus operator and the Gateway API have no schema there; below stands what
the chart uses of them, and nothing else passes. (Members and types are those of the published CRDs,
against which the same manifests were once validated: @kubernetes-models/prometheus-operator 6.0.0
and gateway-api 2.0.0 have them.)
"""

from __future__ import annotations

import functools
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # comes with the next, and has none
from kubernetes_validate import utils  # type: ignore[import-untyped]  # has none

# The oldest that the chart takes, and the four latest.
KUBES = ["1.30", "1.34", "1.35", "1.36", "1.37"]

# The same files are read for each manifest: the definitions alone are a megabyte.
_schema_contents = functools.cache(utils.schema_contents)

_STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
_METADATA = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {"name": {"type": "string"}, "labels": _STRINGS, "annotations": _STRINGS},
}
_DURATION = "^([0-9]{1,5}(h|m|s|ms)){1,4}$"
_HOST = {"type": "string", "minLength": 1, "maxLength": 253}


def _strict(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": properties,
    }


def _of(api_version: str, spec: dict[str, Any]) -> dict[str, Any]:
    return _strict(
        {
            "apiVersion": {"const": api_version},
            "kind": {"type": "string"},
            "metadata": _METADATA,
            "spec": spec,
        },
        *("apiVersion", "kind", "metadata", "spec"),
    )


def _list(item: dict[str, Any], *, most: int = 16, least: int = 0) -> dict[str, Any]:
    return {"type": "array", "items": item, "maxItems": most, "minItems": least}


_TEXT = {"type": "string", "minLength": 1}
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}

# https://prometheus-operator.dev/docs/api-reference/api/ and https://gateway-api.sigs.k8s.io/reference/spec/
OTHERS = {
    "PodMonitor": _of(
        "monitoring.coreos.com/v1",
        _strict(
            {
                "selector": _strict({"matchLabels": _STRINGS}),
                "podMetricsEndpoints": _list(
                    _strict(
                        {
                            "port": _TEXT,
                            "path": _TEXT,
                            "interval": {"type": "string", "pattern": "^[0-9]+(ms|s|m)$"},
                            "relabelings": _list(
                                _strict({"targetLabel": _TEXT, "replacement": _TEXT})
                            ),
                        }
                    )
                ),
            },
            *("selector", "podMetricsEndpoints"),
        ),
    ),
    "PrometheusRule": _of(
        "monitoring.coreos.com/v1",
        _strict(
            {
                "groups": _list(
                    _strict(
                        {
                            "name": _TEXT,
                            "rules": _list(
                                {
                                    **_strict(
                                        {
                                            "alert": _TEXT,
                                            "record": _TEXT,
                                            "expr": _TEXT,
                                            "for": {"type": "string", "pattern": _DURATION},
                                            "labels": _STRINGS,
                                            "annotations": _STRINGS,
                                        },
                                        "expr",
                                    ),
                                    "oneOf": [{"required": ["alert"]}, {"required": ["record"]}],
                                },
                                most=100,
                            ),
                        },
                        *("name", "rules"),
                    )
                )
            },
            "groups",
        ),
    ),
    "HTTPRoute": _of(
        "gateway.networking.k8s.io/v1",
        _strict(
            {
                "parentRefs": _list(
                    _strict(
                        {"name": _TEXT, "namespace": _TEXT, "sectionName": _TEXT, "port": _PORT},
                        "name",
                    ),
                    most=32,
                ),
                "hostnames": _list(_HOST),
                "rules": _list(
                    _strict(
                        {
                            "matches": _list(
                                _strict(
                                    {
                                        "path": _strict(
                                            {
                                                "type": {
                                                    "enum": [
                                                        "Exact",
                                                        "PathPrefix",
                                                        "RegularExpression",
                                                    ]
                                                },
                                                "value": {"type": "string", "pattern": "^/"},
                                            }
                                        )
                                    }
                                ),
                                most=64,
                            ),
                            "timeouts": _strict(
                                {"request": {"type": "string", "pattern": _DURATION}}
                            ),
                            "backendRefs": _list(
                                _strict({"name": _TEXT, "port": _PORT}, "name", "port")
                            ),
                        }
                    ),
                    least=1,
                ),
            },
            *("parentRefs", "rules"),
        ),
    ),
}


def complaints(manifest: dict[str, Any], kube: str) -> list[str]:
    """What is wrong with a manifest for a Kubernetes such as `1.37`.

    Raises SchemaNotFoundError for a kind that nobody knows: nothing would have been looked at.
    """
    if manifest["kind"] in OTHERS:
        validator = jsonschema.Draft202012Validator(OTHERS[manifest["kind"]])
        return [f"{e.json_path}: {e.message}" for e in validator.iter_errors(manifest)]
    utils.schema_contents = _schema_contents
    try:
        used = utils.validate(manifest, kube, strict=True)
    except utils.ValidationError as exc:
        return [f"{'.'.join(map(str, exc.path))}: {exc.message}"]
    # Of a version that it does not have it would take an older one.
    assert used == kube
    return []
