"""Writes the reference page of the providers' tables: every line with its reason and source.

After a change of a table: .venv/bin/python -m tests.providers.table_page
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gateway.providers.registry import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gateway.providers.base import ApiRules, Provider, Rule

PAGE = Path(__file__).parents[2] / "docs/reference/providers.md"

# What a whole API allows, beside the lines about single members.
SWITCHES = {
    "fold_tools": "member order of tools",
    "fold_schemas": "keyword order of schemas",
    "string_is_text_part": "a string and one text part",
    "rename_tool_ids": "tool-call ids",
    "stream_usage": "usage in streams",
    "usage_always": "usage in streams",
}

INTRO = """\
# Providers: what is known of each member

Made from the tables in [gateway/providers](../../gateway/providers) by
`python -m tests.providers.table_page`; [keys](../explanation/keys.md) says what they are for.

| Class | Means |
| --- | --- |
| KEYED | Known, and part of the key as it was sent. So is every member that is not listed here. |
| SCALAR | Part of the key as a JSON value: number spelling and member order don't matter. |
| EXCLUDED | Not part of the key: documented as unable to change the answer. |
| DEFAULT | Left out of the key where it holds the value that leaving it out stands for. |
| MARKER | Left out of the key where it is a member of a part, a block or a tool. |
| RULE | Holds for the whole API, not for one member. |
"""


class Line(NamedTuple):
    """One line of a table."""

    member: str
    kind: str
    rule: Rule


def lines(api: ApiRules) -> Iterator[Line]:
    """Every line of an API's tables, class by class; what is configured is not in them."""
    for kind, table in (
        ("KEYED", api.keyed),
        ("SCALAR", api.scalars),
        ("EXCLUDED", api.excluded),
        ("MARKER", api.markers),
    ):
        yield from (Line(member, kind, rule) for member, rule in table.items())
    for owner, members in api.excluded_members.items():
        yield from (Line(f"{owner}.{name}", "EXCLUDED", rule) for name, rule in members.items())
    for member, default in api.defaults.items():
        value = str(default.value).lower()
        yield Line(f"{member}: {value}", "DEFAULT", default.rule)
    for name, title in SWITCHES.items():
        if (rule := getattr(api, name)) is not None:
            yield Line(title, "RULE", rule)


_HEAD = "| Member | Class | Why | Source |\n| --- | --- | --- | --- |"


def _rows(of: Iterable[Line]) -> Iterator[str]:
    """One row for all members of which the same is said."""
    alike: dict[tuple[str, Rule], list[str]] = {}
    for member, kind, rule in sorted(of, key=lambda line: line[:2]):
        alike.setdefault((kind, rule), []).append(member if kind == "RULE" else f"`{member}`")
    for (kind, rule), members in alike.items():
        yield f"| {', '.join(members)} | {kind} | {rule.reason} | {rule.source} |"


def _provider(provider: Provider) -> Iterator[str]:
    yield f"\n## {provider.name}\n"
    hosts = [*sorted(provider.hosts), *(f"*{end}" for end in provider.host_suffixes)]
    yield f"Hosts: {', '.join(f'`{host}`' for host in hosts) or 'none; named in the config'}."
    prefixes = provider.header_prefixes
    keyed = "all but transport" if prefixes is None else ", ".join(f"`{p}*`" for p in prefixes)
    yield f"Keyed headers: {keyed}."
    if provider.headers_excluded:
        yield f"\n{_HEAD.replace('Member', 'Header')}"
        yield from _rows(Line(n, "EXCLUDED", r) for n, r in provider.headers_excluded.items())
    for name, api in provider.apis.items():
        yield f"\n### {name} at {provider.name}\n"
        yield _HEAD
        yield from _rows(lines(api))


def rendered() -> str:
    """The page as it should be."""
    sections = (line for provider in PROVIDERS.values() for line in _provider(provider))
    return "\n".join((INTRO.rstrip("\n"), *sections)) + "\n"


if __name__ == "__main__":
    PAGE.write_text(rendered(), encoding="utf-8")
