"""The guides for operators: each block of them is a file that holds, or a command that is carried out."""

from __future__ import annotations

import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import redis
import yaml

from gateway.config import Config, load
from gateway.lab.engine_server import EngineServer
from tests.deploy.helm import CHART, Helm, default_values
from tests.deploy.manifests import settings_of
from tests.deploy.newcomer import OF_OPERATORS, ROOT, Block, Here, Newcomer, blocks
from tests.deploy.schemas import KUBES, complaints
from tests.helpers.gateway_here import gateway_here
from tests.helpers.redis_servers import RedisServer, binary
from tests.helpers.required import missing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.deploy.manifests import Manifest

YAML = [
    (guide, number, block)
    for guide in OF_OPERATORS
    for number, block in enumerate(blocks(guide))
    if block.language == "yaml"
]
EXAMPLE = ROOT / "deploy/kubernetes/examples/deployment"
# What is there before somebody follows a guide: an app, vLLM, the gateway.
APP = "chat"
# What a guide says that one sees.
PRINTED = {
    "how-to/vllm-deployment.md": ("x-gateway-backend", "x-gateway-affinity", '"state":"ready"'),
    "how-to/redis-sizing.md": ("evicted_keys", "used_memory", "maxmemory"),
    "how-to/migrate.md": ("equal",),
    "how-to/upgrading.md": ("gateway_build_info", "ready"),
}


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    executable = binary("redis") or binary("valkey")
    if executable is None:
        missing("redis", "neither Redis nor Valkey is here")
    server = RedisServer(executable)
    server.start()
    yield server
    server.close()


def is_of(block: Block) -> str:
    """What a block of YAML is: `kustomization`, `patch`, `manifests`, `values` or `config`."""
    first = block.documents[0]
    if first.get("kind") == "Kustomization":
        return "kustomization"
    if "apiVersion" in first:
        containers = first["spec"].get("template", {}).get("spec", {}).get("containers", ())
        return "patch" if any("image" not in each for each in containers) else "manifests"
    if set(first) == {"spec"}:
        return "patch"
    if set(first) <= set(default_values()):
        return "values"
    assert set(first) <= set(Config.model_fields), "a block that is nothing known"
    return "config"


def of_kind(kind: str) -> pytest.MarkDecorator:
    chosen = [(g, b) for g, _, b in YAML if is_of(b) == kind]
    names = [f"{g.rpartition('/')[2].removesuffix('.md')}-{n}" for n, (g, _) in enumerate(chosen)]
    return pytest.mark.parametrize(("guide", "block"), chosen, ids=names)


def test_every_language_of_a_block_is_looked_at() -> None:
    languages = {block.language for guide in OF_OPERATORS for block in blocks(guide)}
    assert languages == {"yaml", "console", "python", "conf"}
    assert {is_of(block) for _, _, block in YAML} == {
        *("kustomization", "patch", "manifests", "values", "config")
    }


@of_kind("config")
def test_the_gateway_takes_the_settings(guide: str, block: Block, tmp_path: Path) -> None:
    file = tmp_path / "warmgate.yaml"
    file.write_text(block.text, encoding="utf-8")
    assert load(file, {}), guide


@of_kind("values")
def test_the_chart_takes_the_values(helm: Helm, guide: str, block: Block, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(block.text, encoding="utf-8")
    done = helm.run("lint", "--strict", CHART, "--values", file)
    assert done.returncode == 0, f"{guide}: {done.stdout}"
    assert settings_of(helm.manifests("--values", file), tmp_path), guide


@of_kind("manifests")
@pytest.mark.parametrize("kube", KUBES)
def test_kubernetes_takes_the_manifests(guide: str, block: Block, kube: str) -> None:
    for document in block.documents:
        assert complaints(document, kube) == [], guide


def test_the_sidecars_files_are_those_of_the_example() -> None:
    files = {b.file_name: b.documents[0] for b in blocks("how-to/sidecar.md") if b.file_name}
    shown = files["kustomization.yaml"]
    example = yaml.safe_load((EXAMPLE / "kustomization.yaml").read_text(encoding="utf-8"))
    assert shown == {**example, "resources": ["app.yaml"], "components": ["sidecar"]}
    environment = yaml.safe_load((EXAMPLE / "environment.yaml").read_text(encoding="utf-8"))
    assert files["environment.yaml"] == environment


def app() -> Manifest:
    """Somebody's Deployment, whose container is called as the patch wants it."""
    manifest: Manifest = yaml.safe_load((EXAMPLE / "chat.yaml").read_text(encoding="utf-8"))
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    container["name"] = "app"
    return manifest


@asynccontextmanager
async def newcomer(folder: Path, helm: Helm, server: RedisServer) -> AsyncIterator[Newcomer]:
    """In a folder with the repository's `sidecar` and an app; before a gateway and an engine."""
    shutil.copytree(ROOT / "deploy/kubernetes/sidecar", folder / "sidecar")
    shutil.copy(EXAMPLE / "chat.yaml", folder / "app.yaml")
    for name, temperature in (("old.json", "0"), ("new.json", "0.0")):
        (folder / name).write_text(
            f'{{"model": "m", "messages": [], "temperature": {temperature}}}'
        )
    (vllm,) = (b for b in blocks("how-to/vllm-deployment.md") if b.file_name == "vllm.yaml")
    there = {("default", APP): app(), ("models", "vllm"): vllm.documents[0]}
    async with EngineServer(
        name="e", model="Qwen/Qwen3-8B", prefill_rate=1e6, decode_s=0.0
    ) as engine:
        pool = {
            "engine": "vllm",
            "backends": [{"name": "10.0.0.1:8000", "url": engine.v1_url}],
            "routing": {"warm_tokens": 0},
        }
        async with gateway_here(
            "http://127.0.0.1:9",
            upstreams={"vllm": pool},
            routes=[{"model": "Qwen/*", "upstream": "vllm"}],
        ) as gateway:
            assert gateway.admin_url
            admin = gateway.admin_url.removesuffix("/admin/").removesuffix("/")
            here = Here(gateway.api_url, gateway.probe_url, admin, server.port)
            yield Newcomer(folder, helm, here, there)


@pytest.mark.parametrize(
    "guide", [g for g in OF_OPERATORS if any(b.language == "console" for b in blocks(g))]
)
async def test_whoever_types_what_the_guide_says_gets_to_its_end(
    guide: str, helm: Helm, redis_server: RedisServer, tmp_path: Path
) -> None:
    found = blocks(guide)
    async with newcomer(tmp_path, helm, redis_server) as somebody:
        for block in found:
            # (A later file of the same name takes the place of the earlier one, as for a reader.)
            if block.file_name:
                (tmp_path / block.file_name).write_text(block.text, encoding="utf-8")
            if block.language == "console":
                for command in block.commands:
                    await somebody.type(command)
    printed = "".join(somebody.said)
    for word in PRINTED.get(guide, ()):
        assert word in printed


WRONG = (
    "helm install warmgate helm/warmgate --set image.repositry=somewhere",
    "helm install warmgate helm/warmgate --values nowhere.yaml",
    "helm install w helm/warmgate --set secrets.store__url.existingSecret=x,secrets.store__url.key=y",
    "helm rollback warmgate",
    "kubectl apply -k nowhere",
    "kubectl rollout status deployment/nobody",
    "kubectl exec deploy/chat -c nobody -- gateway check",
    "kubectl create secret generic name --from-litteral=a=b",
    "kubectl drain node",
    "gateway check --config nowhere.yaml",
    "gateway chek",
    "gateway key old.json other.json",
    "curl -s http://127.0.0.1:9181/admin/nothing",
    "curl -s http://example.com/",
    "curl -s http://127.0.0.1:9180/readyz?verbose",
    "redis-cli CONFIG SET maxmemroy 1",
    "gateway cache stats | head",
    "minikube start",
)


async def test_a_guide_that_is_wrong_is_found(
    helm: Helm, redis_server: RedisServer, tmp_path: Path
) -> None:
    (tmp_path / "other.json").write_text('{"model": "m", "messages": [], "temperature": 1}')
    taken: list[str] = []
    async with newcomer(tmp_path, helm, redis_server) as somebody:
        for command in WRONG:
            try:
                await somebody.type(command)
            except (AssertionError, LookupError, ValueError, OSError, redis.ResponseError):
                continue
            taken.append(command)
    assert taken == []


def test_redis_takes_its_file() -> None:
    executable = binary("redis") or binary("valkey")
    if executable is None:
        missing("redis", "neither Redis nor Valkey is here")
    (block,) = (b for b in blocks("how-to/redis-sizing.md") if b.language == "conf")
    lines = [line.split() for line in block.text.splitlines() if not line.startswith("#")]
    options = [word for name, value in lines for word in (f"--{name}", value.strip('"'))]
    server = RedisServer(executable, options=tuple(options))
    server.start()
    server.close()
