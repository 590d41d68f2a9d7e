"""The rendered sidecar pod, run for real: its processes, user, file system, ports and probes."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

import pytest
import yaml

from tests.deploy.helm import CHART, Helm
from tests.deploy.manifests import SIDECAR, gateway_container, pod_of, workload
from tests.helpers.kubelet import Image, Pod
from tests.helpers.required import missing
from tests.helpers.volumes import amount, project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.deploy.image import BuiltImage

Manifest = dict[str, Any]
MODEL = ("10.96.0.7", 8000)
STARTS_S = 30.0

# An app as hostile as apps are: it asks at once, without patience, and once more when it is told to go.
APP = """
import json, os, signal, sys, threading, urllib.request
def ask(said):
    body = {"model": "m", "messages": [{"role": "user", "content": said}]}
    request = urllib.request.Request(
        os.environ["OPENAI_BASE_URL"] + "/chat/completions", json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": "Bearer sk-app"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        content = json.load(answer)["choices"][0]["message"]["content"]
        print(said, answer.status, content, flush=True)
gone = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: gone.set())
ask("at the start")
if sys.argv[1:] == ["job"]:
    sys.exit(0)
gone.wait()
ask("at the end")
"""


class Model(BaseHTTPRequestHandler):
    """A provider in the pod's network: what a gateway in a pod can reach."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": "Hello."}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}
        body = json.dumps(
            {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
            | {"choices": [choice], "usage": usage}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


class RunningPod(Pod):
    """With a model beside it, and the gateway's image for the gateway and for the app."""

    def __enter__(self) -> Self:
        def serve() -> ThreadingHTTPServer:
            return ThreadingHTTPServer(MODEL, Model)

        self._model = self.inside(serve)
        threading.Thread(target=self._model.serve_forever, daemon=True).start()
        return super().__enter__()

    def __exit__(self, *problem: object) -> None:
        super().__exit__(*problem)
        self._model.shutdown()
        self._model.server_close()

    def ask(self, port: int, path: str, host: str = "127.0.0.1") -> tuple[int, bytes]:
        """Status and body of a GET from within the pod's network; 0 where nobody listens."""

        def get() -> tuple[int, bytes]:
            connection = http.client.HTTPConnection(host, port, timeout=5)
            with contextlib.closing(connection):
                try:
                    connection.request("GET", path)
                    answer = connection.getresponse()
                    return answer.status, answer.read()
                except ConnectionRefusedError:
                    return 0, b""

        return self.inside(get)

    def until_said(self, name: str, words: str) -> None:
        """Waits for a line of a container's log."""
        deadline = time.monotonic() + STARTS_S
        process = self.running[name].process
        while words not in process.output():
            assert time.monotonic() < deadline, self.logs()
            assert not process.ended.wait(0.02), self.logs()

    def mounts_of(self, name: str) -> dict[str, set[str]]:
        """Where something is mounted in a container, and with which options."""
        pid = self.running[name].process.pid()
        with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as file:  # noqa: PTH123
            return {line.split()[4]: set(line.split()[5].split(",")) for line in file}

    def files_of(self, name: str, folder: str) -> list[str]:
        """What is in a folder of a container."""
        pid = self.running[name].process.pid()
        return sorted(os.listdir(f"/proc/{pid}/root{folder}"))  # noqa: PTH208

    def listening(self) -> set[tuple[str, int]]:
        """(address as the kernel writes it, port) of all that listen in the pod's network."""
        found = set()
        for table in ("tcp", "tcp6"):
            pid = self.running["warmgate"].process.pid()
            with open(f"/proc/{pid}/net/{table}", encoding="utf-8") as file:  # noqa: PTH123
                for line in list(file)[1:]:
                    _, local, _, state, *_ = line.split()
                    if state == "0A":
                        address, _, port = local.partition(":")
                        found.add((address, int(port, 16)))
        return found

    def status_of(self, name: str) -> dict[str, str]:
        """What the kernel says of a container's first process."""
        pid = self.running[name].process.pid()
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:  # noqa: PTH123
            pairs = (line.partition(":") for line in file)
            return {field: value.strip() for field, _, value in pairs}


def secret(name: str, **content: str) -> Manifest:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in content.items()}
    return {"kind": "Secret", "metadata": {"name": name}, "data": data}


# A Redis that is down, and a key: nothing of it may show.
SECRETS = [
    secret("warmgate-redis", url="redis://:hidden-password@127.0.0.1:1/0"),
    secret("provider-keys", openai="sk-app"),
]
SETTINGS = {"upstreams": {"openai": {"base_url": f"http://{MODEL[0]}:{MODEL[1]}/v1"}}}


def running(
    pod: Manifest, manifests: list[Manifest], image: BuiltImage, folder: Path, *words: str
) -> RunningPod:
    """The pod, not yet started; `words` are what the app is told."""
    gateway = gateway_container(pod)
    images = {gateway["image"]: image.image()}
    for container in pod["containers"]:
        if container is not gateway:
            app: Manifest = {"entrypoint": ["python", "-c", APP, *words], "user": "1000:1000"}
            app["env"] = {"PATH": "/usr/local/bin"}
            images[container["image"]] = Image(image.root, app)
    return RunningPod(pod, images, [*manifests, *SECRETS], folder, reachable=(MODEL[0],))


def rendered(helm: Helm, folder: Path, *, collector: str = "") -> list[Manifest]:
    """The chart's sidecar with an app; its Redis is down."""
    values = folder / "values.yaml"
    told = {"config": SETTINGS, "sidecar": {"app": {"command": [], "args": []}}}
    values.write_text(yaml.safe_dump(told | {"otlpEndpoint": collector}))
    return helm.manifests(*SIDECAR, "-f", values)


@pytest.fixture(scope="module")
def pod(
    helm: Helm, built_image: BuiltImage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningPod]:
    """One that runs, for those who only look at it."""
    folder = tmp_path_factory.mktemp("pod")
    manifests = rendered(helm, folder, collector="http://10.96.0.99:4318")
    deployment = workload(manifests)
    assert deployment
    with running(pod_of(deployment), manifests, built_image, folder) as one:
        one.until(lambda pod: pod.phase == "Running" and pod.is_ready(), STARTS_S)
        one.until_said("app", "at the start 200 Hello.")
        yield one


@pytest.mark.slow
def test_it_runs_as_nobody_and_with_no_rights(pod: RunningPod) -> None:
    told = pod.status_of("warmgate")
    assert told["Uid"].split() == told["Gid"].split() == ["65532"] * 4
    assert told["Groups"].strip() == ""
    assert told["NSpid"].split()[-1] == "1"
    assert {told[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")} == {
        "0000000000000000"
    }
    assert told["NoNewPrivs"] == "1"


@pytest.mark.slow
def test_nothing_of_its_root_can_be_written_and_tmp_can(pod: RunningPod) -> None:
    mounts = pod.mounts_of("warmgate")
    assert {"/", "/etc/warmgate/config", "/etc/warmgate/secrets", "/tmp"} <= set(mounts)
    writable = {place for place, options in mounts.items() if "rw" in options}
    assert writable <= {"/tmp", "/proc", "/dev", "/etc/hosts", "/dev/null"} | {
        f"/dev/{name}" for name in ("zero", "random", "urandom")
    }
    # Nothing was left there either: no byte code, no store, no socket.
    assert pod.files_of("warmgate", "/tmp") == []


@pytest.mark.slow
def test_its_api_is_on_the_loopback_alone_and_probes_on_the_pods_address(pod: RunningPod) -> None:
    assert pod.ask(4180, "/")[0] == 200
    assert pod.ask(4180, "/", pod.address)[0] == 0
    assert pod.ask(9181, "/admin/stats", pod.address)[0] == 0
    for path in ("/livez", "/readyz", "/metrics"):
        assert pod.ask(9180, path, pod.address)[0] == 200
    assert pod.ask(9180, "/v1/models", pod.address)[0] == 404
    assert pod.ask(9180, "/admin/stats", pod.address)[0] == 404
    listening = {port for _, port in pod.listening()}
    assert listening == {4180, 9180, 9181, MODEL[1]}


@pytest.mark.slow
def test_no_secret_is_in_its_environment_arguments_or_log(pod: RunningPod) -> None:
    container = pod.running["warmgate"].process
    for name in ("environ", "cmdline"):
        with open(f"/proc/{container.pid()}/{name}", "rb") as file:  # noqa: PTH123
            assert b"hidden" not in file.read()
    assert "hidden" not in container.output()
    assert "sk-app" not in container.output()
    # It was read all the same: the store is the Redis that the secret names.
    assert '"store":"redis://:***@127.0.0.1:1/0"' in container.output()


@pytest.mark.slow
def test_its_memory_is_within_what_the_chart_allows(pod: RunningPod) -> None:
    container = pod.running["warmgate"]
    limit = amount(container.spec["resources"]["limits"]["memory"])
    peak = container.process.peak_bytes()
    if peak is None:
        missing("cgroup", "no memory cgroup can be made")
    assert peak < limit / 2


@pytest.mark.slow
def test_the_app_finds_it_at_its_start_and_at_its_end_and_it_ends_last(
    helm: Helm, built_image: BuiltImage, tmp_path: Path
) -> None:
    manifests = rendered(helm, tmp_path)
    deployment = workload(manifests)
    assert deployment
    with running(pod_of(deployment), manifests, built_image, tmp_path) as pod:
        pod.until(lambda pod: pod.phase == "Running" and pod.is_ready(), STARTS_S)
        pod.until_said("app", "at the start 200 Hello.")
        took = pod.delete()
        assert "at the end 200 Hello." in pod.running["app"].process.output(), pod.logs()
        of_order = [event for event in pod.events if event[0] not in {"ready", "started-up"}]
        assert of_order == [
            ("started", "warmgate"),
            ("started", "app"),
            ("SIGTERM", "app"),
            ("exited 0", "app"),
            ("SIGTERM", "warmgate"),
            ("exited 0", "warmgate"),
        ]
        assert pod.events.index(("started-up", "warmgate")) < pod.events.index(("started", "app"))
        # With nothing left to wait for, nothing is waited for.
        assert took < 5


@pytest.mark.slow
def test_a_job_completes_and_then_the_gateway_is_ended(
    built_image: BuiltImage, tmp_path: Path
) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        missing("kubectl", "it puts the example together")
    example = CHART.parents[1] / "deploy/kubernetes/examples/job"
    done = subprocess.run(
        [kubectl, "kustomize", example], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    manifests = list(yaml.safe_load_all(done.stdout))
    (job,) = (m for m in manifests if m["kind"] == "Job")
    (settings,) = (m for m in manifests if m["kind"] == "ConfigMap")
    shipped = yaml.safe_load(settings["data"]["warmgate.yaml"])
    settings["data"]["warmgate.yaml"] = yaml.safe_dump(shipped | SETTINGS)
    with running(pod_of(job), manifests, built_image, tmp_path, "job") as pod:
        pod.until(lambda pod: pod.phase in {"Succeeded", "Failed"}, STARTS_S)
        (app,) = pod.spec["containers"]
        assert pod.phase == "Succeeded", pod.logs()
        assert "at the start 200 Hello." in pod.running[app["name"]].process.output()
        assert [event for event in pod.events if event[0] not in {"ready", "started-up"}] == [
            ("started", "warmgate"),
            ("started", app["name"]),
            ("exited 0", app["name"]),
            ("SIGTERM", "warmgate"),
            ("exited 0", "warmgate"),
        ]


@pytest.mark.slow
def test_a_gateway_that_dies_is_started_again_and_the_app_stays(
    helm: Helm, built_image: BuiltImage, tmp_path: Path
) -> None:
    manifests = rendered(helm, tmp_path)
    deployment = workload(manifests)
    assert deployment
    with running(pod_of(deployment), manifests, built_image, tmp_path) as pod:
        pod.until(lambda pod: pod.phase == "Running" and pod.is_ready(), STARTS_S)
        pod.until_said("app", "at the start 200 Hello.")
        pod.running["warmgate"].process.send(signal.SIGKILL)
        pod.until(lambda pod: pod.events.count(("started-up", "warmgate")) == 2, STARTS_S)
        assert pod.ask(4180, "/")[0] == 200
        assert pod.running["app"].restarts == 0
        pod.delete()
        assert "at the end 200 Hello." in pod.running["app"].process.output(), pod.logs()


@pytest.mark.slow
def test_an_app_waits_for_a_gateway_that_does_not_come_up(
    helm: Helm, built_image: BuiltImage, tmp_path: Path
) -> None:
    manifests = rendered(helm, tmp_path)
    deployment = workload(manifests)
    assert deployment
    for each in manifests:
        if each["kind"] == "ConfigMap" and "warmgate.yaml" in each["data"]:
            each["data"]["warmgate.yaml"] = "cache: {ttl_s: never}"
    with running(pod_of(deployment), manifests, built_image, tmp_path) as pod:
        pod.until(lambda pod: pod.events.count(("started", "warmgate")) == 2, STARTS_S)
        assert ("started", "app") not in pod.events
        # The exit status of a config that is wrong, and its log says what is.
        assert ("exited 2", "warmgate") in pod.events
        first = (tmp_path / "warmgate-0/log").read_text()
        assert "cache.ttl_s" in first


@pytest.mark.slow
def test_the_plain_manifest_serves_the_pods_address_and_follows_its_config_map(
    built_image: BuiltImage, tmp_path: Path
) -> None:
    file = CHART.parents[1] / "deploy/kubernetes/warmgate.yaml"
    manifests = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    deployment = workload(manifests)
    assert deployment
    with running(pod_of(deployment), manifests, built_image, tmp_path) as pod:
        pod.until(lambda pod: pod.is_ready(), STARTS_S)
        assert pod.ask(8080, "/", pod.address)[0] == 200
        assert pod.ask(9181, "/admin/stats", pod.address)[0] == 0
        assert pod.ask(9181, "/admin/stats")[0] == 200
        (settings,) = (m for m in manifests if m["kind"] == "ConfigMap")
        changed = yaml.safe_load(settings["data"]["warmgate.yaml"]) | {"log": {"level": "debug"}}
        # As a node does it: everything anew in a folder of its own, then one link is replaced.
        project(
            tmp_path / "volumes/warmgate-config",
            {"warmgate.yaml": yaml.safe_dump(changed).encode()},
            0o644,
        )
        pod.until_said("warmgate", '"settings":["log.level"],"why":"file"')
        assert pod.ask(9180, "/readyz", pod.address)[0] == 200
