"""There is no Docker daemon where these run: they hold the Dockerfile to what it relies on."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
import yaml
from packaging.markers import Marker
from packaging.utils import parse_wheel_filename

from gateway.config import Config, load
from gateway.store.open import default_url
from tests.deploy.helm import CHART

if TYPE_CHECKING:
    from packaging.tags import Tag

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/Dockerfile"
VERSION = importlib.metadata.version("warmgate")


def stages() -> list[list[tuple[str, str]]]:
    """(instruction, its text) of what stands before the first stage, and of each stage."""
    text = DOCKERFILE.read_text(encoding="utf-8")
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found: list[list[tuple[str, str]]] = [[]]
    for line in re.sub(r"\\\n\s*", " ", kept).splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            if word == "FROM":
                found.append([])
            found[-1].append((word, rest.strip()))
    return found


BEFORE, BUILD, FINAL = stages()


def texts(stage: list[tuple[str, str]], word: str) -> list[str]:
    return [text for found, text in stage if found == word]


def variables(stage: list[tuple[str, str]]) -> dict[str, str]:
    pairs = " ".join(texts(stage, "ENV")).split()
    return dict(pair.split("=", 1) for pair in pairs)


def is_left_out(path: str) -> bool:
    """Whether the ignore file keeps a file out of the build; the last pattern that fits decides."""
    ignored = False
    lines = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    for line in lines:
        pattern = line.removeprefix("!")
        if not pattern or pattern.startswith("#"):
            continue
        forms = [pattern, f"{pattern}/*"]
        if pattern.startswith("**/"):
            forms += [f"*/{form[3:]}" for form in forms]
        if any(fnmatch(path, form) for form in forms):
            ignored = not line.startswith("!")
    return ignored


def test_both_stages_share_one_pinned_base() -> None:
    assert texts(BEFORE, "ARG") == ["PYTHON_IMAGE=python:3.13-slim"]
    # The environment is copied with its path to the interpreter, so the bases must be the same.
    assert texts(BUILD, "FROM") == ["${PYTHON_IMAGE} AS build"]
    assert texts(FINAL, "FROM") == ["${PYTHON_IMAGE}"]


def test_uv_is_the_one_of_the_lock_file() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    (locked,) = (p["version"] for p in lock["package"] if p["name"] == "uv")
    assert f"UV_VERSION={locked}" in texts(BUILD, "ARG")


def test_versions_agree() -> None:
    assert f"VERSION={VERSION}" in texts(FINAL, "ARG")
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["appVersion"] == VERSION


def test_everything_copied_is_there_and_not_left_out() -> None:
    copied = [text.split()[:-1] for text in texts(BUILD, "COPY")]
    sources = [source for line in copied for source in line]
    assert sources == ["pyproject.toml", "uv.lock", "README.md", "LICENSE", "gateway"]
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
        "gateway/__pycache__/cli.cpython-313.pyc",
        "gateway/core/__pycache__/model.cpython-313.pyc",
    ],
)
def test_nothing_else_reaches_the_build(path: str) -> None:
    assert is_left_out(path)


def test_runs_as_nobody_in_particular() -> None:
    assert texts(FINAL, "USER") == ["65532:65532"]
    values = (CHART / "templates/_container.tpl").read_text(encoding="utf-8")
    assert "runAsUser: 65532" in values
    order = [word for word, _ in FINAL]
    assert order.index("USER") > max(i for i, word in enumerate(order) if word in {"RUN", "COPY"})


def test_signals_reach_the_gateway() -> None:
    # The exec form: a shell in between would keep SIGTERM for itself.
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
    (prepared,) = texts(FINAL, "RUN")
    assert found["HOME"] == found["XDG_STATE_HOME"] == "/var/lib/warmgate"
    assert (
        "install --directory --owner 65532 --group 65532 --mode 0700 /var/lib/warmgate" in prepared
    )
    assert default_url(found).startswith("sqlite:////var/lib/warmgate/")
    assert found["PYTHONDONTWRITEBYTECODE"] == "1"


def test_health_check_asks_the_probe_port() -> None:
    (text,) = texts(FINAL, "HEALTHCHECK")
    python, dash_c, program = json.loads(text.partition(" CMD ")[2])
    assert (python, dash_c) == ("python", "-c")
    compile(program, "HEALTHCHECK", "exec")
    assert f"127.0.0.1:{Config().server.probe_port}/readyz" in program


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


@pytest.mark.slow
def test_its_two_installations_give_a_gateway_that_starts(tmp_path: Path) -> None:
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", str(tmp_path)),
        **{k: v for k, v in os.environ.items() if k.startswith(("UV_", "XDG_"))},
        **{k: v for k, v in variables(BUILD).items() if k.startswith("UV_")},
        # The image's own places.
        "UV_PROJECT_ENVIRONMENT": str(tmp_path / "venv"),
        "UV_PYTHON": sys.executable,
    }
    source = tmp_path / "src"
    source.mkdir()
    for word, text in BUILD:
        if word == "COPY":
            *names, _ = text.split()
            for name in names:
                if (ROOT / name).is_dir():
                    ignore = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / name, source / name, ignore=ignore)
                else:
                    shutil.copy(ROOT / name, source / name)
        elif word == "RUN" and (command := re.search(r"\buv (sync .*)", text)):
            done = subprocess.run(
                [uv, *command[1].split()],
                cwd=source,
                env=environ,
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
            if "Failed to fetch" in done.stderr or "dns error" in done.stderr:
                pytest.skip("the package index cannot be reached")
            assert done.returncode == 0, done.stderr
    # The source is gone from the final stage.
    shutil.rmtree(source)
    gateway = tmp_path / "venv/bin/gateway"
    done = subprocess.run(
        [gateway, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "serve" in done.stdout
