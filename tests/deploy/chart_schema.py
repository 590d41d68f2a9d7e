"""Keeps `$defs` in the chart's values.schema.json in step with the gateway's settings.

After a change of the settings: .venv/bin/python -m tests.deploy.chart_schema
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gateway.config import Config

SCHEMA_FILE = Path(__file__).parents[2] / "helm/warmgate/values.schema.json"

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
    schema["$defs"] = settings_schema()
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(rendered(), encoding="utf-8")
