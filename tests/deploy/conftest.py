"""The real helm, and the chart's sets of values."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import pytest

from tests.deploy.helm import CHART, Helm, install
from tests.deploy.image import BuiltImage, built
from tests.helpers.required import missing

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        missing("helm", f"the pinned binary does not run on {platform.system()}")
    home = tmp_path_factory.mktemp("helm")
    reason = install()
    if reason:
        missing("helm", reason)
    return Helm(home)


@pytest.fixture(scope="session")
def built_image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """What deploy/Dockerfile's own steps give."""
    base = tmp_path_factory.getbasetemp()
    # Workers have folders of their own below the one of the run.
    return built(base.parent if "popen" in base.name else base)


VALUES = sorted((CHART / "ci").glob("*-values.yaml"))


@pytest.fixture(params=VALUES, ids=lambda path: path.name.removesuffix("-values.yaml"))
def values(request: pytest.FixtureRequest) -> Path:
    """Each of the chart's sets of values."""
    file: Path = request.param
    return file
