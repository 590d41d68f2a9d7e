"""A rendered pod's command, file and variables start a gateway that its own probes find ready."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.deploy.helm import CHART, Helm
from tests.deploy.manifests import gateway_container, mounted, pod_of, workload

if TYPE_CHECKING:
    from pathlib import Path

START_S = 20
STOP_S = 15


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def status(port: int, path: str) -> int:
    """HTTP status, or 0 while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            found: int = answer.status
            return found
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


# That of the sidecar is run with all that its manifest says in test_pod.py, which takes root.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["default", "single"])
def test_a_rendered_pod_gets_ready_and_ends_on_sigterm(
    helm: Helm, tmp_path: Path, name: str
) -> None:
    manifests = helm.manifests("-f", CHART / f"ci/{name}-values.yaml")
    file, environ = mounted(manifests, tmp_path)
    deployment = workload(manifests)
    assert deployment
    container = gateway_container(pod_of(deployment))
    port, probe_port = free_port(), free_port()
    # Several runs may share this machine's ports; a pod has its own.
    environ |= {"GATEWAY_SERVER__PORT": str(port), "GATEWAY_SERVER__PROBE_PORT": str(probe_port)}
    if "sqlite" in file.read_text(encoding="utf-8"):
        environ["GATEWAY_STORE__URL"] = f"sqlite:///{tmp_path}/cache.sqlite"
    log = (tmp_path / "log").open("w+b")
    with (
        log,
        subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", "--config", file],
            cwd=CHART.parents[1],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path / "no-home"), **environ},
            stdout=log,
            stderr=log,
        ) as gateway,
    ):
        try:
            deadline = time.monotonic() + START_S
            startup = container["startupProbe"]["httpGet"]["path"]
            pause = threading.Event()
            while status(probe_port, startup) != 200:
                assert gateway.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                pause.wait(0.05)
            assert status(probe_port, container["livenessProbe"]["httpGet"]["path"]) == 200
            assert status(probe_port, "/metrics") == 200
            assert status(probe_port, "/v1/models") == 404
            # What the helm test asks for.
            assert status(port, "/") == 200
            gateway.send_signal(signal.SIGTERM)
            assert gateway.wait(STOP_S) == 0, (tmp_path / "log").read_text()
        finally:
            gateway.kill()
    # The pod's root is read-only.
    assert not (tmp_path / "no-home").exists()
