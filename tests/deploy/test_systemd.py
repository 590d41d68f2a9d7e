"""The systemd unit: systemd's own checks, and what it starts, started."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.config import Config, load
from gateway.store.open import default_url
from tests.deploy.image import NO_NETWORK
from tests.helpers.container import Container, Mount, Process
from tests.helpers.dockerfile import ROOT
from tests.helpers.required import missing

if TYPE_CHECKING:
    from tests.deploy.image import BuiltImage

UNIT = ROOT / "deploy/systemd/warmgate.service"
STARTS_S = 20.0


def settings() -> dict[str, list[str]]:
    """What each setting of the unit is given."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def environment(state: str) -> dict[str, str]:
    pairs = " ".join(settings()["Environment"]).replace("%S", state).split()
    return dict(pair.split("=", 1) for pair in pairs)


def analysed(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        missing("systemd", "there is no systemd-analyze")
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=30, check=False
    )


def test_systemd_understands_all_of_it(tmp_path: Path) -> None:
    # A program must be where the unit says; this machine need not have Warmgate.
    text = UNIT.read_text(encoding="utf-8")
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace("/opt/warmgate/bin/gateway", "/bin/true"))
    done = analysed("verify", unit)
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(text.replace("KillMode=mixed", "KillMode=mixde"))
    assert "kill mode" in analysed("verify", unit).stderr


def test_systemd_understands_what_the_guide_adds_for_secrets(tmp_path: Path) -> None:
    text = UNIT.read_text(encoding="utf-8").replace("/opt/warmgate/bin/gateway", "/bin/true")
    guide = (ROOT / "docs/how-to/systemd.md").read_text(encoding="utf-8")
    (added,) = re.findall(r"^```ini\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    unit = tmp_path / UNIT.name
    unit.write_text(f"{text}\n{added}")
    done = analysed("verify", unit)
    assert (done.returncode, done.stderr) == (0, "")
    # What it hands over is what it is asked for, and what is asked for is a setting.
    (name, _), *_ = re.findall(r"^LoadCredential=([\w-]+):(/\S+)$", added, re.MULTILINE)
    (variable, file), *_ = re.findall(r"^Environment=(\w+)=%d/(\S+)$", added, re.MULTILINE)
    secret = tmp_path / file
    secret.write_text("redis://user:password@redis.example:6379/0\n")
    config = load(None, {variable: str(secret)})
    assert (file, config.store.url) == (name, secret.read_text().strip())


def test_whoever_looks_whether_it_is_ready_waits_for_its_start() -> None:
    # (Of `Type=exec` systemctl comes back before the ports are open.)
    guide = (ROOT / "docs/how-to/systemd.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^\$ (curl .*/readyz)$", guide, re.MULTILINE)
    if shutil.which("curl") is None:
        missing("curl", "is not installed")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        looking = subprocess.Popen(
            [*shlex.split(line.replace("9180", str(port))), "--noproxy", "*"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert looking.stderr
        said = b""
        while b"retry" not in said:
            # It was refused, and says that it tries again.
            more = os.read(looking.stderr.fileno(), 4096)
            assert more, said
            said += more
    with HTTPServer(("127.0.0.1", port), _Ready) as server:
        server.timeout = STARTS_S
        server.handle_request()
    out, _ = looking.communicate(timeout=STARTS_S)
    assert (looking.returncode, out) == (0, b"ready")


class _Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ready")


def test_it_has_hardly_any_rights() -> None:
    done = analysed("security", "--offline=yes", "--threshold=20", UNIT)
    assert done.returncode == 0, done.stdout
    (exposed,) = re.findall(r"exposure level for warmgate.service: ([\d.]+)", done.stdout)
    assert float(exposed) < 2


def test_its_store_is_in_the_folder_that_outlives_it() -> None:
    (folder,) = settings()["StateDirectory"]
    assert default_url(environment("/var/lib")) == f"sqlite:////var/lib/{folder}/cache.sqlite"


def test_its_streams_have_time_to_end_and_only_the_gateway_is_told() -> None:
    (most,) = settings()["TimeoutStopSec"]
    server = Config().server
    assert int(most.removesuffix("s")) >= server.drain_timeout_s + server.drain_idle_s + 5
    assert settings()["KillMode"] == ["mixed"]
    assert settings()["ExecReload"] == ["/bin/kill -HUP $MAINPID"]


@pytest.mark.slow
def test_what_it_starts_starts_with_its_rights_and_wrong_settings_end_it_for_good(
    built_image: BuiltImage, tmp_path: Path
) -> None:
    (command,) = settings()["ExecStart"]
    file = tmp_path / "warmgate.yaml"
    state = tmp_path / "state/warmgate"
    state.mkdir(parents=True)
    os.chown(state, 64000, 64000)

    def started(folder: Path) -> Container:
        process = Process(
            str(built_image.root),
            command.split(),
            environment("/var/lib"),
            uid=64000,
            gid=64000,
            mounts=[
                Mount("/tmp"),
                Mount("/etc/warmgate/warmgate.yaml", str(file), read_only=True),
                Mount("/var/lib/warmgate", str(state)),
            ],
            read_only_root=True,
            no_new_privileges=True,
            drop_all=True,
        )
        return Container(process, folder, ("unshare", "--net"))

    file.write_text("cache: {ttl_s: never}")
    wrong = started(tmp_path / "wrong")
    assert wrong.ended.wait(STARTS_S)
    wrong.close()
    assert [str(wrong.status)] == settings()["RestartPreventExitStatus"]
    file.write_text("cache: {ttl_s: 60}")
    gateway = started(tmp_path / "right")
    try:
        deadline = time.monotonic() + STARTS_S
        while "listening on" not in gateway.output():
            assert time.monotonic() < deadline, gateway.output()
            assert not gateway.ended.wait(0.02), gateway.output()
        assert (state / "cache.sqlite").exists()
        gateway.send(signal.SIGTERM)
        assert gateway.ended.wait(STARTS_S)
    finally:
        gateway.close()
    assert gateway.status == 0, gateway.output()


@pytest.mark.slow
def test_the_guides_lines_install_what_the_unit_starts(tmp_path: Path) -> None:
    guide = (ROOT / "docs/how-to/systemd.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\$ sudo (.*)$", guide.replace("\\\n", ""), re.MULTILINE)
    create, fetch, sync = lines[:3]
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    (pinned,) = (p["version"] for p in lock["package"] if p["name"] == "uv")
    assert fetch == f"/opt/warmgate/bin/pip install uv=={pinned}"
    uv = Path(sys.executable).parent / "uv"
    place = tmp_path / "warmgate"
    made = create.replace("python3 ", f"{sys.executable} ", 1) + " --without-pip"
    for line in (made, sync):
        put = line.replace("/opt/warmgate/bin/uv", str(uv)).replace("/opt/warmgate", str(place))
        environ = {k: v for k, v in os.environ.items() if not k.startswith("VIRTUAL_ENV")}
        done = subprocess.run(
            ["/usr/bin/env", *put.split()],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        if NO_NETWORK.search(done.stderr):
            missing("network", done.stderr[-300:])
        assert done.returncode == 0, done.stderr
    (started,) = settings()["ExecStart"]
    program = started.split()[0].replace("/opt/warmgate", str(place))
    # Where it is installed nobody but root writes: the byte code is there.
    assert list(place.glob("lib/python3*/site-packages/gateway/__pycache__/cli.*.pyc"))
    told = subprocess.run(
        [program, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True
    )
    assert "serve" in told.stdout
