"""What docs/how-to/kubernetes.md shows is what the chart takes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.deploy.helm import CHART, HELM, default_values
from tests.deploy.kubernetes_files import FOLDER
from tests.deploy.manifests import SECRETS, settings_of

if TYPE_CHECKING:
    from tests.deploy.helm import Helm

ROOT = CHART.parents[1]
GUIDE = (ROOT / "docs/how-to/kubernetes.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
VALUES = [block for block in BLOCKS if set(yaml.safe_load(block)) <= set(default_values())]
COMMANDS = re.findall(
    r"^\$ ((?:.*\\\n)*.*)",
    "\n".join(re.findall(r"^```console\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)),
    re.MULTILINE,
)


def test_the_guide_shows_values_and_commands() -> None:
    assert len(VALUES) >= 6
    others = [set(yaml.safe_load(block)) for block in BLOCKS if block not in VALUES]
    # Those of an app's chart, and a kustomization.
    assert others[:2] == [{"dependencies"}, {"warmgate"}]
    (kustomization,) = others[2:]
    assert "components" in kustomization


@pytest.mark.parametrize("block", VALUES, ids=range(len(VALUES)))
def test_the_chart_takes_the_values_of_the_guide(helm: Helm, block: str, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(block, encoding="utf-8")
    done = helm.run("lint", "--strict", CHART, "-f", file)
    assert done.returncode == 0, done.stdout
    manifests = helm.manifests("-f", file)
    settings = settings_of(manifests, tmp_path)
    if "store__url" in block:
        assert settings.store.url == SECRETS["store__url"]


def test_the_guides_commands_of_helm_are_taken(helm: Helm, tmp_path: Path) -> None:
    installed = [c for c in COMMANDS if c.startswith("helm install")]
    assert len(installed) == 2
    for command in installed:
        _, _, name, chart, *arguments = shlex.split(command.replace("\\\n", " "))
        assert ROOT / chart == CHART
        done = helm.run("template", name, CHART, "--kube-version", "1.33.0", *arguments)
        assert done.returncode == 0, done.stderr
    (tmp_path / "my-values.yaml").write_text("{}", encoding="utf-8")
    checks = [c for c in COMMANDS if "my-values.yaml" in c and "gateway check" not in c]
    assert len(checks) == 2
    for command in checks:
        words = shlex.split(command.partition(" > ")[0])[1:]
        there = {"helm/warmgate": str(CHART), "my-values.yaml": str(tmp_path / "my-values.yaml")}
        done = helm.run(*(there.get(word, word) for word in words))
        assert done.returncode == 0, done.stderr


def test_the_adapter_is_told_of_the_metric_that_the_autoscaler_asks_for() -> None:
    metric = default_values()["autoscaling"]["inflightMetric"]
    assert re.findall(r"seriesQuery: '(\w+)\{", GUIDE) == [metric]


def test_the_files_that_the_guide_names_are_there() -> None:
    named = re.findall(r"deploy/kubernetes/[\w./-]+\.yaml", GUIDE)
    assert len(named) == 2
    for path in named:
        assert (ROOT / path).is_file()
    table = GUIDE.split("| File | What it is |")[1].split("\n\n")[0]
    for name in re.findall(r"`([\w./-]+)`", table):
        assert (FOLDER / name).exists() or name == "kubectl"


def test_the_kustomization_of_the_guide_is_the_examples() -> None:
    (shown,) = (yaml.safe_load(b) for b in BLOCKS if "components" in yaml.safe_load(b))
    file = FOLDER / "examples/deployment/kustomization.yaml"
    assert shown == yaml.safe_load(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("config: {cache: {ttl_s: 60}}", "ttl_s: 60.0"),
        ("config: {routes: [{path: /v1/x, upstream: nobody}]}", "`nobody` is not an upstream"),
    ],
)
def test_a_set_of_values_can_be_checked_by_the_gateway_itself(
    helm: Helm, values: str, said: str, tmp_path: Path
) -> None:
    (command,) = (c for c in COMMANDS if "gateway check" in c)
    (tmp_path / "my-values.yaml").write_text(values, encoding="utf-8")
    done = subprocess.run(
        ["/bin/sh", "-c", command.replace("helm/warmgate", str(CHART))],
        cwd=tmp_path,
        env={
            "PATH": f"{HELM.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(helm.home),
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert said in done.stdout + done.stderr
