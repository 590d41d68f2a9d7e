"""Other gateways beside us, in the same run: installed outside the repository, each by itself.

What each does for its figure differs, and is told in the docs beside it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from bench.cases import CHAT, Case
from bench.processes import answers, free_port, listens

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.servers import Ground

_START_S = 120.0
_PYPI = {
    "sglang-router": ["sglang-router==0.3.2"],
    "vllm-router": ["vllm-router==0.1.17"],
    "litellm": ["litellm[proxy]==1.106.2"],
}
_PORTKEY = "@portkey-ai/gateway"
_PORTKEY_VERSION = "1.15.2"


def versions() -> list[str]:
    """What is installed, name and version."""
    return [each for wanted in _PYPI.values() for each in wanted] + [
        f"{_PORTKEY}=={_PORTKEY_VERSION}"
    ]


def cache_dir() -> Path:
    """Where peers are installed; never inside the repository."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "warmgate-bench"


def start(ground: Ground) -> list[Case]:
    """Install what is missing, start them, and return their cases; a peer that can't be had is
    named and left out.
    """
    made: list[Case] = []
    for peer in (_sglang_router, _vllm_router, _litellm, _portkey):
        try:
            made += peer(ground)
        except (RuntimeError, OSError, subprocess.CalledProcessError) as problem:
            print(f"bench: without {peer.__name__.strip('_')}: {problem}", file=sys.stderr)
    return made


@dataclass(frozen=True, slots=True)
class _Venv:
    folder: Path

    def tool(self, name: str) -> str:
        return str(self.folder / "bin" / name)


def _venv(name: str) -> _Venv:
    folder = cache_dir() / name
    stamp = folder / ".installed"
    wanted = " ".join(_PYPI[name])
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"bench: installing {wanted} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *_PYPI[name]], check=True)
        stamp.write_text(wanted)
    return _Venv(folder)


def _case(name: str, what: str, path: str = CHAT, **headers: str) -> Case:
    sent = {key.replace("_", "-"): value for key, value in headers.items()}
    return Case(name, name, path, True, what, None, sent)


def _sglang_router(ground: Ground) -> list[Case]:
    port, metrics = free_port(), free_port()
    command = [_venv("sglang-router").tool("python"), "-m", "sglang_router.launch_router"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(metrics)]
    command += ["--worker-urls", f"http://127.0.0.1:{ground.stub_port}", "--policy", "cache_aware"]
    _start(ground, "sglang-router", command, port)
    return [_case("sglang-router", "parses the body, walks its prefix tree; caches no answer")]


def _vllm_router(ground: Ground) -> list[Case]:
    port, metrics = free_port(), free_port()
    command = [_venv("vllm-router").tool("vllm-router")]
    command += ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(metrics)]
    command += ["--worker-urls", f"http://127.0.0.1:{ground.stub_port}", "--policy", "cache_aware"]
    _start(ground, "vllm-router", command, port)
    return [_case("vllm-router", "parses the body, walks its prefix tree; caches no answer")]


def _litellm(ground: Ground) -> list[Case]:
    venv = _venv("litellm")
    port = free_port()
    tree = {
        "model_list": [
            {
                "model_name": "gpt-5.6",
                "litellm_params": {
                    # Its table of models refuses a temperature for newer ones.
                    "model": "openai/gpt-4o",
                    "api_base": f"http://127.0.0.1:{ground.stub_port}/v1",
                    "api_key": "sk-bench",
                },
            }
        ],
        "litellm_settings": {"telemetry": False},
    }
    config = ground.folder / "litellm.yaml"
    config.write_bytes(orjson.dumps(tree))
    command = [venv.tool("litellm"), "--config", str(config), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--num_workers", "1"]
    _start(
        ground,
        "litellm",
        command,
        port,
        answers(port, "/health/liveliness"),
        {
            **os.environ,
            "LITELLM_MASTER_KEY": "sk-bench",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
        },
    )
    return [_case("litellm", "parses and translates request and answer; no cache set up")]


def _portkey(ground: Ground) -> list[Case]:
    folder = cache_dir() / "portkey"
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise RuntimeError("needs npm and node (Debian: apt-get install npm)")
    package = folder / "node_modules" / _PORTKEY
    if not package.exists():
        print(f"bench: installing {_PORTKEY} ...", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder)]
        subprocess.run([*command, f"{_PORTKEY}@{_PORTKEY_VERSION}"], check=True)
    script = package / "build" / "start-server.js"
    port = free_port()
    _start(ground, "portkey", [node, str(script), f"--port={port}", "--headless"], port)
    stub = f"http://127.0.0.1:{ground.stub_port}/v1"
    return [
        _case(
            "portkey",
            "parses and forwards; no cache set up",
            x_portkey_provider="openai",
            x_portkey_custom_host=stub,
        )
    ]


def _start(  # noqa: PLR0917
    ground: Ground,
    name: str,
    command: list[str],
    port: int,
    ready: Callable[[], bool] | None = None,
    env: dict[str, str] | None = None,
) -> None:
    ground.start(name, command, port, ready or listens(port), env, _START_S)
