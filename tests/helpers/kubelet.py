"""A small kubelet: does with one pod's manifest what a node does, with processes for containers.

It follows kubernetes.io's words on pod life cycle and sidecars: init containers one after the other;
one with `restartPolicy: Always` is a sidecar, and the next container waits for its startup probe;
probes come from the node to the pod's address; at the end preStop hooks run, the app's containers
get SIGTERM, sidecars after all that started behind them, and SIGKILL comes when the grace is over.
What it does not know in a manifest it refuses: nothing is ignored that a cluster would act on.
"""

from __future__ import annotations

import ctypes
import http.client
import os
import re
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar

from tests.helpers.container import Container, Mount, Process
from tests.helpers.volumes import amount, content, mount_volumes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

T = TypeVar("T")
Manifest = dict[str, Any]
CLONE_NEWNET = 0x40000000
LEAST_GRACE_S = 2.0
RESTART_AFTER_S = 0.1
"""A node waits longer, the more often it happens; a test has no use for that."""

CRASH_LOOP = 5

POD_FIELDS = {
    *("containers", "initContainers", "volumes", "restartPolicy", "terminationGracePeriodSeconds"),
    *("securityContext", "automountServiceAccountToken", "enableServiceLinks"),
    # Which node it goes to, and who it is for the API server: of no matter on the node.
    *("serviceAccountName", "nodeSelector", "affinity", "tolerations", "imagePullSecrets"),
    *("topologySpreadConstraints", "priorityClassName"),
}
CONTAINER_FIELDS = {
    *("name", "image", "imagePullPolicy", "command", "args", "env", "ports", "resources"),
    *("securityContext", "volumeMounts", "lifecycle", "restartPolicy", "workingDir"),
    *("startupProbe", "livenessProbe", "readinessProbe"),
}
SECURITY_FIELDS = {
    *("runAsNonRoot", "runAsUser", "runAsGroup", "fsGroup", "readOnlyRootFilesystem"),
    *("allowPrivilegeEscalation", "capabilities", "seccompProfile"),
}
PROBE_FIELDS = {
    *("httpGet", "periodSeconds", "timeoutSeconds", "failureThreshold", "successThreshold"),
    "initialDelaySeconds",
}


@dataclass(frozen=True)
class Image:
    """What a container starts from: the folder of its files, and what the image says."""

    root: Path
    config: Manifest


@dataclass(eq=False)
class Running:
    """A container of the pod."""

    spec: Manifest
    process: Container
    started: threading.Event = field(default_factory=threading.Event)
    ready: threading.Event = field(default_factory=threading.Event)
    gone: threading.Event = field(default_factory=threading.Event)
    restarts: int = 0

    @property
    def is_sidecar(self) -> bool:
        """Whether it is an init container that goes on."""
        return self.spec.get("restartPolicy") == "Always"


class Pod:
    """`with Pod(...) as pod:` it is started; afterwards everything of it is gone.

    `objects` are the ConfigMaps and Secrets that its volumes name. `events` tells what happened, in
    order: `("started", "warmgate")`, then `started-up`, `ready`, `unready`, `unhealthy`, `SIGTERM`,
    `SIGKILL`, `exited 0`.
    """

    def __init__(
        self,
        spec: Manifest,
        images: Mapping[str, Image],
        objects: list[Manifest],
        folder: Path,
        *,
        address: str = "10.244.1.9",
        reachable: tuple[str, ...] = (),
    ) -> None:
        """`reachable` are addresses of others that something of the test listens on."""
        _only(spec, POD_FIELDS, "the pod")
        self.spec = spec
        self.address = address
        self.events: list[tuple[str, str]] = []
        self.running: dict[str, Running] = {}
        self.phase = "Pending"
        self._restart = spec.get("restartPolicy", "Always")
        self._images = images
        self._objects = objects
        self._folder = folder
        self._changed = threading.Condition()
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self._network = _Network(address, *reachable)

    def __enter__(self) -> Self:
        self._spawn(self._run)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for each in list(self.running.values()):
            each.process.close()
        for thread in self._threads:
            thread.join(20)
        self._network.close()

    def inside(self, work: Callable[[], T]) -> T:
        """The result of `work` done in the pod's network: its loopback, its address."""
        return self._network.inside(work)

    def until(self, holds: Callable[[Pod], bool], within_s: float) -> None:
        """Waits for something that an event brings about."""

        def settled() -> bool:
            return holds(self) or any(r.restarts >= CRASH_LOOP for r in self.running.values())

        with self._changed:
            if not (self._changed.wait_for(settled, within_s) and holds(self)):
                raise AssertionError(f"not within {within_s} s: {self.events}\n{self.logs()}")

    def is_ready(self) -> bool:
        """As the pod's condition says: each container that has a readiness probe passes it."""
        specs = [*_sidecars(self.spec), *self.spec["containers"]]
        return all(
            (one := self.running.get(spec["name"])) is not None
            and one.ready.is_set()
            and not one.process.ended.is_set()
            for spec in specs
        )

    def logs(self) -> str:
        """All that its containers printed."""
        return "\n".join(f"--- {n}\n{r.process.output()}" for n, r in self.running.items())

    def delete(self) -> float:
        """Ends it as `kubectl delete pod` does; returns how long that took, in seconds."""
        began = time.monotonic()
        self._terminate(list(self.running.values()))
        self._settle("Succeeded" if self._succeeded() else "Failed")
        return time.monotonic() - began

    # How it comes up.

    def _run(self) -> None:
        for spec in self.spec.get("initContainers", ()):
            one = self._start(spec)
            if one is None:
                return
            if one.is_sidecar:
                while not one.started.wait(0.05):
                    if self._ending.is_set():
                        return
            else:
                one.process.ended.wait()
                self._note(f"exited {one.process.status}", spec["name"])
                if one.process.status != 0:
                    self._settle("Failed")
                    return
        for spec in self.spec["containers"]:
            if self._start(spec) is None:
                return
        with self._changed:
            self.phase = "Running"
            self._changed.notify_all()

    def _start(self, spec: Manifest, restarts: int = 0) -> Running | None:
        with self._changed:
            if self._ending.is_set():
                return None
            folder = self._folder / f"{spec['name']}-{restarts}"
            process = Container(self._process(spec), folder, self._network.command)
            one = Running(spec, process, restarts=restarts)
            self.running[spec["name"]] = one
        self._note("started", spec["name"])
        self._spawn(self._probe, one)
        self._spawn(self._watch, one)
        return one

    def _watch(self, one: Running) -> None:
        """What follows the end of a container."""
        one.process.ended.wait()
        one.ready.clear()
        name = one.spec["name"]
        if self._ending.is_set():
            return
        if one.is_sidecar or one in self._mains():
            self._note(f"exited {one.process.status}", name)
        again = one.is_sidecar or (
            one in self._mains()
            and (
                self._restart == "Always"
                or (self._restart == "OnFailure" and one.process.status != 0)
            )
        )
        if again:
            one.process.close()
            if not self._ending.wait(RESTART_AFTER_S):
                self._start(one.spec, one.restarts + 1)
        elif len(self._mains()) == len(self.spec["containers"]) and all(
            each.process.ended.is_set() for each in self._mains()
        ):
            # The app is done: its sidecars are ended, and how they end is of no matter.
            self._terminate([each for each in self.running.values() if each.is_sidecar])
            self._settle("Succeeded" if self._succeeded() else "Failed")

    def _mains(self) -> list[Running]:
        names = {spec["name"] for spec in self.spec["containers"]}
        return [each for name, each in self.running.items() if name in names]

    def _succeeded(self) -> bool:
        return all(each.process.status == 0 for each in self._mains())

    def _settle(self, phase: str) -> None:
        with self._changed:
            self.phase = phase
            self._changed.notify_all()

    # How it ends.

    def _terminate(self, those: list[Running]) -> None:
        self._ending.set()
        grace = float(self.spec.get("terminationGracePeriodSeconds", 30))
        deadline = time.monotonic() + grace
        # Sidecars wait until all that were started after them are gone, and get what is left.
        threads = []
        for number, one in enumerate(those):
            later = those[number + 1 :] if one.is_sidecar else []
            thread = threading.Thread(target=self._end, args=(one, later, deadline))
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join(grace + 20)

    def _end(self, one: Running, later: list[Running], deadline: float) -> None:
        name = one.spec["name"]
        if one.process.ended.is_set():
            one.gone.set()
            return
        hook = one.spec.get("lifecycle", {}).get("preStop", {})
        if hook:
            assert set(hook) == {"sleep"}, f"this preStop hook is not known here: {hook}"
            one.process.ended.wait(min(hook["sleep"]["seconds"], deadline - time.monotonic()))
        for each in later:
            each.gone.wait(max(0.0, deadline - time.monotonic()))
        self._note("SIGTERM", name)
        one.process.send(signal.SIGTERM)
        if not one.process.ended.wait(max(LEAST_GRACE_S, deadline - time.monotonic())):
            self._note("SIGKILL", name)
            one.process.send(signal.SIGKILL)
            one.process.ended.wait(10)
        one.ready.clear()
        self._note(f"exited {one.process.status}", name)
        one.gone.set()

    # Probes.

    def _probe(self, one: Running) -> None:
        """The startup probe until it holds, then the other two, as long as the container runs."""
        spec = one.spec
        self._network.enter()
        if probe := spec.get("startupProbe"):
            failed = 0
            while not self._answers(spec, probe):
                failed += 1
                if failed >= probe.get("failureThreshold", 3):
                    self._note("unhealthy", spec["name"])
                    one.process.send(signal.SIGKILL)
                    return
                if one.process.ended.wait(probe.get("periodSeconds", 10)):
                    return
        self._note("started-up", spec["name"])
        one.started.set()
        liveness, readiness = spec.get("livenessProbe"), spec.get("readinessProbe")
        if readiness is None:
            one.ready.set()
            self._note("ready", spec["name"])
        due = {"live": time.monotonic(), "ready": time.monotonic()}
        failed_by = {"live": 0, "ready": 0}
        while not one.process.ended.is_set() and not self._ending.is_set():
            now = time.monotonic()
            if liveness and now >= due["live"]:
                due["live"] = now + liveness.get("periodSeconds", 10)
                failed_by["live"] = 0 if self._answers(spec, liveness) else failed_by["live"] + 1
                if failed_by["live"] >= liveness.get("failureThreshold", 3):
                    self._note("unhealthy", spec["name"])
                    one.process.send(signal.SIGKILL)
                    return
            if readiness and now >= due["ready"]:
                due["ready"] = now + readiness.get("periodSeconds", 10)
                if self._answers(spec, readiness):
                    failed_by["ready"] = 0
                    if not one.ready.is_set():
                        one.ready.set()
                        self._note("ready", spec["name"])
                else:
                    failed_by["ready"] += 1
                    if failed_by["ready"] >= readiness.get("failureThreshold", 3):
                        one.ready.clear()
                        self._note("unready", spec["name"])
            one.process.ended.wait(0.05)

    def _answers(self, spec: Manifest, probe: Manifest) -> bool:
        _only(probe, PROBE_FIELDS, "a probe")
        asked = probe["httpGet"]
        _only(asked, {"path", "port"}, "httpGet")
        port = asked["port"]
        if isinstance(port, str):
            (port,) = (p["containerPort"] for p in spec["ports"] if p.get("name") == port)
        timeout = probe.get("timeoutSeconds", 1)
        connection = http.client.HTTPConnection(self.address, port, timeout=timeout)
        try:
            connection.request("GET", asked["path"], headers={"User-Agent": "kube-probe/1.33"})
            status: int = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return False
        else:
            return 200 <= status < 400
        finally:
            connection.close()

    # One container.

    def _process(self, spec: Manifest) -> Process:
        _only(spec, CONTAINER_FIELDS, spec["name"])
        image = self._images[spec["image"]]
        security = self.spec.get("securityContext", {}) | spec.get("securityContext", {})
        _only(security, SECURITY_FIELDS, "securityContext")
        uid, gid = (int(n) for n in image.config.get("user", "0:0").split(":"))
        uid, gid = security.get("runAsUser", uid), security.get("runAsGroup", gid)
        if security.get("runAsNonRoot") and uid == 0:
            raise AssertionError(f"{spec['name']}: the image would run as root")
        capabilities = security.get("capabilities", {})
        assert capabilities in ({}, {"drop": ["ALL"]}), capabilities
        limit = spec.get("resources", {}).get("limits", {}).get("memory")
        mounts = mount_volumes(self.spec, spec, self._objects, self._folder)
        hosts = self._folder / "hosts"
        hosts.write_text(f"127.0.0.1\tlocalhost\n::1\tlocalhost\n{self.address}\tpod\n")
        # `command` takes the place of the image's entry point and of what the image would tell it.
        told = spec.get("args") or ([] if "command" in spec else image.config.get("cmd", []))
        return Process(
            root=str(image.root),
            argv=[*(spec.get("command") or image.config["entrypoint"]), *told],
            env=self._environment(spec, image),
            cwd=str(spec.get("workingDir") or image.config.get("workdir") or "/"),
            uid=uid,
            gid=gid,
            mounts=[*mounts, Mount("/etc/hosts", str(hosts))],
            read_only_root=security.get("readOnlyRootFilesystem", False),
            no_new_privileges=not security.get("allowPrivilegeEscalation", True),
            drop_all=bool(capabilities),
            memory_bytes=amount(limit) if limit else None,
        )

    def _environment(self, spec: Manifest, image: Image) -> dict[str, str]:
        fields = {
            "metadata.name": "pod",
            "metadata.namespace": "ns",
            "status.podIP": self.address,
        }
        found = {**image.config.get("env", {}), "HOSTNAME": "pod"}
        own: dict[str, str] = {}
        for variable in spec.get("env", ()):
            if "valueFrom" in variable:
                ((kind, told),) = variable["valueFrom"].items()
                if kind == "secretKeyRef":
                    value = content("Secret", told["name"], None, self._objects)[
                        told["key"]
                    ].decode()
                else:
                    assert kind == "fieldRef", kind
                    value = fields[told["fieldPath"]]
            else:
                value = str(variable.get("value", ""))
                value = re.sub(r"\$\((\w+)\)", lambda m: own.get(m[1], m[0]), value)
            own[variable["name"]] = value
        return found | own

    def _note(self, what: str, name: str) -> None:
        with self._changed:
            self.events.append((what, name))
            self._changed.notify_all()

    def _spawn(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()


class _Network:
    """A pod's network: a loopback and one address, kept by a process that does nothing else."""

    def __init__(self, *addresses: str) -> None:
        added = [f"ip addr add {a}/{128 if ':' in a else 32} dev lo" for a in addresses]
        script = " && ".join(["ip link set lo up", *added, "echo up", "exec sleep 600"])
        self._pause = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", script], stdout=subprocess.PIPE
        )
        assert self._pause.stdout is not None
        assert self._pause.stdout.readline() == b"up\n"
        self._path = f"/proc/{self._pause.pid}/ns/net"
        self.command = ("nsenter", f"--net={self._path}", "--")
        self._inside = ThreadPoolExecutor(8, initializer=self.enter)

    def enter(self) -> None:
        """Puts the calling thread into it, for as long as the thread lives."""
        handle = os.open(self._path, os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(handle, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(handle)

    def inside(self, work: Callable[[], T]) -> T:
        return self._inside.submit(work).result(60)

    def close(self) -> None:
        self._inside.shutdown(wait=True)
        self._pause.kill()
        self._pause.wait(10)
        assert self._pause.stdout is not None
        self._pause.stdout.close()


def _sidecars(spec: Manifest) -> list[Manifest]:
    return [one for one in spec.get("initContainers", ()) if one.get("restartPolicy") == "Always"]


def _only(given: Manifest, known: set[str], where: str) -> None:
    unknown = set(given) - known
    assert not unknown, f"{where}: {sorted(unknown)} is not known to this kubelet"
