"""The image's file system, built once for all tests of a run."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.container import why_not
from tests.helpers.dockerfile import ROOT
from tests.helpers.kubelet import Image
from tests.helpers.required import missing

BUILD_S = 110
NO_NETWORK = re.compile("dns error|Temporary failure (in name )?resol|Network is unreachable")
REVISION = "0123456789abcdef"


@dataclass(frozen=True)
class BuiltImage:
    """What came of the Dockerfile's steps."""

    root: Path
    config: dict[str, Any]

    def image(self) -> Image:
        """For a pod."""
        return Image(self.root, self.config)


def interpreter() -> Path:
    """The installation that stands in for the base image's Python: of its version, if there is one."""
    here = Path(sys.base_prefix)
    return next(iter(sorted(here.parent.glob("3.13*"))), here)


def built(shared: Path) -> BuiltImage:
    """It, in `shared`, which all workers of a run see. Skips, or fails in CI, where it can't be."""
    if reason := why_not():
        missing("namespaces", reason)
    if not Path("/etc/debian_version").exists():
        missing("namespaces", "this is no Debian, which the base image is")
    out = shared / "image"
    with (shared / "image.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (out / "image.json").exists():
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            done = subprocess.run(
                [
                    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
                    *("--propagation", "private", "--"),
                    *(sys.executable, "-m", "tests.helpers.image_build", str(out)),
                    *("--python", str(interpreter()), "--build-arg", f"REVISION={REVISION}"),
                ],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=BUILD_S,
                check=False,
            )
            if done.returncode and NO_NETWORK.search(done.stderr):
                missing("network", f"the image's packages can't be fetched: {done.stderr[-300:]}")
            assert done.returncode == 0, done.stderr
    return BuiltImage(out / "root", json.loads((out / "image.json").read_text()))
