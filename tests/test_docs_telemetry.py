"""docs/reference/metrics.md is complete and current: it names what exists, and nothing else."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from gateway.telemetry import logs, semconv

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "metrics.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def named_in(section: str) -> set[str]:
    prose = re.sub(r"^```.*?^```", "", SECTIONS[section], flags=re.MULTILINE | re.DOTALL)
    return set(re.findall(r"`([^`]+)`", prose))


def constants(prefix: str = "") -> dict[str, str]:
    return {
        key: value
        for key, value in vars(semconv).items()
        if key.isupper() and key.startswith(prefix) and isinstance(value, str)
    }


def first_column(section: str) -> set[str]:
    """The names in the first column of the section's table."""
    rows = re.findall(r"^\| (`.+?) \|", SECTIONS[section], re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_every_name_that_leaves_the_process_is_on_the_page() -> None:
    missing = {
        key: name for key, name in constants().items() if not re.search(rf"{re.escape(name)}", PAGE)
    }
    assert missing == {}


def test_the_table_of_metrics_names_every_instrument_and_no_other() -> None:
    assert first_column("Metrics") == set(constants("M_").values())


def test_every_label_of_our_own_is_named_with_the_metrics() -> None:
    assert set(constants("L_").values()) <= named_in("Metrics")


def test_the_table_of_attributes_names_every_attribute_and_no_other() -> None:
    metrics_only = {semconv.GEN_AI_TOKEN_MODALITY, semconv.GEN_AI_TOKEN_TYPE}
    on_spans = {
        name
        for key, name in constants().items()
        if "." in name and not key.startswith(("M_", "SERVICE_", "EVENT_"))
    }
    older = set(semconv.V1_41.values())
    assert first_column("Spans") == on_spans - metrics_only - older
    assert older <= named_in("Spans")


def test_every_field_of_the_log_line_is_in_its_table() -> None:
    source = inspect.getsource(logs.request_line)
    fields = set(re.findall(r'"([a-z_0-9]+)":', source))
    fields |= set(re.findall(r'line\["([a-z_0-9]+)"\]', source))
    assert len(fields) > 15
    assert first_column("The log line") == fields | {"ts", "level", "event"}
