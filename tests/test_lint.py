"""`gateway lint`: prompts with known faults, clean ones, recorded traffic, and what is printed."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from gateway import lint
from gateway.cli import main
from gateway.core import canonical
from gateway.core.traffic import Traffic
from gateway.wire import prompts
from tests.helpers import taubench

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path(__file__).parent / "data" / "lint"

# File -> the faults in it, all of them: what, and where.
FAULTS: dict[str, list[tuple[str, str]]] = {
    "clock-iso-first-line.json": [("timestamp", "$.messages[0].content")],
    "clock-rfc2822-header.json": [("timestamp", "$.messages[0].content")],
    "clock-in-words.json": [("timestamp", "$.system")],
    "clock-unix-seconds.json": [("timestamp", "$.messages[0].content")],
    "clock-unix-millis-json.json": [("timestamp", "$.instructions")],
    "clock-javascript.json": [("timestamp", "$.messages[0].content")],
    "clock-us-locale.json": [("timestamp", "$.system[0].text")],
    "clock-time-only.json": [("timestamp", "$.messages[0].content")],
    "clock-in-tool-description.json": [("timestamp", "$.tools[0].description")],
    "clock-in-schema-default.json": [
        ("timestamp", "$.tools[2].function.parameters.properties.since.default")
    ],
    "clock-last-line-of-system-with-history.json": [("timestamp", "$.messages[0].content")],
    "clock-placeholder.json": [("timestamp", "$.messages[0].content")],
    "clock-python-placeholder.json": [("timestamp", "$.messages[0].content")],
    "clock-developer-message.json": [("timestamp", "$.messages[0].content[0].text")],
    "uuid-request.json": [("uuid", "$.messages[0].content")],
    "uuid-session-in-tags.json": [("uuid", "$.system")],
    "id-trace-hex.json": [("id", "$.messages[0].content")],
    "id-prefixed.json": [("id", "$.system")],
    "id-numeric-request.json": [("id", "$.messages[0].content")],
    "counter-request-number.json": [("counter", "$.messages[0].content")],
    "counter-turn.json": [("counter", "$.system")],
    "counter-budget.json": [("counter", "$.system")],
    "random-seed.json": [("random", "$.messages[0].content")],
    "random-cache-buster.json": [("random", "$.messages[0].content")],
    "temp-path.json": [("temp-path", "$.system")],
    "working-directory.json": [("environment", "$.system")],
    "hostname.json": [("environment", "$.messages[0].content")],
    "process-and-port.json": [("process", "$.system")],
    "git-status.json": [("git", "$.system")],
    "claude-code-billing-header.json": [("billing-header", "$.system[0].text")],
    "template-in-user-message.json": [
        ("id", "$.messages[0].content"),
        ("timestamp", "$.messages[0].content"),
    ],
    "traffic-tool-order.jsonl": [("tool-order", "$.tools[0]")],
    "traffic-schema-order.jsonl": [("schema-order", "$.tools[1]")],
    "traffic-greeting-before-policy.jsonl": [("changing-text", "$.messages[0].content")],
    "traffic-question-before-rubric.jsonl": [("changing-text", "$.messages[0].content")],
    "traffic-arguments-reserialised.jsonl": [
        ("reserialised-json", "$.messages[2].tool_calls[0].function.arguments")
    ],
    "traffic-tool-result-cut.jsonl": [("history-rewritten", "$.messages[3].content")],
    "traffic-system-changes-in-conversation.jsonl": [("system-changed", "$.messages[0].content")],
    "traffic-tool-appears-in-conversation.jsonl": [("tools-changed", "$.tools[0]")],
    "traffic-date-in-tool-description.jsonl": [("date", "$.tools[0].description")],
    "traffic-clock-in-records.jsonl": [("changing-text", "$.messages[0].content")],
    "traffic-sliding-window.jsonl": [("history-rewritten", "$.messages[1].content")],
}

CLEAN = sorted(path.name for path in (DATA / "clean").iterdir())

RECORDED: dict[str, list[tuple[str, str]]] = {
    "arena_hard.jsonl": [],
    "bfcl_live_multiple.jsonl": [],
    "pi_mono_session.jsonl": [],
    "swe_agent_one_conversation.jsonl": [],
    # What an issue says stands in front of the same instructions for every issue.
    "swe_agent_first_calls.jsonl": [("changing-text", "$.messages[1].content")],
}


def run(
    *files: Path | str, as_json: bool = False, route: str | None = None
) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    status = lint.run([str(file) for file in files], route, as_json, out, err)
    return status, out.getvalue(), err.getvalue()


def findings(file: Path | str) -> list[dict[str, Any]]:
    told: dict[str, Any] = orjson.loads(run(file, as_json=True)[1])
    (report,) = told["files"]
    found: list[dict[str, Any]] = report["findings"]
    return found


def faults(file: Path | str) -> list[tuple[str, str]]:
    return sorted((f["what"], f["path"]) for f in findings(file) if f["grade"] == "fault")


def value_at(body: Any, path: str) -> Any:
    """What a JSON path of a finding leads to."""
    for name, index in re.findall(r"\.([^.\[]+)|\[(\d+)\]", path):
        body = body[name] if name else body[int(index)]
    return body


def test_there_are_at_least_thirty_prompts_with_known_faults_and_none_is_forgotten() -> None:
    assert sorted(FAULTS) == sorted(path.name for path in (DATA / "faulty").iterdir())
    assert len(FAULTS) >= 30
    assert len(CLEAN) >= 20


@pytest.mark.parametrize("name", FAULTS)
def test_every_known_fault_is_found_where_it_is_and_nothing_else(name: str) -> None:
    file = DATA / "faulty" / name
    assert sorted(FAULTS[name]) == faults(file)
    assert lint.FOUND == run(file)[0]


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_prompt_raises_no_alarm(name: str) -> None:
    assert [] == findings(DATA / "clean" / name)
    assert lint.CLEAN == run(DATA / "clean" / name)[0]


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_traffic_shows_what_is_in_it(name: str) -> None:
    assert RECORDED[name] == faults(DATA / "traces" / name)


def test_the_recorded_conversations_are_clean_together_though_each_names_a_fixed_time() -> None:
    traffic = Traffic()
    for call in taubench.calls():
        traffic.add(prompts.read(canonical.parse(call.raw())))
    assert [] == traffic.findings()

    alone = Traffic()
    alone.add(prompts.read(canonical.parse(taubench.calls()[0].raw())))
    (finding,) = alone.findings()
    assert "The current time is 2024-05-15 15:00:00 EST." == finding.excerpt


def test_a_clock_put_into_recorded_conversations_is_found_with_what_it_costs() -> None:
    traffic = Traffic()
    calls = taubench.calls()[:40]
    for number, call in enumerate(calls):
        first, *rest = call.body["messages"]
        clock = f"It is 2025-11-20 23:{number:02}:50.\n"
        body = {**call.body, "messages": [{**first, "content": clock + first["content"]}, *rest]}
        traffic.add(prompts.read(canonical.parse(orjson.dumps(body))))
    (finding,) = traffic.findings()
    assert ("timestamp", "$.messages[0].content") == (finding.what, finding.path)
    assert len(calls) - 1 == finding.requests
    # The policy is 6.2 kB: at least that is read anew each time.
    assert finding.lost_total >= 1500 * finding.requests
    assert finding.lost_tokens > 1500


@pytest.mark.parametrize("name", [n for n in FAULTS if n.endswith(".json")])
def test_a_path_leads_to_the_text_that_is_shown(name: str) -> None:
    file = DATA / "faulty" / name
    body = orjson.loads(file.read_bytes())
    for finding in findings(file):
        text = value_at(body, finding["path"])
        assert finding["excerpt"].rstrip("…") in " ".join(text.split())


@pytest.mark.parametrize("name", FAULTS)
def test_the_table_is_readable_in_a_hundred_columns(name: str) -> None:
    _, out, err = run(DATA / "faulty" / name)
    rows = [line for line in out.splitlines() if not line.startswith(str(DATA))]
    assert [] == [row for row in rows if len(row) > 100]
    assert "" == err
    assert out.count("mend: ") == len(findings(DATA / "faulty" / name))


def test_the_json_has_the_members_that_the_reference_names() -> None:
    told = orjson.loads(run(DATA / "faulty" / "uuid-request.json", as_json=True)[1])
    assert {"version", "faults", "notes", "token_estimate", "files"} == set(told)
    assert (lint.FORMAT_VERSION, 1, 0) == (told["version"], told["faults"], told["notes"])
    (file,) = told["files"]
    assert {"file", "requests", "skipped", "tokens", "findings", "problems"} == set(file)
    (finding,) = file["findings"]
    reference = Path(__file__).parents[1] / "docs" / "reference" / "commands.md"
    documented = re.findall(r"`\.([a-z_]+)`", reference.read_text(encoding="utf-8"))
    assert sorted(finding) == sorted({"what", *documented})
    assert not finding["seen"]


def test_files_are_judged_apart_but_counted_together(tmp_path: Path) -> None:
    status, out, _ = run(
        *(DATA / "faulty" / f"uuid-{n}.json" for n in ("request", "session-in-tags"))
    )
    assert lint.FOUND == status
    assert out.rstrip().splitlines()[-1].startswith("2 faults, 0 notes.")


def test_a_note_alone_fails_nothing(tmp_path: Path) -> None:
    file = tmp_path / "daily.json"
    text = "Today is Thursday, November 20, 2025.\n" + "Be brief and exact. " * 40
    file.write_bytes(orjson.dumps({"messages": [{"role": "system", "content": text}]}))
    (finding,) = findings(file)
    assert ("date", "note") == (finding["what"], finding["grade"])
    assert lint.CLEAN == run(file)[0]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"a": 1}', "no request body"),
        (b'{"messages": [], "messages": []}', "named twice"),
        (b"\xff", "not UTF-8"),
        (b'{"model":"m","messages":[]}\nnonsense\n', "not JSON"),
        (b'{"route":"/v1/embeddings","body":{"input":"x"}}', "no prompt in it"),
    ],
)
def test_what_is_unreadable_is_said_with_its_line(
    content: bytes, problem: str, tmp_path: Path
) -> None:
    file = tmp_path / "body.json"
    file.write_bytes(content)
    status, _, err = run(file)
    assert lint.UNREADABLE == status
    assert re.search(rf"^gateway lint: {re.escape(str(file))}:\d+: .*{problem}", err)


def test_a_file_that_is_not_there_is_unreadable(tmp_path: Path) -> None:
    status, _, err = run(tmp_path / "none.json")
    assert lint.UNREADABLE == status
    assert "No such file" in err


def test_what_is_readable_beside_the_unreadable_is_still_judged(tmp_path: Path) -> None:
    status, out, _ = run(tmp_path / "none.json", DATA / "faulty" / "uuid-request.json")
    assert lint.UNREADABLE == status
    assert "uuid" in out


def batches() -> Iterator[dict[str, Any]]:
    body = orjson.loads((DATA / "faulty" / "uuid-request.json").read_bytes())
    yield {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    yield {"custom_id": "1", "params": body}
    yield {
        "t": 1.5,
        "route": "/v1/chat/completions",
        "scope": "s",
        "body": orjson.dumps(body).decode(),
    }


@pytest.mark.parametrize("record", list(batches()))
def test_records_around_a_body_are_understood(record: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_bytes(orjson.dumps(record) + b"\n")
    assert [("uuid", "$.messages[0].content")] == faults(file)


def test_the_route_can_be_said(tmp_path: Path) -> None:
    file = DATA / "faulty" / "uuid-session-in-tags.json"
    assert lint.FOUND == run(file, route="/v1/messages")[0]
    # As a chat it has no system prompt.
    assert lint.CLEAN == run(file, route="/v1/chat/completions")[0]
    assert lint.UNREADABLE == run(file, route="/v1/embeddings")[0]


def test_escape_sequences_of_a_prompt_do_not_reach_the_terminal(tmp_path: Path) -> None:
    file = tmp_path / "body.json"
    text = (
        "Request id: \x1b[2J7b0f4c1e-5d0a-4d39-9a55-0f6c7be2d1aa \x1b[31m and so on\n" + "x " * 99
    )
    file.write_bytes(orjson.dumps({"messages": [{"role": "system", "content": text}]}))
    assert "\x1b" not in run(file)[1]


def test_the_verb_reads_stdin() -> None:
    body = (DATA / "faulty" / "uuid-request.json").read_bytes()
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "lint", "-"], input=body, capture_output=True, check=False
    )
    assert (1, b"") == (done.returncode, done.stderr)
    assert done.stdout.startswith(b"stdin: 1 request")


def test_the_verb_exits_with_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["lint", str(DATA / "clean" / "plain-chat.json")])
    assert capsys.readouterr().out.endswith(": clean\n")
