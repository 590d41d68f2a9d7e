"""The house of the design, held: who may import whom, what pure code may touch, how long a file is."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "gateway").rglob("*.py"))

MAX_LINES = 400
MAX_DOCSTRING_LINES = 15

PURE = {"core", "wire", "providers"}
# No clock, randomness, I/O, logging or threads in here: what isn't listed can't be imported.
PURE_MAY_USE = {
    "__future__",
    "array",
    "blake3",
    "collections",
    "copy",
    "dataclasses",
    "enum",
    "bisect",
    "fnmatch",
    "functools",
    "heapq",
    "itertools",
    "json",
    "math",
    "operator",
    "orjson",
    "re",
    "string",
    "struct",
    "types",
    "typing",
    "xxhash",
}

BOTTOM = {"core", "providers"}
# Leaves that every edge may use: what is configured, what can fail, who owns a task or memory.
LEAVES = {"config", "errors", "background", "budget"}
EDGES = {"wire", "store", "upstream", "telemetry"}

# A unit is a package or a module right under `gateway`; it may always import itself.
MAY_IMPORT: dict[str, set[str]] = {
    "core": BOTTOM,
    "providers": BOTTOM,
    "wire": BOTTOM,
    "errors": set(),
    "background": set(),
    "budget": set(),
    "config": {"errors"},
    "store": BOTTOM | LEAVES,
    "telemetry": BOTTOM | LEAVES,
    "upstream": BOTTOM | LEAVES,
    # The parts that speak HTTP. They decide nothing, so the proxy uses them and not they it.
    "server": BOTTOM | LEAVES | EDGES,
    # `serve` never imports the lab. What it proves with is the code that decides and translates.
    "lab": BOTTOM | {"wire"},
}
# Where decisions meet I/O: `proxy` and the modules that it was split into.
CONDUCTORS = {
    "acceptance",
    "accounts",
    "answering",
    "asking",
    "batches",
    "cache",
    "coalescing",
    "door",
    "exchange",
    "explained",
    "explaining",
    "flight",
    "flights",
    "foreseeing",
    "hot",
    "identified",
    "journey",
    "keeping",
    "lasting",
    "learned",
    "overview",
    "peers",
    "placements",
    "planned",
    "planning",
    "pooled",
    "prefill",
    "proving",
    "proxy",
    "randomness",
    "reachable",
    "recognition",
    "refreshing",
    "reloading",
    "routed",
    "router",
    "routing",
    "seat",
    "sending",
    "serving",
    "statements",
    "telling",
    "traced",
    "turn",
    "warm",
    "warming",
    "watching",
    "welcome",
}
for conductor in CONDUCTORS:
    MAY_IMPORT[conductor] = BOTTOM | LEAVES | EDGES | CONDUCTORS | {"server"}
MAY_IMPORT["lint"] = BOTTOM | LEAVES | {"wire"}
MAY_IMPORT["keycmd"] = BOTTOM | LEAVES | {"wire", "upstream"}
MAY_IMPORT["cachecmd"] = BOTTOM | LEAVES | {"store", "telemetry"}
MAY_IMPORT["savingscmd"] = BOTTOM | LEAVES | {"cachecmd", "store", "telemetry"}
MAY_IMPORT["doctorcmd"] = BOTTOM | LEAVES | {"cachecmd", "store", "telemetry", "upstream"}
MAY_IMPORT["simulatecmd"] = {"lab"}
MAY_IMPORT["benchcmd"] = {"core"}
MAY_IMPORT["simulate_arguments"] = set()
MAY_IMPORT["replaycmd"] = {"core", "lab", "providers", "wire"}
MAY_IMPORT["replay_arguments"] = set()
MAY_IMPORT["assembly"] = BOTTOM | LEAVES | EDGES | CONDUCTORS | {"server"}
MAY_IMPORT["current"] = {"assembly"} | LEAVES | CONDUCTORS | {"upstream"}
MAY_IMPORT["app"] = {"assembly", "current"} | BOTTOM | LEAVES | EDGES | CONDUCTORS | {"server"}
MAY_IMPORT["process"] = {"app", "telemetry"} | LEAVES
MAY_IMPORT["cli"] = set(MAY_IMPORT) | {"lab"}
MAY_IMPORT["__main__"] = {"cli"}
MAY_IMPORT["__init__"] = set()

# (who, whom): why it may.
EXCEPTIONS = {
    (
        "gateway.upstream.client",
        "gateway.telemetry.spans",
    ): "names the type of the span it is given",
    ("gateway.lab.demo", "gateway.app"): "the demo is a gateway in front of the stub",
    ("gateway.lab.demo", "gateway.config"): "the demo is a gateway in front of the stub",
    ("gateway.lab.demo", "gateway.telemetry.logs"): "the demo is a gateway in front of the stub",
}


class Import(NamedTuple):
    """One import of a file: the dotted name, and whether it runs when the file is imported."""

    name: str
    line: int
    at_once: bool


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def unit(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@cache
def modules() -> frozenset[str]:
    return frozenset(map(module_name, SOURCES))


@cache
def imports(path: Path) -> tuple[Import, ...]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    # What is inside functions runs later; what is under TYPE_CHECKING never does. Both count as
    # knowledge of the other module, which is what layers are about.
    later = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        for inner in ast.walk(node)
    }
    found: list[Import] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the whole name of the module"
            module = node.module or ""
            inner = [f"{module}.{alias.name}" for alias in node.names]
            names = [name if name in modules() else module for name in inner]
        else:
            continue
        found.extend(Import(n, node.lineno, id(node) not in later) for n in dict.fromkeys(names))
    return tuple(found)


def ours(path: Path) -> list[Import]:
    # `from gateway import __version__` asks for nothing but the version.
    return [i for i in imports(path) if i.name.startswith("gateway.")]


def test_the_sources_are_found() -> None:
    assert {"gateway.core.identity", "gateway.wire.base", "gateway.providers.base"} <= modules()


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_module_imports_only_what_lies_below_it(path: Path) -> None:
    who = module_name(path)
    allowed = MAY_IMPORT.get(unit(who))
    assert allowed is not None, f"{who}: give it its place in MAY_IMPORT"

    faults = [
        f"{path}:{each.line}: {who} imports {each.name}"
        for each in ours(path)
        if unit(each.name) not in allowed | {unit(who)} and (who, each.name) not in EXCEPTIONS
    ]

    assert not faults, "\n".join(faults)


def test_every_exception_is_still_needed_and_has_its_reason() -> None:
    used = {(module_name(path), each.name) for path in SOURCES for each in ours(path)}

    assert set(EXCEPTIONS) <= used
    assert all(EXCEPTIONS.values())


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if unit(module_name(p)) in PURE], ids=module_name
)
def test_pure_code_can_reach_no_io_clock_or_randomness(path: Path) -> None:
    faults = [
        f"{path}:{each.line}: {each.name}"
        for each in imports(path)
        if each.name.partition(".")[0] not in PURE_MAY_USE | {"gateway"}
    ]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    # What hash() says changes with every process, so it may only serve Python's own sets.
    hashing = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == "__hash__"
        for inner in ast.walk(node)
    }
    called = [
        f"{path}:{node.lineno}: {node.func.id}()"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"open", "print", "input", "__import__", "exec", "eval", "hash", "id"}
        and id(node) not in hashing
    ]

    assert not faults + called


def test_serving_never_loads_the_lab() -> None:
    by_name = {module_name(path): path for path in SOURCES}
    reached: set[str] = set()
    waiting = ["gateway.process"]
    while waiting:
        module = waiting.pop()
        if module in reached or module not in by_name:
            continue
        reached.add(module)
        waiting.extend(each.name for each in ours(by_name[module]))

    assert not [module for module in reached if unit(module) == "lab"]


def test_the_units_that_run_on_import_form_no_circle() -> None:
    """Packages may name each other's types; what runs on import must have an order."""
    edges: dict[str, set[str]] = {}
    for path in SOURCES:
        here = unit(module_name(path))
        edges.setdefault(here, set()).update(
            unit(each.name) for each in ours(path) if each.at_once and unit(each.name) != here
        )
    left = dict(edges)
    while ready := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in ready:
            del left[name]

    assert not left


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_file_is_short_enough_to_read_in_one_go(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name == "__init__.py"], ids=module_name)
def test_a_package_names_its_nouns_in_a_few_lines(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))

    assert docstring
    assert len(docstring.splitlines()) <= MAX_DOCSTRING_LINES
    # The top package holds the version and nothing else; every other one names its nouns.
    assert path.parent.name == "gateway" or any(mark in docstring for mark in ("*", "`"))


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_module_is_named_by_what_it_holds(path: Path) -> None:
    assert not {"utils", "util", "helpers", "helper", "manager", "common", "misc"} & set(
        module_name(path).split(".")
    )


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_importing_the_package_has_no_side_effect() -> None:
    tree = ast.parse((ROOT / "gateway" / "__init__.py").read_text(encoding="utf-8"))

    assert {ast.Expr, ast.Assign} == {type(node) for node in tree.body}
