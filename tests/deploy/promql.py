"""What a PromQL expression names, and every expression of what is deployed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = DEPLOY / "grafana/warmgate.json"
ALERTS = DEPLOY / "prometheus/alerts.yaml"

_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"')
_GROUPED = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_BRACES = re.compile(r"\{([^{}]*)\}")
_LABEL = re.compile(r"([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)")
_RANGE = re.compile(r"\[[^\]]*\]")
_OFFSET = re.compile(r"\boffset\s+\w+")
_NAME = re.compile(r"(?<![\w:.])[a-zA-Z_:][\w:]*")
_WORDS = frozenset(("and", "or", "unless", "bool", "by", "on", "offset", "inf", "nan"))
_VARIABLES = {
    "$__rate_interval": "5s",
    "$__range": "1h",
}


def metrics_of(expression: str) -> set[str]:
    """The names of the metrics in it."""
    bare = _OFFSET.sub(" ", _RANGE.sub(" ", _STRINGS.sub('""', expression)))
    bare = _GROUPED.sub(" ", _BRACES.sub(" ", bare))
    return {
        found[0]
        for found in _NAME.finditer(bare)
        # A function is followed by what it takes.
        if found[0] not in _WORDS and not bare[found.end() :].lstrip().startswith("(")
    }


def labels_of(expression: str) -> set[str]:
    """The labels that it selects or groups by."""
    bare = _STRINGS.sub('""', expression)
    found = {name for braces in _BRACES.findall(bare) for name in _LABEL.findall(braces)}
    for grouped in _GROUPED.findall(bare):
        inside = grouped.partition("(")[2].rstrip(")")
        found |= {name.strip() for name in inside.split(",") if name.strip()}
    return found


def of_dashboard(dashboard: dict[str, Any] | None = None) -> dict[str, str]:
    """Its expressions by the panel (and target) that shows them, with variables filled in."""
    told = dashboard or json.loads(DASHBOARD.read_text(encoding="utf-8"))
    found = {
        f"{panel['title']} {target['refId']}": filled(target["expr"])
        for panel in told["panels"]
        for target in panel.get("targets", ())
    }
    for each in told["annotations"]["list"]:
        found[f"annotation {each['name']}"] = filled(each["expr"])
    return found


def filled(expression: str) -> str:
    """As Grafana sends it with everything chosen."""
    for name, value in _VARIABLES.items():
        expression = expression.replace(name, value)
    return re.sub(r"\$\{?\w+\}?", ".*", expression)


def rules() -> list[dict[str, Any]]:
    """All rules of the alerts' file."""
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def of_rules() -> dict[str, str]:
    """Their expressions by name."""
    return {rule.get("alert") or rule["record"]: rule["expr"] for rule in rules()}
