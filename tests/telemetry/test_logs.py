"""The log: one line, no secrets, and nothing that a broken stream could break."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import threading
import timeit
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest
import structlog

from gateway.core.model import Reason, Result, Usage
from gateway.errors import UpstreamBroken
from gateway.telemetry.logs import request_line, setup_logging
from gateway.telemetry.uncaught import hear_uncaught
from tests.helpers.records import BARE


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


LINE = BARE._replace(request_id="req-1", duration_s=0.0012345)


def line(**more: object) -> None:
    """A request line with the fields that every one has."""
    request_line(LINE._replace(**more))  # type: ignore[arg-type] # a test's own fields


def test_a_request_is_one_json_line_with_what_is_known_of_it() -> None:
    out = io.StringIO()
    setup_logging("info", "auto", out)
    line(
        path="/v1/chat/completions?api-key=hunter2",
        route="/v1/chat/completions",
        upstream="openai",
        model="gpt-5.6",
        result=Result.MISS,
        reason=Reason.ABSENT,
        stored=Reason.STORED,
        key_hex8="0123456789abcdef",
        overhead_s=0.0004,
        usage=Usage(10, 20, 3, 4, 50),
        trace_id="0af7651916cd43dd8448eb211c80319c",
        paid_pd=1_250_000_000,
        saved_pd=0,
    )
    [text] = out.getvalue().splitlines()
    event = orjson.loads(text)
    assert event.pop("ts").endswith("Z")
    assert event == {
        "event": "request",
        "level": "info",
        "request_id": "req-1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "route": "/v1/chat/completions",
        "upstream": "openai",
        "model": "gpt-5.6",
        "status": 200,
        "result": "miss",
        "reason": "absent",
        "stored": "stored",
        "key": "01234567",
        "duration_ms": 1.234,
        "overhead_ms": 0.4,
        "uncached_input": 10,
        "cache_read": 20,
        "cache_write_5m": 3,
        "cache_write_1h": 4,
        "output": 50,
        "cost_usd": 0.00125,
        "saved_usd": 0.0,
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }


def test_what_is_not_known_is_left_out_and_500_is_a_warning() -> None:
    out = io.StringIO()
    setup_logging("warning", "json", out)
    line()
    line(status=502, error="gateway_upstream_broken", aborted="upstream")
    [text] = out.getvalue().splitlines()
    event = orjson.loads(text)
    del event["ts"]
    assert event == {
        "event": "request",
        "level": "warning",
        "request_id": "req-1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 502,
        "duration_ms": 1.234,
        "overhead_ms": 1.0,
        "error": "gateway_upstream_broken",
        "aborted": "upstream",
    }


@pytest.mark.parametrize("form", ["json", "console"])
def test_text_of_a_client_cannot_forge_a_line(form: str) -> None:
    out = io.StringIO()
    setup_logging("info", form, out)
    line(path="/a\nb\x1b[31m\udcff" + "x" * 9999, model="m\r\nlevel=error \ud800")
    written = out.getvalue()
    assert written.count("\n") == 1
    assert "\x1b[31m" not in written
    assert len(written) < 1500


@pytest.mark.parametrize(
    ("form", "stream", "json"),
    [
        ("auto", io.StringIO, True),
        ("auto", Terminal, False),
        ("json", Terminal, True),
        ("console", io.StringIO, False),
    ],
)
def test_a_terminal_gets_the_pretty_form_and_a_machine_json(
    form: str, stream: type[io.StringIO], json: bool
) -> None:
    out = stream()
    setup_logging("info", form, out)
    line()
    assert out.getvalue().startswith("{") is json
    assert "request" in out.getvalue()


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    colored, plain = Terminal(), Terminal()
    setup_logging("info", "auto", colored)
    line()
    monkeypatch.setenv("NO_COLOR", "1")
    setup_logging("info", "auto", plain)
    line()
    assert "\x1b[" in colored.getvalue()
    assert "\x1b[" not in plain.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
def test_lines_of_other_libraries_and_their_tracebacks_go_the_same_way(form: str) -> None:
    out = io.StringIO()
    setup_logging("info", form, out)
    secret = "sk-" + "local"  # a local variable: tracebacks must not print it

    def fails() -> None:
        assert secret
        raise ValueError("broken")

    try:
        fails()
    except ValueError:
        logging.getLogger("aiohttp.server").exception("Error handling %s", "request")
    logging.getLogger("aiohttp.server").info("wrong %d", "argument")
    logging.getLogger("aiohttp.server").debug("unseen")
    written = out.getvalue()
    # What its author wrote, not what was put in; what failed and where, not what it says of it.
    assert "Error handling ..." in written
    assert "ValueError" in written
    assert "in fails" in written
    assert "ValueError: broken" not in written
    assert "aiohttp.server" in written
    assert "sk-local" not in written
    assert "unreadable log record" in written
    assert "unseen" not in written
    if form == "json":
        first = orjson.loads(written.splitlines()[0])
        assert (first["level"], first["logger"]) == ("error", "aiohttp.server")


def test_a_library_that_repeats_itself_is_heard_once_a_minute() -> None:
    out = io.StringIO()
    setup_logging("info", "json", out)
    exporter = logging.getLogger("opentelemetry.exporter.otlp")
    for n in range(100):
        exporter.warning("Transient error %s", n)
        exporter.error("Failed to export %s", n)
        exporter.info("chatter")
        logging.getLogger("urllib3.connectionpool").info("chatter")
        logging.getLogger("aiohttp.server").warning("ours is not filtered")
    lines = [orjson.loads(text) for text in out.getvalue().splitlines()]
    assert len([e for e in lines if e["logger"].startswith("opentelemetry")]) == 2
    assert len([e for e in lines if e["logger"] == "aiohttp.server"]) == 100
    assert len(lines) == 102


def test_odd_values_are_written_as_text() -> None:
    out = io.StringIO()
    setup_logging("info", "json", out)
    structlog.get_logger().info("odd", big=1 << 80, text="\ud800", thing=object)
    assert orjson.loads(out.getvalue())["big"] == str(1 << 80)


def test_setting_up_again_replaces_what_was_there() -> None:
    first, second = io.StringIO(), io.StringIO()
    setup_logging("info", "json", first)
    setup_logging("error", "json", second)
    line()
    logging.getLogger("x").error("here")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


def test_a_pipe_whose_reader_left_breaks_nothing() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as out:
        setup_logging("info", "json", out)
        os.close(reader)
        for _ in range(3):
            line()
            logging.getLogger("x").error("also")


def test_a_closed_or_full_stream_breaks_nothing() -> None:
    closed = io.StringIO()
    setup_logging("info", "json", closed)
    closed.close()
    line()
    with Path("/dev/full").open("w", buffering=1) as full:
        setup_logging("info", "json", full)
        line()
        line()
        # Python would complain about the unwritten rest when it closes the file.
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


def test_a_process_whose_log_reader_left_ends_with_its_own_exit_code() -> None:
    program = (
        "import sys\n"
        "from gateway.telemetry.logs import request_line, setup_logging\n"
        "from tests.helpers.records import BARE\n"
        "setup_logging('info', 'json', sys.stderr)\n"
        "sys.stdin.readline()\n"
        "for _ in range(2000):\n"
        "    request_line(BARE)\n"
        "print('served')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as run:
        assert run.stdin
        assert run.stdout
        assert run.stderr
        run.stderr.close()
        run.stdin.write(b"\n")
        run.stdin.close()
        assert run.stdout.read() == b"served\n"
    assert run.returncode == 0


def test_a_line_costs_some_microseconds_and_nothing_below_the_level() -> None:
    with Path(os.devnull).open("w") as out:
        setup_logging("info", "json", out)

        def hit() -> None:
            line(
                route="/v1/chat/completions",
                upstream="openai",
                model="gpt-5.6",
                result=Result.HIT,
                reason=Reason.EXACT,
                key_hex8="01234567",
                overhead_s=0.0004,
                usage=Usage(10, 20, 3, 4, 50),
            )

        each_us = min(timeit.repeat(hit, number=500, repeat=5)) / 500 * 1e6
        setup_logging("error", "json", out)
        off_us = min(timeit.repeat(hit, number=500, repeat=5)) / 500 * 1e6
    print(f"log line: {each_us:.1f} us; below the level {off_us:.1f} us")
    # 12 and 0.7 on an idle core.
    assert each_us < 200 or sys.gettrace() is not None
    assert off_us < each_us / 3 or sys.gettrace() is not None


@pytest.mark.parametrize("form", ["json", "console"])
def test_secrets_of_the_config_are_blotted_out_whoever_says_them(form: str) -> None:
    out = io.StringIO()
    setup_logging("info", form, out, secrets=['s3cr"et', "s3cr"])
    structlog.get_logger().warning("refused", words='unknown command AUTH default s3cr"et')
    logging.getLogger("gateway.store").warning("Redis refuses: %s", ValueError("AUTH s3cr"))
    written = out.getvalue()
    assert "s3cr" not in written
    assert written.count("********") == 2


def test_what_asyncio_says_of_a_failed_task_is_its_first_line() -> None:
    out = io.StringIO()
    setup_logging("info", "json", out)
    problem = RuntimeError("the-words")
    logging.getLogger("asyncio").error("Task failed\nfuture: %s", "the-words", exc_info=problem)
    assert orjson.loads(out.getvalue())["event"] == "Task failed"
    assert "the-words" not in out.getvalue()
    assert "RuntimeError" in out.getvalue()


def test_a_problem_in_our_log_is_told_by_its_kind_and_with_what_caused_it() -> None:
    out = io.StringIO()
    setup_logging("info", "json", out)
    group = ExceptionGroup("the-words", [KeyError("the-words"), OSError(111, "the-words")])
    group.__cause__ = UpstreamBroken("the-words")
    structlog.get_logger().error("failed", exc_info=group)
    told = orjson.loads(out.getvalue())["exception"]
    assert "the-words" not in told
    assert "ExceptionGroup of KeyError, ConnectionRefusedError: Connection refused" in told
    assert "gateway.errors.UpstreamBroken: gateway_upstream_broken" in told


def test_what_nobody_catches_is_a_line_without_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("excepthook", "unraisablehook"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    out = io.StringIO()
    setup_logging("info", "json", out)
    hear_uncaught()
    words = "the-words"

    def fails() -> None:
        raise ValueError(words)

    thread = threading.Thread(target=fails, name="worker")
    thread.start()
    thread.join()
    problem = ValueError("the-words")
    sys.excepthook(ValueError, problem, None)
    sys.unraisablehook(SimpleNamespace(exc_value=problem))
    said = [orjson.loads(line) for line in out.getvalue().splitlines()]
    assert [each["level"] for each in said] == ["error", "critical", "error"]
    assert said[0]["thread"] == "worker"
    assert all("ValueError" in each["exception"] for each in said)
    assert "the-words" not in out.getvalue()
