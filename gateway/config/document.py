"""Reading the YAML file: what it says, on which line, and what is wrong with the file itself."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

from gateway.errors import Fault

if TYPE_CHECKING:
    from pathlib import Path

Steps: TypeAlias = tuple[str | int, ...]
"""The way to a setting from the root of the tree: ("routes", 0, "upstream")."""

MAX_FILE_BYTES = 1024 * 1024
_FIX = "mend the YAML there"


@dataclass(frozen=True, slots=True)
class Document:
    """A config file as read. `tree` is None where the file as a whole could not be."""

    tree: dict[Any, Any] | None
    lines: dict[Steps, int] = field(default_factory=dict)
    """The line, from 1, on which each setting stands."""
    faults: tuple[Fault, ...] = ()


class Unreadable(Exception):
    """A file's text could not be had; says why, in an operator's words."""


def read_text(file: Path) -> str:
    """The text of a file of at most 1 MiB, or Unreadable."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise Unreadable(f"can't be read: {reason or 'not a file name'}") from None
    if len(raw) > MAX_FILE_BYTES:
        raise Unreadable("is larger than 1 MiB")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable("is not UTF-8 text") from None


def read(file: Path) -> Document:
    """What the file says. An empty file says nothing, which is fine."""
    try:
        text = read_text(file)
    except Unreadable as unreadable:
        mend = "give the path of a YAML file that this user may read"
        return Document(None, faults=(Fault(str(file), str(unreadable), mend),))
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        tree = None if root is None else loader.construct_document(root)
    except RecursionError:
        return Document(None, faults=(Fault(str(file), "is nested too deeply", _FIX),))
    except (yaml.YAMLError, ValueError) as error:
        # ValueError: a date such as 2026-99-99, which the constructor lets through.
        return Document(None, faults=(_syntax_fault(file, error),))
    finally:
        if loader is not None:
            loader.dispose()
    if root is None or tree is None:
        return Document({})
    if not isinstance(tree, dict):
        return Document(
            None,
            faults=(
                Fault(
                    f"{file}:{root.start_mark.line + 1}",
                    "is not a mapping of settings at its top level",
                    "begin with a section, such as `server:`",
                ),
            ),
        )
    lines: dict[Steps, int] = {}
    try:
        faults = _walk(file, root, (), lines, frozenset())
    except _Endless as endless:
        return Document(
            None, faults=(Fault(f"{file}:{endless.line}", "contains itself", "remove the alias"),)
        )
    return Document(tree, lines, tuple(faults))


class _Endless(Exception):
    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


def _syntax_fault(file: Path, error: Exception) -> Fault:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = f"{file}:{mark.line + 1}" if mark else str(file)
    problem = getattr(error, "problem", None) or "something in it can't be read"
    # The parser quotes what it found, and that may be a secret which begins with * or !.
    problem = re.sub(r"'(?!<)[^']{2,}'", "something there", problem)
    return Fault(where, f"is not valid YAML: {problem}", _FIX)


def _walk(
    file: Path, node: yaml.Node, path: Steps, lines: dict[Steps, int], within: frozenset[int]
) -> list[Fault]:
    """Note the line of every setting; faults are members named twice, of which YAML keeps one."""
    if id(node) in within:
        raise _Endless(node.start_mark.line + 1)
    faults: list[Fault] = []
    children: list[tuple[str | int, int, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            line = key.start_mark.line + 1
            if key.value in first:
                faults.append(
                    Fault(
                        f"{file}:{line}",
                        f"`{spell((*path, key.value))}` stands here again, "
                        f"after line {first[key.value]}",
                        "keep one of the two",
                    )
                )
            first.setdefault(key.value, line)
            children.append((key.value, line, value))
    elif isinstance(node, yaml.SequenceNode):
        children = [(i, v.start_mark.line + 1, v) for i, v in enumerate(node.value)]
    for step, line, child in children:
        lines[*path, step] = line
        faults += _walk(file, child, (*path, step), lines, within | {id(node)})
    return faults


def spell(path: Steps) -> str:
    """`routes[0].upstream`, as an operator writes it."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
