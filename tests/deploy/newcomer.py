"""Somebody who follows a guide to the letter: its files, then its commands, in their order.

`helm` and `kubectl` are the real ones, kept from a cluster; `gateway`, `curl` and `redis-cli` meet a
gateway and a Redis that run here. What the newcomer has not made (a Secret, a Deployment, a file) is
not there. A command that nobody here understands is a failure.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import redis
import yaml

from tests.deploy.helm import CHART
from tests.deploy.manifests import all_containers
from tests.deploy.schemas import KUBES, complaints
from tests.helpers.required import missing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.deploy.helm import Helm
    from tests.deploy.manifests import Manifest

ROOT = CHART.parents[1]
GUIDES = ROOT / "docs"
OF_OPERATORS = (
    "how-to/sidecar.md",
    "how-to/vllm-deployment.md",
    "how-to/inference-gateway.md",
    "how-to/migrate.md",
    "how-to/redis-sizing.md",
    "how-to/rollout.md",
    "how-to/upgrading.md",
    "explanation/scale.md",
)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"# ([\w.-]+)\n")
# (A pattern as well: where no file fits it, zsh refuses the line.)
_SHELL = re.compile(r"[|;<>`?*]|\$[\w({]|&&")
_OPEN_PORTS = {"8080", "9180", "9181"}


@dataclass(frozen=True)
class Block:
    """One fenced block of a guide."""

    language: str
    text: str

    @property
    def file_name(self) -> str | None:
        """What its first line says that it is the content of."""
        named = _NAMED.match(self.text)
        return named[1] if named else None

    @property
    def documents(self) -> list[Any]:
        """Its YAML."""
        return list(yaml.safe_load_all(self.text))

    @property
    def commands(self) -> list[str]:
        """Of a console: what is typed."""
        return [
            command.strip().replace("\\\n", " ")
            for command in re.split(r"^\$ ", self.text, flags=re.MULTILINE)
            if command.strip()
        ]


def blocks(guide: str) -> list[Block]:
    """All of a guide, such as `how-to/sidecar.md`, in their order."""
    text = (GUIDES / guide).read_text(encoding="utf-8")
    found = [Block(language, body) for language, body in _BLOCK.findall(text)]
    # Indented ones and ones without a language would not be looked at.
    assert text.count("```") == 2 * len(found), f"{guide} has a block that is not understood"
    return found


@dataclass
class Here:
    """What runs beside the newcomer."""

    api: str
    probes: str
    admin: str
    redis_port: int

    def reached(self, url: str) -> str:
        """A URL of the guide, as it is reached here."""
        for port, own in (("8080", self.api), ("9180", self.probes), ("9181", self.admin)):
            url = url.replace(f"http://127.0.0.1:{port}", own)
        return url


@dataclass
class Newcomer:
    """What was made so far."""

    folder: Path
    helm: Helm
    here: Here
    deployments: dict[tuple[str, str], Manifest]
    """By namespace and name: what is there before the guide begins, and then what it makes."""
    secrets: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    releases: dict[tuple[str, str], list[Manifest]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    """What each command printed."""

    async def type(self, command: str) -> None:
        """Runs one command. Raises AssertionError where it would not do what the guide says."""
        assert not _SHELL.search(re.sub(r"'[^']*'", "", command)), f"a shell's doing: {command}"
        program, *words = shlex.split(command)
        match program:
            case "helm":
                self._helm(words)
            case "kubectl":
                await self._kubectl(words)
            case "gateway":
                await self._gateway(words)
            case "curl":
                await self._curl(words)
            case "redis-cli":
                self._redis(words)
            case "cp":
                source, target = words
                shutil.copy(self._placed(source), self.folder / target)
            case "docker":
                await self._docker(words)
            case _:
                raise AssertionError(f"{program} is not known: {command}")

    # -- helm

    def _helm(self, words: list[str]) -> None:
        verb, rest = words[0], words[1:]
        namespace, rest = _namespace(rest)
        placed = [str(CHART) if w == "helm/warmgate" else self._placed(w) for w in rest]
        match verb:
            case "install" | "upgrade":
                named = [word for word in placed if word != "--install"]
                self._release(namespace, named)
            case "lint" | "template":
                done = self.helm.run(verb, *placed, *_kube(verb))
                assert done.returncode == 0, done.stdout + done.stderr
            case "test":
                release = self.releases[namespace, rest[0]]
                assert any("helm.sh/hook" in (_annotations(m)) for m in release)
            case "rollback":
                assert (namespace, rest[0]) in self.releases
            case _:
                raise AssertionError(f"helm {verb} is not known")

    def _release(self, namespace: str, arguments: list[str]) -> None:
        name = arguments[0]
        done = self.helm.run(
            *("template", *arguments, "--namespace", namespace, *_kube("template")),
            *("--api-versions", "monitoring.coreos.com/v1"),
            *("--api-versions", "gateway.networking.k8s.io/v1"),
        )
        assert done.returncode == 0, done.stderr
        manifests = [each for each in yaml.safe_load_all(done.stdout) if each]
        self.releases[namespace, name] = manifests
        for manifest in manifests:
            self._apply(namespace, manifest)

    # -- kubectl

    async def _kubectl(self, words: list[str]) -> None:
        program = shutil.which("kubectl")
        if program is None:
            missing("kubectl", "is not installed")
        namespace, rest = _namespace(words)
        match rest:
            case ["create", *what]:
                await self._create(program, namespace, what)
            case ["apply", "-f", name]:
                for document in yaml.safe_load_all((self.folder / name).read_text()):
                    self._apply(namespace, document)
            case ["apply", "-k", name]:
                made = await _ran(program, "kustomize", self._placed(name), cwd=self.folder)
                for document in yaml.safe_load_all(made):
                    self._apply(namespace, document)
            case ["patch", "deployment", name, "--patch-file", patch]:
                await self._patch(program, (namespace, name), patch)
            case ["rollout", "status" | "restart" | "undo", target]:
                self._workload(namespace, target)
            case (
                ["logs", target, *_]
                | ["exec", target, "--", "gateway", *_]
                | ["exec", target, "-c", _, "--", "gateway", *_]
            ):
                pod = self._workload(namespace, target)["spec"]["template"]["spec"]
                container = rest[rest.index("-c") + 1] if "-c" in rest else "warmgate"
                (there,) = (c for c in all_containers(pod) if c["name"] == container)
                if rest[0] == "exec":
                    # It goes by what the container is told, not by what its main process was.
                    environ = {each["name"]: each.get("value") for each in there["env"]}
                    assert environ["GATEWAY_CONFIG"] == "/etc/warmgate/config/warmgate.yaml"
                    file = self.folder / "mounted.yaml"
                    file.write_text(self._mounted(namespace), encoding="utf-8")
                    words = rest[rest.index("gateway") + 1 :]
                    await self._gateway(words, {"GATEWAY_CONFIG": str(file)})
            case ["port-forward", target, *ports]:
                self._workload(namespace, target)
                assert ports
                assert set(ports) <= _OPEN_PORTS
            case _:
                raise AssertionError(f"kubectl {' '.join(rest)} is not known")

    async def _create(self, program: str, namespace: str, what: list[str]) -> None:
        # (Paths of the guide are those of the repository.)
        made = await _ran(program, "create", *what, "--dry-run=client", "-o", "yaml", cwd=ROOT)
        manifest = yaml.safe_load(made)
        assert not complaints(manifest, KUBES[-1])
        if manifest["kind"] == "Secret":
            self.secrets[namespace, manifest["metadata"]["name"]] = set(manifest["data"])

    async def _patch(self, program: str, target: tuple[str, str], patch: str) -> None:
        before = self.folder / "before.yaml"
        before.write_text(yaml.safe_dump(self.deployments[target]))
        made = await _ran(
            *(program, "patch", "--local", "-f", str(before), "-o", "yaml"),
            *("--patch-file", self._placed(patch)),
            cwd=self.folder,
        )
        self._apply(target[0], yaml.safe_load(made))

    def _apply(self, namespace: str, manifest: Manifest) -> None:
        assert not complaints(manifest, KUBES[-1]), manifest["kind"]
        namespace = manifest["metadata"].get("namespace", namespace)
        if manifest["kind"] != "Deployment":
            return
        self.deployments[namespace, manifest["metadata"]["name"]] = manifest
        for volume in manifest["spec"]["template"]["spec"].get("volumes", ()):
            for source in volume.get("projected", {}).get("sources", ()):
                secret = source["secret"]
                there = self.secrets.get((namespace, secret["name"]), set())
                asked = {item["key"] for item in secret["items"]}
                assert asked <= there, f"nobody made {secret['name']} in {namespace}"

    def _workload(self, namespace: str, target: str) -> Manifest:
        kind, _, name = target.partition("/")
        assert kind in {"deploy", "deployment"}
        return self.deployments[namespace, name]

    def _mounted(self, namespace: str) -> str:
        for (where, _), manifests in self.releases.items():
            for each in manifests:
                if where == namespace and "warmgate.yaml" in each.get("data", {}):
                    return str(each["data"]["warmgate.yaml"])
        # A sidecar's, from the component.
        return (ROOT / "deploy/kubernetes/sidecar/warmgate.yaml").read_text()

    # -- what runs here

    async def _gateway(self, words: list[str], more: Mapping[str, str] | None = None) -> None:
        if words[0] == "doctor":
            # It would look for what the cluster has; here only whether it takes these words.
            words = [*words, "--help"]
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            **(more or {}),
        }
        if words[0] != "check":
            environ["GATEWAY_STORE__URL"] = f"redis://127.0.0.1:{self.here.redis_port}/0"
        self.said.append(
            await _ran(*(sys.executable, "-m", "gateway", *words), cwd=self.folder, environ=environ)
        )

    async def _curl(self, words: list[str]) -> None:
        program = shutil.which("curl")
        if program is None:
            missing("curl", "is not installed")
        reached = [self.here.reached(word) for word in words]
        assert reached != words, f"asks nobody who is here: {words}"
        # Fails by its status too.
        self.said.append(
            await _ran(program, "--fail-with-body", "--noproxy", "*", *reached, cwd=self.folder)
        )

    def _redis(self, words: list[str]) -> None:
        with redis.Redis(port=self.here.redis_port) as client:
            self.said.append(str(client.execute_command(*words)))

    async def _docker(self, words: list[str]) -> None:
        """`docker run ... IMAGE VERB ...` with files that are mounted: as the gateway itself."""
        assert words[:2] == ["run", "--rm"]
        mounts = [words[n + 1] for n, word in enumerate(words) if word == "--volume"]
        image = next(n for n, word in enumerate(words) if "/warmgate:" in word)
        places = {place: name for name, place, _ in (mount.split(":") for mount in mounts)}
        await self._gateway([places.get(word, word) for word in words[image + 1 :]])

    def _placed(self, word: str) -> str:
        """A path of the guide: a file of its own, or one of the repository."""
        if word == "." or (self.folder / word).is_file():
            return str(self.folder / word)
        return str(ROOT / word) if word.startswith(("deploy/", "helm/")) else word


def _kube(verb: str) -> list[str]:
    return ["--kube-version", f"{KUBES[-1]}.0"] if verb == "template" else []


def _namespace(words: list[str]) -> tuple[str, list[str]]:
    if "--namespace" not in words:
        return "default", words
    at = words.index("--namespace")
    return words[at + 1], [*words[:at], *words[at + 2 :]]


def _annotations(manifest: Manifest) -> Manifest:
    found: Manifest = manifest["metadata"].get("annotations") or {}
    return found


async def _ran(program: str, *words: str, cwd: Path, environ: dict[str, str] | None = None) -> str:
    """What it printed. Raises AssertionError where it fails."""
    process = await asyncio.create_subprocess_exec(
        program,
        *words,
        cwd=cwd,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(30):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{program} {' '.join(words)}\n{out.decode()}{err.decode()}"
    return out.decode()
