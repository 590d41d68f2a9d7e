"""Loading the config: who wins, what is refused, and that no secret is ever shown."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from gateway.config import Config, load, load_with_origins
from gateway.config.catalogue import catalogue
from gateway.config.redaction import MASK
from gateway.errors import ConfigError, Fault

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "hunter2-MARKED-SECRET"


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def _write(text: str, name: str = "warmgate.yaml") -> Path:
        file = tmp_path / name
        file.write_text(text)
        return file

    return _write


def faults_of(
    file: Path | None = None,
    environ: dict[str, str] | None = None,
    flags: dict[str, Any] | None = None,
) -> tuple[Fault, ...]:
    with pytest.raises(ConfigError) as caught:
        load(file, environ or {}, flags)
    assert caught.value.__context__ is None, "a chained error would show its inputs"
    return caught.value.faults


# -- who wins ---------------------------------------------------------------------------------


def test_it_works_with_nothing_at_all() -> None:
    config = load(None, {})
    assert config == Config()
    assert (config.server.host, config.server.port) == ("127.0.0.1", 8080)
    assert config.upstreams["openai"].base_url == "https://api.openai.com/v1"
    assert config.upstreams["anthropic"].provider == "anthropic"


def test_flags_win_over_environment_over_file_over_default(write: Any) -> None:
    file = write("server: {port: 1001, probe_port: 1002, host: 10.0.0.1}")
    environ = {"GATEWAY_SERVER__PORT": "2001", "GATEWAY_SERVER__PROBE_PORT": "2002"}
    flags = {"server.port": "3001", "server.host": None}
    loaded = load_with_origins(file, environ, flags)
    server = loaded.config.server
    assert (server.port, server.probe_port, server.host) == (3001, 2002, "10.0.0.1")
    assert server.probe_host == "127.0.0.1"
    assert [
        loaded.origin(("server", name)) for name in ("port", "probe_port", "host", "probe_host")
    ] == ["a flag", "GATEWAY_SERVER__PROBE_PORT", f"{file}:1", "default"]


def test_the_deeper_variable_wins_over_the_wider_one() -> None:
    environ = {
        "GATEWAY_CACHE": '{"ttl_s": 5, "when": "off", "store": {"refused": true}}',
        "GATEWAY_CACHE__TTL_S": "7",
    }
    cache = load(None, environ).cache
    assert (cache.ttl_s, cache.when, cache.store.refused) == (7.0, "off", True)


def test_a_list_is_replaced_and_a_mapping_merged(write: Any) -> None:
    file = write(
        "server: {trusted_proxies: [10.0.0.0/8]}\n"
        "upstreams: {vllm: {base_url: 'http://gpu:8000/v1'}}\n"
    )
    environ = {
        "GATEWAY_SERVER__TRUSTED_PROXIES": '["192.168.0.0/16"]',
        "GATEWAY_UPSTREAMS": "{sglang: {base_url: 'http://gpu:9000/v1'}}",
    }
    config = load(file, environ)
    assert config.server.trusted_proxies == ("192.168.0.0/16",)
    assert set(config.upstreams) == {"openai", "anthropic", "vllm", "sglang"}


def test_a_key_alone_keeps_the_default_endpoint() -> None:
    openai = load(None, {"GATEWAY_UPSTREAMS__OPENAI__API_KEY": SECRET}).upstreams["openai"]
    assert (openai.base_url, openai.provider) == ("https://api.openai.com/v1", "openai")
    assert openai.api_key is not None
    assert openai.api_key.get_secret_value() == SECRET


def test_another_base_url_does_not_inherit_the_provider() -> None:
    environ = {"GATEWAY_UPSTREAMS__OPENAI__BASE_URL": "http://localhost:8000/v1/"}
    openai = load(None, environ).upstreams["openai"]
    assert (openai.base_url, openai.provider) == ("http://localhost:8000/v1", None)


def test_an_underscore_in_a_variable_reaches_a_hyphenated_upstream(write: Any) -> None:
    file = write("upstreams: {my-vllm: {base_url: 'http://gpu:8000/v1'}}")
    config = load(file, {"GATEWAY_UPSTREAMS__MY_VLLM__API_KEY": SECRET})
    assert set(config.upstreams) == {"openai", "anthropic", "my-vllm"}
    assert config.upstreams["my-vllm"].api_key is not None


def test_sections_with_every_line_commented_out_set_nothing(write: Any) -> None:
    file = write("server:\ncache:\n  # ttl_s: 5\nupstreams:\n  openai:\nroutes:\n- cache:\n")
    loaded = load_with_origins(file, {})
    assert loaded.config.upstreams == Config().upstreams
    assert len(loaded.config.routes) == 1
    assert loaded.origin(("upstreams", "openai", "base_url")) == "default"


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "\ufeffserver: {port: 8080}\n"])
def test_an_empty_file_and_a_byte_order_mark_are_fine(write: Any, text: str) -> None:
    assert load(write(text), {}) == Config()


@pytest.mark.parametrize(
    ("spelled", "expected"),
    [("off", "off"), ("'off'", "off"), ("false", "off"), ("always", "always")],
)
def test_a_bare_off_is_the_word_not_a_boolean(write: Any, spelled: str, expected: str) -> None:
    assert load(write(f"cache: {{when: {spelled}}}"), {}).cache.when == expected


@pytest.mark.parametrize(
    ("variable", "value", "path", "expected"),
    [
        ("REDIS_URL", "redis://cache:6379/0", "store.url", "redis://cache:6379/0"),
        ("PORT", "9000", "server.port", 9000),
    ],
)
def test_what_platforms_set_counts_unless_ours_is_set(
    variable: str, value: str, path: str, expected: Any
) -> None:
    section, name = path.split(".")
    assert getattr(getattr(load(None, {variable: value}), section), name) == expected
    ours = f"GATEWAY_{section}__{name}".upper()
    both = {variable: value, ours: {"url": "memory://", "port": "7"}[name]}
    assert load_with_origins(None, both).origin((section, name)) == ours


def test_an_empty_variable_counts_as_unset() -> None:
    environ = {"GATEWAY_STORE__URL": "", "PORT": "", "GATEWAY_CACHE__SECRET_FILE": ""}
    assert load(None, environ) == Config()


def test_the_variables_of_a_kubernetes_service_named_gateway_are_ignored() -> None:
    environ = {
        "GATEWAY_SERVICE_HOST": "10.0.0.7",
        "GATEWAY_SERVICE_PORT": "80",
        "GATEWAY_SERVICE_PORT_HTTP": "80",
        "GATEWAY_PORT": "tcp://10.0.0.7:80",
        "GATEWAY_PORT_80_TCP": "tcp://10.0.0.7:80",
        "GATEWAY_PORT_80_TCP_PROTO": "tcp",
        "GATEWAY_PORT_80_TCP_PORT": "80",
        "GATEWAY_PORT_80_TCP_ADDR": "10.0.0.7",
        "GATEWAY_CONFIG": "read by the command line",
    }
    assert load(None, environ) == Config()


# -- values in files --------------------------------------------------------------------------


def company(path: str, variable: str) -> dict[str, str]:
    """Variables without which this one makes no sense: what is for Redis needs one, say."""
    if path == "warm":
        return {"GATEWAY_UPSTREAMS": '{"vllm": {"base_url": "http://gpu/v1", "provider": "vllm"}}'}
    if path.endswith("dns_interval_s"):
        return {"GATEWAY_UPSTREAMS__OPENAI__DNS": "http://vllm.models:8000/v1"}
    if ".routing." in path or ".health." in path:
        return {"GATEWAY_UPSTREAMS__OPENAI__BACKENDS": "[http://gpu:8000/v1]"}
    if not path.startswith("store.") or path == "store.url":
        return {}
    needed = {
        "GATEWAY_STORE__URL": "rediss+sentinel://host/service",
        "GATEWAY_STORE__TLS__CERT_PATH": "cert.pem",
    }
    return {name: value for name, value in needed.items() if name != variable}


@pytest.mark.parametrize("setting", [s for s in catalogue() if s.env], ids=lambda s: s.path)
def test_every_variable_can_name_a_file_instead(setting: Any, write: Any) -> None:
    examples = {
        "upstreams": '{"vllm": {"base_url": "http://gpu:8000/v1"}}',
        "upstreams.<name>.base_url": "http://gpu:8000/v1",
        "upstreams.<name>.engine": "openai",
        "upstreams.<name>.backends": '[{"url": "http://gpu:8000/v1", "weight": 2}]',
        "upstreams.<name>.dns": "http://vllm.models:8000/v1",
        "upstreams.<name>.health.path": "/health",
        "upstreams.<name>.provider": "unknown",
        "upstreams.<name>.api_key": SECRET,
        "upstreams.<name>.deployment": "standard",
        "upstreams.<name>.metrics_interval_s": "0",
        "prompt_cache.rewrites": "[sort-tools]",
        "warm": '[{"upstream": "vllm", "body": {"model": "m"}}]',
        "routes": '[{"path": "/v1/*"}]',
        "cache.secret": SECRET,
        "admin.token": SECRET,
        "store.url": "memory://",
        "server.trusted_proxies": "[10.0.0.0/8]",
        "server.explain_to": "[10.0.0.0/8]",
        "server.memory_budget_bytes": "1000",
    }
    default = setting.default
    value = examples.get(setting.path, str(default).lower())
    variable = setting.env.replace("<NAME>", "OPENAI")
    name = f"{variable}_FILE"
    beside = company(setting.path, variable)
    loaded = load_with_origins(None, {**beside, name: str(write(f"{value}\n"))})
    assert loaded.config == load(None, {**beside, variable: value})
    assert name in loaded.origins.values()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SECRET, [SECRET]),
        (f"{SECRET}\n", [SECRET]),
        (f"{SECRET}\r\n{SECRET}-2\r\n\r\n", [SECRET, f"{SECRET}-2"]),
        (f'["{SECRET}", "{SECRET}-2"]', [SECRET, f"{SECRET}-2"]),
        ("12345678901234567890", ["12345678901234567890"]),
        ("[12345678901234567890]", ["12345678901234567890"]),
        ("[not-a-list-at-all", ["[not-a-list-at-all"]),
        ("key: with, yaml # in it", ["key: with, yaml # in it"]),
    ],
)
def test_scope_secrets_are_one_for_each_line_or_a_list(
    write: Any, text: str, expected: list[str]
) -> None:
    from_file = load(None, {"GATEWAY_CACHE__SECRET_FILE": str(write(text))})
    from_variable = load(None, {"GATEWAY_CACHE__SECRET": text})
    for config in (from_file, from_variable):
        assert [secret.get_secret_value() for secret in config.cache.secret] == expected


def test_one_secret_in_the_file_needs_no_list(write: Any) -> None:
    assert len(load(write(f"cache: {{secret: {SECRET}}}"), {}).cache.secret) == 1


# -- faults -----------------------------------------------------------------------------------

FILE_FAULTS = [
    ("server: {port: abc}", "server.port", "`abc` is not a whole number from 0 to 65535", "8080"),
    ("server: {port: 70000}", "server.port", "`70000` is not a whole number", "65535"),
    ("server: {port: yes}", "server.port", "true or false, not a number", "number"),
    ("server: {port: 80.5}", "server.port", "`80.5` is not a whole number", "whole"),
    ("server: {host: 127}", "server.host", "not text", "quotes"),
    ("server: {host: ''}", "server.host", "not text", "127.0.0.1"),
    ("server: {host: [a]}", "server.host", "not text", "127.0.0.1"),
    ("server: 8080", "server", "not a section", "write a section"),
    ("server: {prot: 8080}", "server.prot", "not a setting", "`server.port`"),
    ("port: 8080", "port", "not a setting", "`server.port`"),
    ("ttl_s: 8080", "ttl_s", "not a setting", "cache"),
    ("admin: {host: 0.0.0.0}", "admin.host", "no token is asked for", "admin.token"),
    ("admin: {host: gateway.internal}", "admin.host", "no token is asked for", "127.0.0.1"),
    ("admin: {token: short}", "admin.token", "shorter than 16 characters", "openssl rand"),
    ("admin: {token: 'sixteen characters or more'}", "admin.token", "has a space", "bare"),
    ("servr: {port: 1}", "servr", "not a setting", "`server`"),
    ("zzz: {port: 1}", "zzz", "not a setting", "upstreams"),
    ("5: {port: 1}", "5", "not a setting", "upstreams"),
    ("server: {port: 8080, probe_port: 8080}", "server.probe_port", "port that the API", "9180"),
    ("server: {port: 9180}", "server.probe_port", "port that the API", "own"),
    (
        "server: {host: 0.0.0.0, port: 80, probe_host: 10.0.0.1, probe_port: 80}",
        "server.probe_port",
        "port that the API",
        "own",
    ),
    ("server: {trusted_proxies: [nonsense]}", "server.trusted_proxies[0]", "CIDR", "10.0.0.0/8"),
    ("server: {trusted_proxies: [10.1.2.3/8]}", "server.trusted_proxies[0]", "its range", "10.0.0.0/8"),
    ("server: {trusted_proxies: 10.0.0.0/8}", "server.trusted_proxies", "a list", "a list"),
    ("server: {trusted_proxies: [7]}", "server.trusted_proxies[0]", "not text", "quotes"),
    ("upstreams: {vllm: {}}", "upstreams.vllm.base_url", "missing", "GATEWAY_UPSTREAMS__VLLM__BASE_URL"),
    ("upstreams: {vllm: }", "upstreams.vllm.base_url", "missing", "GATEWAY_UPSTREAMS__VLLM__BASE_URL"),
    ("upstreams: {openia: {}}", "upstreams.openia.base_url", "missing", "`openai`"),
    ("upstreams: {vllm: 'http://gpu'}", "upstreams.vllm", "not a section", "section"),
    ("upstreams: [a]", "upstreams", "not a mapping", "a mapping"),
    ("upstreams: {Bad Name: {base_url: 'http://h'}}", "upstreams.Bad Name", "not a name", "a-z"),
    ("upstreams: {openai: {base_url: 'api.openai.com/v1'}}", "upstreams.openai.base_url", "absolute", "https://api"),
    ("upstreams: {openai: {base_url: 'ftp://h/v1'}}", "upstreams.openai.base_url", "absolute", "https://api"),
    ("upstreams: {openai: {base_url: 'https:///v1'}}", "upstreams.openai.base_url", "host", "https://api"),
    ("upstreams: {openai: {base_url: 'http://h:x/'}}", "upstreams.openai.base_url", "not a URL", "https://api"),
    ("upstreams: {openai: {base_url: 'http://h/v 1'}}", "upstreams.openai.base_url", "space", "percent"),
    ("upstreams: {openai: {base_url: 'http://h/v1?a=b'}}", "upstreams.openai.base_url", "query", "prefix"),
    ("upstreams: {openai: {base_url: 'http://h/v1#a'}}", "upstreams.openai.base_url", "fragment", "prefix"),
    ("upstreams: {openai: {base_url: 'http://u:p@h/v1'}}", "upstreams.openai.base_url", "password", "api_key"),
    ("upstreams: {openai: {api_key: 'two words'}}", "upstreams.openai.api_key", "space", "bare key"),
    ("upstreams: {openai: {api_key: ''}}", "upstreams.openai.api_key", "empty", "bare key"),
    ("upstreams: {openai: {api_key: 123456}}", "upstreams.openai.api_key", "not a secret", "quotes"),
    ("upstreams: {openai: {provider: opnai}}", "upstreams.openai.provider", "`opnai` is not one of", "openai"),
    ("upstreams: {openai: {apikey: k}}", "upstreams.openai.apikey", "not a setting", "api_key"),
    ("routes: [{upstream: vlm}]", "routes[0].upstream", "`vlm` is not an upstream", "anthropic, openai"),
    ("upstreams: {openai: {metrics_interval_s: 5}}", "upstreams.openai.metrics_interval_s", "can't be read", "vllm, sglang, llamacpp"),
    ("routes: [{}, {paht: /v1}]", "routes[1].paht", "not a setting", "`routes[1].path`"),
    ("routes: [{path: v1/chat}]", "routes[0].path", "match no path", "/v1"),
    ("routes: [{cache: {when: never}}]", "routes[0].cache.when", "`never` is not one of", "deterministic"),
    ("routes: {path: /v1}", "routes", "not a list", "a list"),
    ("routes: [chat]", "routes[0]", "not a section", "section"),
    ("cache: {ttl_s: 0}", "cache.ttl_s", "`0` is not a number greater than 0 (seconds)", "3600"),
    ("cache: {ttl_s: .inf}", "cache.ttl_s", "`inf` is not a number", "3600"),
    ("cache: {ttl_s: 1h}", "cache.ttl_s", "`1h` is not a number", "seconds"),
    ("cache: {when: on}", "cache.when", "`on` is not one of", "always"),
    ("cache: {secret: [short]}", "cache.secret[0]", "shorter than 16", "openssl"),
    ("cache: {tenant_header: 'x tenant:'}", "cache.tenant_header", "not a header name", "hyphens"),
    ("cache: {store: {truncatd: true}}", "cache.store.truncatd", "not a setting", "truncated"),
    ("cache: {store: {truncated: maybe}}", "cache.store.truncated", "`maybe` is not true or false", "true"),
    ("store: {url: 'postgres://h/db'}", "store.url", "no store knows", "sqlite:///path"),
    ("store: {url: 'cache.db'}", "store.url", "no store knows", "sqlite:///path"),
    ("store: {url: 'memory://x'}", "store.url", "memory://", "write memory://"),
    ("store: {url: 'sqlite://cache.db'}", "store.url", "no SQLite file", "three slashes"),
    ("store: {url: 'sqlite:///'}", "store.url", "no SQLite file", "three slashes"),
    ("store: {url: 'redis:///0'}", "store.url", "no Redis host", "redis://host"),
    ("store: {url: 'redis://h/cache'}", "store.url", "database number", "redis://host"),
    ("store: {url: 'redis://h:port/0'}", "store.url", "not a URL", "redis://host"),
    ("store: {url: 'redis://u:1/a@h/0'}", "store.url", "an @ after its host", "percent-encode"),
    ("telemetry: {traces: maybe}", "telemetry.traces", "`maybe` is not one of", "auto"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "path", "problem", "mend"), FILE_FAULTS)
def test_a_fault_in_the_file_has_its_path_its_line_and_its_mend(
    write: Any, text: str, path: str, problem: str, mend: str
) -> None:
    (fault,) = faults_of(write(f"# first line\n{text}\n"))
    assert fault.path == path
    assert problem in fault.problem
    assert mend in fault.mend
    if "missing" not in problem and text != "server: {port: 9180}":
        assert "(line 2)" in fault.problem


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("server:\n  port: 1\n bad: [", 3, "not valid YAML"),
        ("a: 1\nserver: {port: 1}\nserver: {port: 2}", 3, "`server` stands here again, after line 2"),
        ("server:\n  port: 1\n  port: 2", 3, "`server.port` stands here again, after line 2"),
        ("routes:\n- path: /a\n  path: /b", 3, "`routes[0].path` stands here again"),
        ("- server", 1, "not a mapping"),
        ("\njust words", 2, "not a mapping"),
        ("server: {port: 1}\n---\nserver: {port: 2}", 2, "not valid YAML"),
        ("x: 1\ny: !!python/object/apply:os.system [ls]", 2, "not valid YAML"),
        ("server: &s\n  host: *s", 2, "contains itself"),
        ("server:\n\tport: 1", 2, "not valid YAML"),
        ("server: {? [a, b] : 1}", 1, "not valid YAML"),
    ],
)  # fmt: skip
def test_a_broken_file_is_a_fault_with_its_line(
    write: Any, text: str, line: int, problem: str
) -> None:
    file = write(text)
    found = {fault.path: fault.problem for fault in faults_of(file)}
    assert f"{file}:{line}" in found or (problem == "contains itself" and len(found) == 1)
    assert problem in " ".join(found.values())


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "No such file"), (b"a: \xff", "not UTF-8"), (b"#" * 1_100_000, "larger than 1 MiB")],
)
def test_a_file_that_cannot_be_read_is_a_fault(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    file = tmp_path / "config.yaml"
    if content is not None:
        file.write_bytes(content)
    (fault,) = faults_of(file, {"GATEWAY_UPSTREAMS__VLLM__API_KEY": "its-url-may-be-in-the-file"})
    assert fault.path == str(file)
    assert problem in fault.problem


ODD_VALUES = (
    "",
    "[]",
    "{}",
    "[[]]",
    "{a: {b: 1}}",
    "{1: 2}",
    "[{}]",
    "-1",
    "1e400",
    "'\\0'",
    "'://'",
    "'http://[::1'",
    "2026-01-01",
    "!!binary aGk=",
    "!!set {a}",
    "!!omap [a: 1]",
)


def faults_if_any(file: Path | None, environ: dict[str, str]) -> tuple[Fault, ...]:
    try:
        load(file, environ)
    except ConfigError as error:
        return error.faults
    return ()


def _around(variable: str | None) -> list[str]:
    """The variable of a setting, and those of the sections around it."""
    steps = (variable or "").replace("<NAME>", "OPENAI").split("__")
    return ["__".join(steps[:end]) for end in range(1, len(steps) + 1) if variable]


@pytest.mark.parametrize("value", ODD_VALUES)
def test_whatever_stands_for_a_setting_it_loads_or_is_a_named_fault(write: Any, value: str) -> None:
    for setting in catalogue():
        text = value
        for step in reversed(setting.path.replace("<name>", "openai").split(".")):
            name = step.removesuffix("[]")
            text = f"{{{name}: [{text}]}}" if step.endswith("[]") else f"{{{name}: {text}}}"
        faults = faults_if_any(write(text), {})
        assert [f for f in faults if "YAML" in f.problem] == [], text
        for variable in _around(setting.env):
            faults += faults_if_any(None, {variable: value})
        assert all(fault.path and fault.problem and fault.mend for fault in faults)


@pytest.mark.parametrize("text", ["x: 2026-99-99", "x: " + "[" * 5000, "x: 0x"])
def test_no_content_of_a_file_escapes_as_another_error(write: Any, text: str) -> None:
    assert faults_of(write(text))


@pytest.mark.parametrize(
    ("environ", "path", "problem", "mend"),
    [
        ({"GATEWAY_SERVER__PORT": "http"}, "GATEWAY_SERVER__PORT", "`http` is not", "8080"),
        ({"PORT": "http"}, "PORT", "`http` is not", "8080"),
        ({"REDIS_URL": "http://h"}, "REDIS_URL", "no store knows", "redis://"),
        ({"GATEWAY_SERVER_PORT": "1"}, "GATEWAY_SERVER_PORT", "no setting", "GATEWAY_SERVER__PORT?"),
        ({"GATEWAY_PORT": "8080"}, "GATEWAY_PORT", "no setting", "settings.md"),
        ({"GATEWAY_server__port": "1"}, "GATEWAY_server__port", "no setting", "GATEWAY_SERVER__PORT?"),
        ({"GATEWAY_CACHE__TTL": "1"}, "GATEWAY_CACHE__TTL", "no setting", "GATEWAY_CACHE__TTL_S?"),
        ({"GATEWAY_CACHE__SECRT_FILE": "/x"}, "GATEWAY_CACHE__SECRT_FILE", "no setting", "GATEWAY_CACHE__SECRET_FILE?"),
        ({"GATEWAY_UPSTREAMS__OPENAI__API_KY": "k"}, "GATEWAY_UPSTREAMS__OPENAI__API_KY", "no setting", "OPENAI__API_KEY?"),
        ({"GATEWAY_CACHE__": "1"}, "GATEWAY_CACHE__", "no setting", "settings.md"),
        ({"GATEWAY_CONFIG_FILE": "/x"}, "GATEWAY_CONFIG_FILE", "no setting", "did you mean GATEWAY_CONFIG?"),
        ({"GATEWAY_": "1"}, "GATEWAY_", "no setting", "unset it"),
        ({"GATEWAY_CACHE__TTL_S__X": "1"}, "GATEWAY_CACHE__TTL_S__X (cache.ttl_s)", "not a number", "seconds"),
        ({"GATEWAY_ROUTES__0__PATH": "/"}, "GATEWAY_ROUTES__0__PATH (routes)", "not a list", "a list"),
        ({"GATEWAY_ROUTES": '[{"path": '}, "GATEWAY_ROUTES", "neither JSON nor YAML", "one line"),
        ({"GATEWAY_ROUTES": '[{"upstream": "x"}]'}, "GATEWAY_ROUTES (routes[0].upstream)", "not an upstream", "openai"),
        ({"GATEWAY_CACHE": "{ttl: 5}"}, "GATEWAY_CACHE (cache.ttl)", "not a setting", "cache.ttl_s"),
        ({"GATEWAY_UPSTREAMS": "{5: {base_url: h}}"}, "GATEWAY_UPSTREAMS (upstreams.5.base_url)", "absolute", "https"),
        ({"GATEWAY_CACHE": "{5: {6: 7}}"}, "GATEWAY_CACHE (cache.5)", "not a setting", "ttl_s"),
        ({"GATEWAY_CACHE": "null"}, "GATEWAY_CACHE", "no value", "unset it"),
        ({"GATEWAY_ROUTES": "# none"}, "GATEWAY_ROUTES", "no value", "unset it"),
        ({"GATEWAY_CACHE__SECRET": " \n\n"}, "GATEWAY_CACHE__SECRET (cache.secret[0])", "shorter", "openssl"),
        ({"GATEWAY_CACHE__SECRET": "\n\n"}, "GATEWAY_CACHE__SECRET", "no secret", "unset it"),
        ({"GATEWAY_CACHE": "5"}, "GATEWAY_CACHE", "not a section", "section"),
        ({"GATEWAY_UPSTREAMS__VLLM__API_KEY": "k"}, "upstreams.vllm.base_url", "missing", "GATEWAY_UPSTREAMS__VLLM__BASE_URL"),
        ({"GATEWAY_LOG__LEVEL_FILE": "/no/such"}, "GATEWAY_LOG__LEVEL_FILE", "No such file", "path"),
        ({"GATEWAY_LOG__LEVEL_FILE": "/dev/null"}, "GATEWAY_LOG__LEVEL_FILE", "empty file", "value"),
        ({"GATEWAY_LOG__LEVEL_FILE": "/dev/zero"}, "GATEWAY_LOG__LEVEL_FILE", "larger than", "path"),
        (
            {"GATEWAY_LOG__LEVEL_FILE": "/x", "GATEWAY_LOG__LEVEL": "info"},
            "GATEWAY_LOG__LEVEL_FILE",
            "so is GATEWAY_LOG__LEVEL",
            "unset one",
        ),
        (
            {
                "GATEWAY_UPSTREAMS__VLLM__BASE_URL_FILE": "/no/such",
                "GATEWAY_UPSTREAMS__VLLM__API_KEY": "k",
                "GATEWAY_ROUTES": '[{"upstream": "vllm"}]',
            },
            "GATEWAY_UPSTREAMS__VLLM__BASE_URL_FILE",
            "No such file",
            "path",
        ),
    ],
)  # fmt: skip
def test_a_fault_of_the_environment_names_the_variable(
    environ: dict[str, str], path: str, problem: str, mend: str
) -> None:
    (fault,) = faults_of(None, environ)
    assert fault.path == path
    assert problem in fault.problem
    assert mend in fault.mend


def test_a_fault_of_a_flag_says_so() -> None:
    (fault,) = faults_of(None, {}, {"server.port": "http"})
    assert (fault.path, "given as a flag" in fault.problem) == ("server.port", True)


def test_faults_of_every_kind_and_source_come_at_once(write: Any) -> None:
    file = write(
        "server: {port: 9180}\nserver: {port: 9180}\nroutes: [{upstream: nowhere}]\n"
        "cache: {ttl: 5, secret: short}\nupstreams: {vllm: {}}\n"
    )
    environ = {"GATEWAY_LOG__LEVEL": "loud", "GATEWAY_NO": "1", "GATEWAY_ROUTES_FILE": "/no/such"}
    faults = faults_of(file, environ, {"log.format": "xml"})
    assert {fault.path for fault in faults} == {
        f"{file}:2",
        "GATEWAY_NO",
        "GATEWAY_ROUTES_FILE",
        "log.format",
        "upstreams.vllm.base_url",
        "cache.secret[0]",
        "cache.ttl",
        "GATEWAY_LOG__LEVEL",
        "routes[0].upstream",
        "server.probe_port",
    }


def test_a_broken_file_does_not_hide_the_faults_of_the_environment(write: Any) -> None:
    file = write("server: [")
    paths = [fault.path for fault in faults_of(file, {"GATEWAY_LOG__LEVEL": "loud"})]
    assert paths == [f"{file}:1", "GATEWAY_LOG__LEVEL"]


def test_no_fault_is_told_in_the_words_of_the_validator(write: Any) -> None:
    for text, *_ in FILE_FAULTS:
        for fault in faults_of(write(text)):
            told = f"{fault.problem} {fault.mend}".lower()
            for jargon in ("input should", "extra inputs", "valid dictionary", "pydantic", "type="):
                assert jargon not in told, text


def test_a_config_built_by_hand_obeys_the_same_rules() -> None:
    with pytest.raises(ValidationError, match="port that the API has"):
        Config.model_validate({"server": {"port": 80, "probe_port": 80}})
    assert Config.model_validate({"server": {"port": 0, "probe_port": 0}})
    apart = {"host": "10.0.0.1", "port": 80, "probe_host": "10.0.0.2", "probe_port": 80}
    assert Config.model_validate({"server": apart})


# -- secrets ----------------------------------------------------------------------------------

SECRETIVE = f"""
upstreams:
  openai: {{api_key: {SECRET}}}
  vllm: {{base_url: "http://gpu:8000/v1", api_key: "{SECRET}"}}
cache: {{secret: [{SECRET}-1, {SECRET}-2]}}
store: {{url: "rediss://user:{SECRET}@cache:6379/0?password={SECRET}"}}
"""


def test_neither_repr_nor_dump_nor_redaction_shows_a_secret(write: Any) -> None:
    loaded = load_with_origins(write(SECRETIVE), {})
    config = loaded.config
    shown = [repr(config), str(config), repr(config.store), repr(loaded), str(config.redacted())]
    assert [text for text in shown if "hunter2" in text] == []
    redacted = config.redacted()
    assert redacted["upstreams"]["openai"]["api_key"] == MASK
    assert redacted["cache"]["secret"] == [MASK, MASK]
    assert redacted["store"]["url"] == f"rediss://user:{MASK}@cache:6379/0?password={MASK}"
    assert config.store.url is not None
    assert SECRET in config.store.url, "the store itself needs it"


@pytest.mark.parametrize(
    "text",
    [
        f"cache: {{secret: {{a: {SECRET}}}}}",
        f"cache: {{secret: {SECRET}, ttl_s: -1}}",
        f"cache: {SECRET}",
        "cache: {secret: [hunter2]}",
        f"cache: {{secret: !{SECRET}}}",
        f"cache: {{secret: *{SECRET}}}",
        f"cache: {{secret: '{SECRET}",
        f"cache: {{secrets: {SECRET}}}",
        f"upstreams: {SECRET}",
        f"upstreams: {{openai: {SECRET}}}",
        f"upstreams: {{openai: {{api_key: [{SECRET}]}}}}",
        f"upstreams: {{openai: {{api_key: '{SECRET} {SECRET}'}}}}",
        f"upstreams: {{openai: {{apikey: {SECRET}}}}}",
        f"upstreams: {{openai: {{provider: {SECRET}}}}}",
        f"upstreams: {{openai: {{idle_timeout_s: {SECRET}}}}}",
        f"upstreams: {{openai: {{base_url: 'https://u:{SECRET}@h/v1'}}}}",
        f"upstreams: {{openai: {{base_url: 'https://h/v1?key={SECRET}'}}}}",
        f"upstreams: {{openai: {{base_url: '{SECRET}'}}}}",
        f"store: {{url: 'redis://u:{SECRET}@h/x'}}",
        f"store: {{url: 'redis://u:{SECRET}@'}}",
        f"store: {{url: 'redis://u:1/{SECRET}@h/0'}}",
        f"store: {{url: 'redis://u:1?{SECRET}@h/0'}}",
        f"store: {{url: '{SECRET}://h'}}",
        f"store: {{urls: 'redis://u:{SECRET}@h'}}",
        f"{SECRET}",
    ],
)
def test_no_fault_shows_a_secret_wherever_it_was_put(write: Any, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(text), {})
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value.faults)
    assert "hunter2" not in told
    with pytest.raises(ConfigError) as caught:
        load(None, {"GATEWAY_UPSTREAMS": text, "GATEWAY_CACHE": text, "GATEWAY_STORE": text})
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value.faults)
    assert "hunter2" not in told


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GATEWAY_CACHE__SECRET", "hunter2"),
        ("GATEWAY_UPSTREAMS__OPENAI__API_KEY", f"{SECRET} "),
        ("GATEWAY_UPSTREAMS__OPENAI__API_KY", SECRET),
        ("GATEWAY_UPSTREAMS__VLLM__API_KEY", SECRET),
        ("GATEWAY_UPSTREAMS__OPENAI", f"{{{SECRET}"),
        ("REDIS_URL", f"redis://u:{SECRET}@"),
    ],
)
def test_no_fault_of_a_variable_shows_its_secret(variable: str, value: str) -> None:
    (fault,) = faults_of(None, {variable: value})
    assert "hunter2" not in repr(fault)


def test_errors_of_the_models_themselves_hide_what_they_were_given() -> None:
    with pytest.raises(ValidationError) as caught:
        Config.model_validate({"cache": {"secret": ["hunter2"]}, "store": {"url": SECRET}})
    assert "hunter2" not in str(caught.value)


# -- generation -------------------------------------------------------------------------------


def test_the_generation_is_equal_for_equal_configs_and_changes_with_a_setting(write: Any) -> None:
    one = load(write("cache: {ttl_s: 60, when: off}"), {})
    other = load(None, {"GATEWAY_CACHE__WHEN": "off", "GATEWAY_CACHE__TTL_S": "60"})
    assert one.generation() == other.generation()
    assert len(bytes.fromhex(one.generation())) == 8
    changed = load(None, {"GATEWAY_CACHE__WHEN": "off", "GATEWAY_CACHE__TTL_S": "61"})
    assert changed.generation() != one.generation()


def test_the_generation_says_nothing_about_a_secret() -> None:
    one, other = (
        load(None, {"GATEWAY_UPSTREAMS__OPENAI__API_KEY": key}) for key in ("key-one", "key-two")
    )
    assert one.generation() == other.generation() != load(None, {}).generation()
