"""The Dockerfile is held to what it relies on; test_image.py runs its steps."""

from __future__ import annotations

import importlib.metadata
import json
import re
import tomllib
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
import yaml
from packaging.markers import Marker
from packaging.utils import parse_wheel_filename

from gateway.config import Config, load
from gateway.store.open import default_url
from tests.deploy.helm import CHART
from tests.helpers.dockerfile import ROOT, is_left_out, stages, texts, variables

if TYPE_CHECKING:
    from pathlib import Path

    from packaging.tags import Tag

VERSION = importlib.metadata.version("warmgate")


BEFORE, BUILD, FINAL = stages()


def test_its_stages_are_one_pinned_base_and_nothing() -> None:
    assert texts(BEFORE, "ARG") == ["PYTHON_IMAGE=python:3.13-slim"]
    assert texts(BUILD, "FROM") == ["${PYTHON_IMAGE} AS build"]
    # What is not named is not in the image.
    assert texts(FINAL, "FROM") == ["scratch"]
    assert texts(FINAL, "RUN") == []


def test_uv_is_the_one_of_the_lock_file() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    (locked,) = (p["version"] for p in lock["package"] if p["name"] == "uv")
    assert f"UV_VERSION={locked}" in texts(BUILD, "ARG")


def test_newer_sources_of_the_same_version_are_built_anew() -> None:
    # `uv sync` takes the wheel that it made last (the build's cache mount keeps it) where nothing
    # that these name has changed.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    keys = [key["file"] for key in project["tool"]["uv"]["cache-keys"]]
    watched = {file for key in keys for file in ROOT.glob(key)}
    shipped = {
        file
        for file in (ROOT / "gateway").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert ROOT / "pyproject.toml" in watched
    assert shipped - watched == {ROOT / "gateway/py.typed"}


def test_versions_agree() -> None:
    assert f"VERSION={VERSION}" in texts(FINAL, "ARG")
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["appVersion"] == VERSION


def test_everything_copied_is_there_and_not_left_out() -> None:
    copied = [text.split()[:-1] for text in texts(BUILD, "COPY")]
    sources = [source for line in copied for source in line]
    named = ["pyproject.toml", "uv.lock", "deploy/rootfs.py", "README.md", "LICENSE", "gateway"]
    assert sources == named
    for source in sources:
        assert (ROOT / source).exists()
        assert not is_left_out(source)
    assert not is_left_out("gateway/config/tree.py")


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".venv/bin/python",
        ".warmgate/cache.sqlite",
        "tests/deploy/conftest.py",
        "deploy/compose.yaml",
        "gateway/__pycache__/cli.cpython-313.pyc",
        "gateway/core/__pycache__/model.cpython-313.pyc",
    ],
)
def test_nothing_else_reaches_the_build(path: str) -> None:
    assert is_left_out(path)


def test_runs_as_nobody_in_particular() -> None:
    assert texts(FINAL, "USER") == ["65532:65532"]
    values = (CHART / "values.yaml").read_text(encoding="utf-8")
    assert "\nrunAsUser: 65532\n" in values


def test_signals_reach_the_gateway() -> None:
    # The exec form: a shell in between would keep SIGTERM for itself, and there is none.
    assert [json.loads(text) for text in texts(FINAL, "ENTRYPOINT")] == [["gateway"]]
    assert [json.loads(text) for text in texts(FINAL, "CMD")] == [["serve"]]
    assert texts(FINAL, "STOPSIGNAL") == ["SIGTERM"]
    scripts = importlib.metadata.entry_points(group="console_scripts", name="gateway")
    assert [script.value for script in scripts] == ["gateway.cli:main"]


def test_its_variables_are_settings(tmp_path: Path) -> None:
    ours = {k: v for k, v in variables(FINAL).items() if k.startswith("GATEWAY_")}
    server = load(None, ours).server
    assert (server.host, server.probe_host) == ("0.0.0.0", "0.0.0.0")
    assert [int(port) for port in texts(FINAL, "EXPOSE")[0].split()] == [
        server.port,
        server.probe_port,
    ]
    # A platform that hands out a port must be heard.
    assert load(None, {**ours, "PORT": "5000"}).server.port == 5000


def test_writes_only_where_its_user_may() -> None:
    found = variables(FINAL)
    assert found["HOME"] == found["XDG_STATE_HOME"] == "/var/lib/warmgate"
    assert default_url(found).startswith("sqlite:////var/lib/warmgate/")
    assert found["PYTHONDONTWRITEBYTECODE"] == "1"


def test_health_check_asks_the_probe_port() -> None:
    (text,) = texts(FINAL, "HEALTHCHECK")
    python, dash_c, program = json.loads(text.partition(" CMD ")[2])
    assert (python, dash_c) == ("python", "-c")
    compile(program, "HEALTHCHECK", "exec")
    assert f"'GATEWAY_SERVER__PROBE_PORT') or {Config().server.probe_port})" in program
    # (Swarm, and others, end who is not healthy: no reason while engines load, or are away.)
    assert "'/livez'" in program


def test_no_package_of_the_image_needs_a_compiler() -> None:
    """The slim base has none: each package is pure, or has wheels for both architectures."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    packages = {package["name"]: package for package in lock["package"]}
    seen: set[str] = set()
    queue = [(packages["warmgate"], "")]
    while queue:
        package, extra = queue.pop()
        listed = package.get("optional-dependencies", {}).get(extra, ())
        for dependency in listed if extra else package.get("dependencies", ()):
            if not Marker(dependency.get("marker", "os_name == 'posix'")).evaluate(IMAGE):
                continue
            name = dependency["name"]
            queue += [(packages[name], extra) for extra in dependency.get("extra", ())]
            if name not in seen:
                seen.add(name)
                queue.append((packages[name], ""))
    assert {"aiohttp", "hiredis", "pyyaml", "uvloop"} <= seen
    assert "pytest" not in seen
    for name in sorted(seen):
        tags = [
            tag
            for wheel in packages[name].get("wheels", ())
            for tag in parse_wheel_filename(unquote(wheel["url"].rpartition("/")[2]))[3]
        ]
        for machine in ("x86_64", "aarch64"):
            assert any(_fits(tag, machine) for tag in tags), f"{name} on {machine}"


IMAGE = {
    "os_name": "posix",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "python_version": "3.13",
    "python_full_version": "3.13.0",
    "platform_python_implementation": "CPython",
    "implementation_name": "cpython",
}


def _fits(tag: Tag, machine: str) -> bool:
    if tag.platform != "any":
        glibc = re.fullmatch(rf"manylinux_2_(\d+)_{machine}|manylinux2014_{machine}", tag.platform)
        # Debian 12, the older of the two that the base has been built on, has glibc 2.36.
        if glibc is None or int(glibc[1] or 17) > 36:
            return False
    return tag.abi in {"none", "cp313"} or (
        tag.abi == "abi3" and int(tag.interpreter.removeprefix("cp3")) <= 13
    )
