"""Keeps what the chart has of others in step with them: the gateway's settings in its schema, alerts
and dashboard of deploy/ among its files.

After a change of any of these: .venv/bin/python -m tests.deploy.chart_schema
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from gateway.config import Config

ROOT = Path(__file__).parents[2]
SCHEMA_FILE = ROOT / "helm/warmgate/values.schema.json"
# A chart is packaged without what lies beside it, so it has copies.
COPIES = {
    ROOT / "helm/warmgate/files/alerts.yaml": ROOT / "deploy/prometheus/alerts.yaml",
    ROOT / "helm/warmgate/files/dashboard.json": ROOT / "deploy/grafana/warmgate.json",
}

# Addresses and ports come from the chart's own values, as variables of the container.
CHART_OWNED = {"Server": ("host", "port", "probe_host", "probe_port")}


def settings_schema() -> dict[str, Any]:
    """What a chart's `config` may hold: the settings without addresses and credentials.

    A credential in the values would end in a ConfigMap, so the schema does not know those members.
    """
    whole = Config.model_json_schema()
    definitions: dict[str, Any] = whole.pop("$defs")
    definitions["Config"] = whole
    for name, definition in definitions.items():
        members: dict[str, Any] = definition.get("properties", {})
        for member in list(members):
            if member in CHART_OWNED.get(name, ()) or _is_secret(members[member]):
                del members[member]
    return {name: _trimmed(definitions[name]) for name in sorted(definitions)}


def secret_settings() -> str:
    """A pattern of the paths, `__` between their parts, whose values come from Secrets.

    The store's URL is among them, because it may carry a password.
    """
    whole = Config.model_json_schema()
    found = sorted({"store__url", *_secret_paths(whole, whole["$defs"])})
    return f"^({'|'.join(found)})$"


def _secret_paths(node: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    found = []
    for name, member in node.get("properties", {}).items():
        if _is_secret(member):
            found.append(name)
        for named in _named(member):
            found += [f"{name}__{path}" for path in _secret_paths(definitions[named], definitions)]
        for named in _named(member.get("additionalProperties", {})):
            # The name that the user gives; the file is named after it.
            found += [
                f"{name}__[a-z0-9_-]+__{path}"
                for path in _secret_paths(definitions[named], definitions)
            ]
    return found


def _named(node: Any) -> list[str]:
    """The definitions that a member refers to itself, not through a list or a mapping."""
    if not isinstance(node, dict):
        return []
    refs = [node, *node.get("anyOf", ()), *node.get("allOf", ())]
    return [re.sub("^#/[$]defs/", "", ref["$ref"]) for ref in refs if "$ref" in ref]


def _is_secret(node: Any) -> bool:
    return '"format": "password"' in json.dumps(node)


def _trimmed(node: Any, *, names: bool = False) -> Any:
    """`node` without titles and defaults; `names`: its members are names, not keywords."""
    if isinstance(node, list):
        return [_trimmed(item) for item in node]
    if not isinstance(node, dict):
        return node
    trimmed = {
        key: _trimmed(value, names=key == "properties" and not names)
        for key, value in node.items()
        if names or key not in {"title", "default"}
    }
    if not names and "off" in trimmed.get("enum", ()):
        # Helm reads a bare `off` as false; the gateway takes it for what was meant.
        switches = [value == "on" for value in trimmed["enum"] if value in {"on", "off"}]
        trimmed["enum"] = [*trimmed["enum"], *switches]
        trimmed.pop("type", None)
    return trimmed


def rendered() -> str:
    """The schema file as it should be."""
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    (reference,) = schema["properties"]["secrets"]["patternProperties"].values()
    schema["properties"]["secrets"]["patternProperties"] = {secret_settings(): reference}
    schema["$defs"] = settings_schema()
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(rendered(), encoding="utf-8")
    for copy, source in COPIES.items():
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(source.read_bytes())
