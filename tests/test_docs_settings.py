"""The reference page lists what the models hold: no setting more, none less, nothing stale."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.config.catalogue import Setting, catalogue
from gateway.config.environment import ALIASES, CONFIG_FILE, FROM_FILE

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "settings.md"


def row(setting: Setting) -> str:
    """The line that belongs on the page; a failure shows it, ready to paste."""
    if setting.required:
        default = "required"
    elif setting.default is None:
        default = "unset"
    elif isinstance(setting.default, bool):
        default = f"`{str(setting.default).lower()}`"
    elif setting.default == ():
        default = "`[]`"
    else:
        default = f"`{setting.default}`"
    env = f"`{setting.env}`" if setting.env else "-"
    return f"| `{setting.path}` | {env} | {setting.kind} | {default} | {setting.description} |"


def rows_on_the_page() -> dict[str, str]:
    lines = PAGE.read_text().splitlines()
    return {m[1]: line for line in lines if (m := re.match(r"\| `([^`]+)` \|", line))}


@pytest.mark.parametrize("setting", catalogue(), ids=lambda setting: setting.path)
def test_the_page_has_the_setting_as_the_models_have_it(setting: Setting) -> None:
    assert rows_on_the_page().get(setting.path) == row(setting)


def test_the_page_lists_nothing_else() -> None:
    assert set(rows_on_the_page()) == {setting.path for setting in catalogue()}


def test_every_setting_says_what_it_is_for() -> None:
    assert [s.path for s in catalogue() if not s.description.endswith(".")] == []


def test_the_page_names_the_variables_that_are_no_settings() -> None:
    text = PAGE.read_text()
    assert [name for name in (*ALIASES, CONFIG_FILE, FROM_FILE) if f"`{name}`" not in text] == []
