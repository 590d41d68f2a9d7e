"""The harness's bodies and tables."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import orjson
import pytest

from bench.bodies import ANSWER, MARK, SIZES, chat
from bench.report import Rows, markdown, plot


@pytest.mark.parametrize("name", SIZES)
def test_a_body_has_the_size_it_is_named_for_and_one_mark(name: str) -> None:
    body = chat(SIZES[name])
    assert abs(len(body) - SIZES[name]) <= SIZES[name] * 0.03
    assert body.count(MARK.encode()) == 1
    assert body == chat(SIZES[name])
    asked = orjson.loads(body)
    assert asked["tools"]
    assert asked["temperature"] == 0


def row(case: str, size: str, cpu: float | None) -> dict[str, Any]:
    times = {"per_s": 1000.0, "p50_us": 100.0 if case == "direct" else 150.0, "p99_us": 300.0}
    return {"kind": "requests", "case": case, "size": size, "requests": 1, "cpu_us": cpu, **times}


RESULT: dict[str, Any] = {
    "taken": "2026-01-02",
    "machine": {"cpu": "any"},
    "method": {"rounds": 2, "seconds": 2, "connections": 64, "streams": 64, "events": 100},
    "peers": ["other==1.0"],
    "facts": {"gateway": {"start_s": 0.5, "rss_idle_bytes": 64.0 * 1024 * 1024}},
    "rows": [
        row("direct", "1k", None),
        row("nginx proxy", "1k", 20.0),
        row("pass-through", "1k", 40.0),
        row("nginx proxy", "1k", 40.0),
        row("pass-through", "1k", 120.0),
    ],
    "refused": {"portkey 1k": "needs node"},
}


def test_the_tables_tell_medians_ratios_and_what_was_not_measured() -> None:
    text = markdown(RESULT)
    assert "| pass-through | 80 (2.5x) | - | - |" in text
    assert "| pass-through | 50 / 0 | - | - |" in text
    assert "| pass-through to nginx proxy, 1k | 2.5x | 2.50x | reached |" in text
    assert "| gateway | 0.50 | 64 | - |" in text
    assert "Not measured: portkey 1k: needs node" in text


def test_the_plot_is_a_picture_with_a_bar_for_each_case() -> None:
    drawn = ET.fromstring(plot(Rows(RESULT["rows"]), "1k"))
    words = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert words[1:] == ["nginx proxy", "30", "pass-through", "80"]


def test_the_stubs_answer_is_one_that_is_stored() -> None:
    answer = orjson.loads(ANSWER)
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["total_tokens"] == 9250
