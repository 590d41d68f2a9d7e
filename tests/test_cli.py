"""The command line: verbs parse, call, exit; through a fresh interpreter where that is the point."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
import yaml

from gateway import __version__, cli
from gateway.config import Config, load
from gateway.config.catalogue import catalogue
from gateway.config.redaction import MASK

if TYPE_CHECKING:
    from gateway.config.source import Source

SECRET = "hunter2-MARKED-SECRET"
ROOT = Path(__file__).parent.parent

FIVE_FAULTS = f"""
server:
  port: eighty
upstreams:
  vllm:
    base_url: gpu-1:8000/v1
    api_key: {SECRET}
routes:
  - path: /v1/chat/completions
    upstream: vlm
cache:
  ttl: 60
store:
  url: rediss://user:{SECRET}@/0
"""
PATHS = {
    "server.port",
    "upstreams.vllm.base_url",
    "routes[0].upstream",
    "cache.ttl",
    "store.url",
}


def gateway(
    *arguments: str, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter with nothing of ours in its environment."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "gateway", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **(environ or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def config_file(tmp_path: Path) -> Any:
    def _write(text: str) -> str:
        file = tmp_path / "warmgate.yaml"
        file.write_text(text)
        return str(file)

    return _write


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("GATEWAY_") or n in {"PORT", "REDIS_URL"}]:
        monkeypatch.delenv(name)


# -- check ------------------------------------------------------------------------------------


def test_check_on_a_config_with_five_faults_names_all_five(config_file: Any) -> None:
    done = gateway("check", "--config", config_file(FIVE_FAULTS))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("gateway: 5 faults in the config\n")
    assert set(re.findall(r"^(\S.*)\n  \S.*\n  mend: \S", done.stderr, re.MULTILINE)) == PATHS
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


def test_check_prints_the_faults_as_json_too(config_file: Any) -> None:
    done = gateway("check", "--json", environ={"GATEWAY_CONFIG": config_file(FIVE_FAULTS)})
    assert done.returncode == 2
    report = orjson.loads(done.stdout)
    assert report["ok"] is False
    assert {fault["path"] for fault in report["faults"]} == PATHS
    assert all(fault["problem"] and fault["mend"] for fault in report["faults"])
    assert "5 faults" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_check_prints_what_holds_and_who_said_so_and_no_secret(config_file: Any) -> None:
    file = config_file(
        "server: {trusted_proxies: [10.0.0.0/8]}\n"
        f"upstreams: {{vllm: {{base_url: 'http://gpu:8000/v1/', api_key: {SECRET}}}}}\n"
        "routes:\n- {path: /v1/*, upstream: vllm}\n- {model: 'gpt: #1', cache: {when: off}}\n"
        f"cache: {{secret: [{SECRET}], ttl_s: 60}}\n"
        f"store: {{url: 'redis://u:{SECRET}@cache/1'}}\n"
    )
    environ = {
        "GATEWAY_CONFIG": file,
        "GATEWAY_LOG__LEVEL": "debug",
        "GATEWAY_UPSTREAMS__OPENAI__API_KEY": SECRET,
        "PORT": "0",
    }
    done = gateway("check", environ=environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert "hunter2" not in done.stdout
    config = load(Path(file), environ)
    assert yaml.safe_load(done.stdout) == config.redacted()
    for line in (
        f"# generation {config.generation()}",
        "  port: 0  # PORT",
        "  level: debug  # GATEWAY_LOG__LEVEL",
        f"  ttl_s: 60.0  # {file}:6",
        f"routes:  # {file}:3",
        "  format: auto  # default",
        f"    api_key: '{MASK}'  # GATEWAY_UPSTREAMS__OPENAI__API_KEY",
        f"  url: redis://u:{MASK}@cache/1  # {file}:7",
    ):
        assert line in done.stdout.splitlines()


def test_check_as_json_tells_the_same() -> None:
    done = gateway("check", "--json", environ={"GATEWAY_CACHE__SECRET": SECRET})
    report = orjson.loads(done.stdout)
    config = load(None, {"GATEWAY_CACHE__SECRET": SECRET})
    assert report["config"] == config.redacted()
    assert report["generation"] == config.generation()
    assert report["origins"]["cache.secret"] == "GATEWAY_CACHE__SECRET"
    assert report["origins"]["cache.ttl_s"] == "default"
    assert "hunter2" not in done.stdout
    told = {path.replace(".openai.", ".<name>.") for path in report["origins"]}
    of_pools = ("upstreams.<name>.routing.", "upstreams.<name>.health.")
    settings = {
        s.path
        for s in catalogue()
        if "[]" not in s.path and s.path != "upstreams" and not s.path.startswith(of_pools)
    }
    assert settings <= told


def test_the_config_flag_wins_over_its_variable(config_file: Any) -> None:
    environ = {"GATEWAY_CONFIG": "/no/such/file.yaml"}
    assert gateway("check", environ=environ).returncode == 2
    assert gateway("check", "--config", config_file(""), environ=environ).returncode == 0


def test_no_config_file_is_looked_for_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("warmgate.yaml", "gateway.yaml", "config.yaml"):
        (tmp_path / name).write_text("nonsense: [")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["check"]) == 0
    assert "# default" in capsys.readouterr().out


def test_check_writes_no_traceback_when_its_reader_goes_away() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "check"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


# -- usage ------------------------------------------------------------------------------------


def test_version_is_the_package_s() -> None:
    done = gateway("--version")
    assert (done.returncode, done.stdout) == (0, f"warmgate {__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["sevre"],
        ["check", "extra"],
        ["serve", "--prot", "1"],
        ["key"],
        ["key", "a", "b", "c"],
        ["demo", "--json"],
    ],
)
def test_wrong_usage_exits_2_and_says_so_on_stderr(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (2, "")
    assert "usage: gateway" in err


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert [verb for verb in ("serve", "check", "demo", "key") if verb not in out] == []


# -- what the verbs call ----------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stand-ins for what the verbs call: here only the calling is tested."""
    made: list[Any] = []

    def module(name: str, **members: Any) -> None:
        stand_in = types.ModuleType(name)
        for member, value in members.items():
            setattr(stand_in, member, value)
        monkeypatch.setitem(sys.modules, name, stand_in)

    def serve(config: Config, source: Source) -> int:
        # What it is read from again says the same.
        assert source.load().config == config
        made.append(config)
        return 7

    def key(*arguments: Any) -> int:
        made.append(arguments)
        return 1

    module("gateway.process", serve=serve)
    module("gateway.lab.demo", run=lambda: 5)
    module("gateway.keycmd", run=key)
    return made


def test_serve_hands_over_the_config_with_its_flags(calls: list[Any]) -> None:
    flags = ["--host", "0.0.0.0", "--port", "0", "--probe-port", "9999", "--store-url", "memory://"]
    flags += ["--admin-port", "9998"]
    assert cli.main(["serve", *flags]) == 7
    (config,) = calls
    server = config.server
    assert (server.host, server.port, server.probe_port) == ("0.0.0.0", 0, 9999)
    assert config.store.url == "memory://"
    assert config.admin.port == 9998


def test_a_sigterm_before_anything_listens_ends_it_and_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def serve(*_: Any) -> int:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError

    process = types.ModuleType("gateway.process")
    monkeypatch.setattr(process, "serve", serve, raising=False)
    monkeypatch.setitem(sys.modules, "gateway.process", process)
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(SystemExit) as ended:
        cli.main(["serve"])
    assert ended.value.code == 0
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before


def test_serve_starts_nothing_on_a_fault(
    calls: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve", "--port", "http", "--store-url", f"redis://u:{SECRET}@"]) == 2
    out, err = capsys.readouterr()
    assert (calls, out) == ([], "")
    assert "2 faults" in err
    assert "server.port\n" in err
    assert "store.url\n" in err
    assert "hunter2" not in err


def test_demo_returns_what_the_demo_returns(calls: list[Any]) -> None:
    assert cli.main(["demo"]) == 5


def test_key_hands_over_its_arguments(calls: list[Any]) -> None:
    assert cli.main(["key", "a.json"]) == 1
    assert cli.main(
        ["key", "--route", "/v1/messages", "--upstream", "anthropic", "--json", "a", "b"]
    )
    one, two = calls
    assert one == (
        ["a.json"], "/v1/chat/completions", "openai", Config(), False, sys.stdout, sys.stderr,
    )  # fmt: skip
    assert two[:3] == (["a", "b"], "/v1/messages", "anthropic")
    assert two[4] is True


def test_key_needs_a_sound_config(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_LOG__LEVEL", "loud")
    assert cli.main(["key", "a.json"]) == 2
    assert calls == []


def test_an_interrupt_exits_130(monkeypatch: pytest.MonkeyPatch, calls: list[Any]) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["gateway.lab.demo"], "run", interrupted)
    assert cli.main(["demo"]) == 130


def test_parsing_and_checking_import_no_server(tmp_path: Path) -> None:
    code = (
        "import sys; from gateway.cli import main; main(['check']); "
        "sys.exit(any(m in sys.modules for m in ('aiohttp', 'redis', 'opentelemetry', 'uvloop')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
