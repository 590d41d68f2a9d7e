"""deploy/Dockerfile, read: its stages, and which files of the checkout reach its build."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/Dockerfile"

Stage = list[tuple[str, str]]
"""(instruction, its text), in the order of the file."""


def stages() -> list[Stage]:
    """What stands before the first stage, and each stage, its FROM included."""
    text = DOCKERFILE.read_text(encoding="utf-8")
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found: list[Stage] = [[]]
    for line in re.sub(r"\\\n\s*", " ", kept).splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            if word == "FROM":
                found.append([])
            found[-1].append((word, rest.strip()))
    return found


def texts(stage: Stage, word: str) -> list[str]:
    """The text of each instruction of that name."""
    return [text for found, text in stage if found == word]


def variables(stage: Stage) -> dict[str, str]:
    """What its ENV instructions set."""
    pairs = " ".join(texts(stage, "ENV")).split()
    return dict(pair.split("=", 1) for pair in pairs)


def is_left_out(path: str) -> bool:
    """Whether the ignore file keeps a file out of the build; the last pattern that fits decides."""
    ignored = False
    lines = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    for line in lines:
        pattern = line.removeprefix("!")
        if not pattern or pattern.startswith("#"):
            continue
        forms = [pattern, f"{pattern}/*"]
        if pattern.startswith("**/"):
            forms += [f"*/{form[3:]}" for form in forms]
        if any(fnmatch(path, form) for form in forms):
            ignored = not line.startswith("!")
    return ignored
