"""Builds deploy/Dockerfile without a container engine: the same steps, in a chroot.

    python -m tests.helpers.image_build OUT [--python PREFIX]

OUT/root gets the file system of the last stage, OUT/image.json what a registry would say of it. The
base image cannot be fetched here: this machine's own Debian stands in, below a layer that is thrown
away, with the Python of PREFIX at /usr/local. Each instruction does what an engine does, or the
build ends: none is skipped. Needs root, and runs in namespaces of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.helpers.dockerfile import ROOT, is_left_out, stages

RUN_S = 100
# What an engine, too, lets through to RUN: how this machine reaches the network.
NETWORK = ("SSL_CERT_FILE", "PIP_CERT", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PIP_INDEX_URL")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class BuildError(Exception):
    """A step failed; says which, and what it printed."""


@dataclass
class Built:
    """A stage: where its files are, and what the image would say."""

    root: Path
    config: dict[str, Any] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)


def build(out: Path, prefix: Path, build_args: dict[str, str]) -> None:
    """Runs every stage; call it in a mount namespace of its own."""
    scratch = out / "scratch"
    scratch.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=3g,mode=0755", "tmpfs", scratch)
    before, *each = stages()
    defaults = dict(text.split("=", 1) for word, text in before if word == "ARG")
    named: dict[str, Built] = {}
    last: Built | None = None
    for number, stage in enumerate(each):
        ((_, text), *steps) = stage
        image, name = re.fullmatch(r"(\S+)(?: AS (\S+))?", text).groups()  # type: ignore[union-attr]
        if image == "scratch":
            root = out / "root"
            root.mkdir()
        else:
            assert image == "${PYTHON_IMAGE}", image
            assert defaults["PYTHON_IMAGE"].startswith("python:"), defaults
            root = stand_in(scratch / f"stage{number}", prefix)
        built = Built(root, {"env": {"PATH": SYSTEM_PATH}, "labels": {}})
        for word, rest in steps:
            step(built, word, rest, named, build_args)
        named[name or str(number)] = last = built
    assert last is not None
    assert last.root == out / "root", "the last stage starts from something that can't be had here"
    (out / "image.json").write_text(json.dumps(last.config, indent=1))


def stand_in(work: Path, prefix: Path) -> Path:
    """A Debian with a Python at /usr/local that can be changed without changing this machine."""
    root = work / "root"
    for name in ("root", "upper", "work", "upper-local", "work-local"):
        (work / name).mkdir(parents=True)
    overlay(root, Path("/"), work / "upper", work / "work")
    overlay(root / "usr/local", prefix, work / "upper-local", work / "work-local")
    for kind, place in (("proc", "proc"), ("tmpfs", "tmp"), ("tmpfs", "root"), ("tmpfs", "run")):
        run("mount", "-t", kind, kind, root / place)
    run("mount", "--rbind", "/dev", root / "dev")
    if not (root / "usr/local/bin/python").exists():
        (root / "usr/local/bin/python").symlink_to("python3")
    # Lists of third parties would be asked as well.
    for source in (root / "etc/apt/sources.list.d").iterdir():
        if source.name != "debian.sources":
            source.unlink()
    run("chroot", root, "/sbin/ldconfig")
    return root


def overlay(place: Path, lower: Path, upper: Path, work: Path) -> None:
    """What is at `lower`, writable: changes go to `upper`."""
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    run("mount", "-t", "overlay", "-o", options, "overlay", place)


def step(
    built: Built, word: str, text: str, named: dict[str, Built], build_args: dict[str, str]
) -> None:
    """One instruction."""
    match word:
        case "ARG":
            name, _, default = text.partition("=")
            built.args[name] = build_args.get(name, default)
        case "ENV":
            built.config["env"] |= pairs(text, built)
        case "LABEL":
            built.config["labels"] |= pairs(text, built)
        case "WORKDIR":
            built.config["workdir"] = text
            (built.root / text.lstrip("/")).mkdir(parents=True, exist_ok=True)
        case "COPY":
            copy(built, text, named)
        case "RUN":
            run_in(built, text)
        case "USER" | "STOPSIGNAL" | "EXPOSE":
            built.config[word.lower()] = text
        case "ENTRYPOINT" | "CMD":
            built.config[word.lower()] = json.loads(text)
        case "HEALTHCHECK":
            options, _, command = text.partition(" CMD ")
            built.config["healthcheck"] = {"options": options.split(), "test": json.loads(command)}
        case _:
            raise BuildError(f"{word} is not known here")


def pairs(text: str, built: Built) -> dict[str, str]:
    """`NAME=value` as ENV and LABEL have them, with ARG and ENV put in."""
    known = built.args | built.config["env"]
    found = {}
    for part in shlex.split(text):
        name, _, value = part.partition("=")
        found[name] = re.sub(r"\$\{?(\w+)\}?", lambda match: known[match[1]], value)
    return found


def copy(built: Built, text: str, named: dict[str, Built]) -> None:
    """From the checkout, as far as the ignore file lets files through, or from another stage."""
    source_stage = ""
    if text.startswith("--from="):
        source_stage, _, text = text.removeprefix("--from=").partition(" ")
    *sources, target = text.split()
    assert not any(source.startswith("--") for source in sources), text
    place = built.root / built.config.get("workdir", "/").lstrip("/") / target.lstrip("/")
    if target.startswith("/"):
        place = built.root / target.lstrip("/")
    for source in sources:
        if source_stage:
            run("cp", "-a", f"{named[source_stage].root}{source}/.", place)
            continue
        files = [ROOT / source] if (ROOT / source).is_file() else sorted((ROOT / source).rglob("*"))
        for file in files:
            inside = file.relative_to(ROOT)
            if not file.is_file() or is_left_out(str(inside)):
                continue
            goal = (
                place / file.name
                if file == ROOT / source
                else place / file.relative_to(ROOT / source)
            )
            goal.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, goal)


def run_in(built: Built, text: str) -> None:
    """A shell in the stage; a cache mount is this machine's own cache of uv."""
    caches = []
    while found := re.match(r"--mount=type=cache,target=(\S+)\s+", text):
        caches.append(built.root / found[1].lstrip("/"))
        text = text[found.end() :]
    assert not text.startswith("--"), text
    for place in caches:
        place.mkdir(parents=True, exist_ok=True)
        run("mount", "--bind", uv_cache(), place)
    environ = {name: os.environ[name] for name in NETWORK if name in os.environ}
    environ |= {"HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"}
    environ |= built.args | built.config["env"]
    command: list[str | Path] = [
        "chroot",
        built.root,
        "/bin/sh",
        "-c",
        f"cd {built.config.get('workdir', '/')} && {text}",
    ]
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=RUN_S, check=False
    )
    for place in caches:
        run("umount", place)
    if done.returncode:
        raise BuildError(f"RUN {text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def uv_cache() -> Path:
    """Where this machine keeps what uv has fetched."""
    given = os.environ.get("UV_CACHE_DIR")
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    cache = Path(given or f"{home}/uv")
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def run(*command: str | Path) -> None:
    """A command of this machine, which must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--build-arg", action="append", default=[])
    told = parser.parse_args()
    try:
        build(told.out, told.python, dict(pair.split("=", 1) for pair in told.build_arg))
    except BuildError as problem:
        sys.exit(str(problem))
