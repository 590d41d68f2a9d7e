"""Limits of the container, from files as the kernel writes them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from gateway.config import Config
from gateway.doctorcmd import host as host_module
from gateway.doctorcmd.finding import Finding, Verdict
from gateway.doctorcmd.host import host, memory
from gateway.doctorcmd.local import in_sqlite

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
SIDECAR = {
    "store": {"url": "memory://", "memory_bytes": 8 * MIB},
    "cache": {"door_entries": 1000},
    "prompt_cache": {"tree_bytes": 8 * MIB},
    "admin": {"recent_requests": 1000},
    "server": {"memory_budget_bytes": 8 * MIB},
}


def container(root: Path, **files: str) -> Path:
    folder = root / "sys/fs/cgroup"
    folder.mkdir(parents=True)
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("0::/\n")
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text)
    return root


def seen(root: Path, config: Config | None = None) -> dict[str, Finding]:
    return {each.check: each for each in host(config, root)}


def test_kills_and_throttling_are_told(tmp_path: Path) -> None:
    root = container(
        tmp_path,
        memory_events="low 0\noom 3\noom_kill 2\n",
        cpu_stat="usage_usec 9\nnr_periods 100\nnr_throttled 40\n",
        memory_max=str(256 * MIB),
    )

    found = seen(root, Config.model_validate(SIDECAR))

    assert found["host.oom"].facts == {"oom_kills": 2}
    assert found["host.oom"].verdict is Verdict.MEND
    assert found["host.cpu"].verdict is Verdict.LOOK
    assert found["host.memory"].verdict is Verdict.OK


@pytest.mark.parametrize(
    ("cgroup", "memory", "cpu"),
    [
        ("0::/a.slice/b", "a.slice/b/memory.events", "a.slice/cpu.stat"),
        ("5:cpu,cpuacct:/x\n4:memory:/x\n0::/", "memory/memory.oom_control", "cpu/cpu.stat"),
    ],
)
def test_kills_and_throttling_are_told_of_the_groups_it_is_in(
    tmp_path: Path, cgroup: str, memory: str, cpu: str
) -> None:
    root = container(tmp_path)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in ((memory, "oom_kill 1\n"), (cpu, "nr_periods 10\nnr_throttled 4\n")):
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    found = seen(root)

    assert found["host.oom"].facts == {"oom_kills": 1}
    assert found["host.cpu"].facts == {"periods": 10, "throttled": 4}


def test_a_quiet_container_is_fine_and_none_says_nothing(tmp_path: Path) -> None:
    quiet = container(
        tmp_path / "quiet", memory_events="oom_kill 0\n", cpu_stat="nr_periods 9\nnr_throttled 0\n"
    )

    assert {each.verdict for each in seen(quiet).values()} == {Verdict.OK}
    assert set(seen(tmp_path / "none")) == {"host.files"}


def test_files_that_the_kernel_never_wrote_so_are_survived(tmp_path: Path) -> None:
    odd = container(tmp_path, memory_events="oom_kill many\n\n\0", cpu_stat="nr_periods\n")

    assert set(seen(odd)) == {"host.files"}


@pytest.mark.parametrize(
    ("limit_mib", "expected"), [(None, "ok"), (150, "ok"), (118, "look"), (90, "mend")]
)
def test_budgets_are_held_against_the_limit(limit_mib: int | None, expected: str) -> None:
    limit = None if limit_mib is None else limit_mib * MIB
    found = memory(Config.model_validate(SIDECAR), limit)

    assert found.verdict.value == expected
    assert found.facts["at_worst_bytes"] == sum(found.facts["parts_bytes"].values())


@pytest.mark.parametrize(
    ("tree", "limit_mib"),
    [
        ({"store": {"url": "memory://"}}, 1024),
        (
            {
                "store": {"url": "memory://", "memory_bytes": 16 * MIB},
                "cache": {"door_entries": 5000},
                "prompt_cache": {"tree_bytes": 8 * MIB},
                "admin": {"recent_requests": 1000},
            },
            256,
        ),
    ],
)
def test_what_the_chart_sets_fits_the_limits_that_it_sets(
    tree: dict[str, object], limit_mib: int
) -> None:
    assert memory(Config.model_validate(tree), limit_mib * MIB).verdict is Verdict.OK


def test_few_open_files_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "LEAST_FILES", 1 << 40)

    found = seen(tmp_path)["host.files"]

    assert found.facts["hard"] is None or found.verdict is Verdict.LOOK


def test_a_folder_that_cannot_be_written_is_to_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/not/there/yet/cache.sqlite"
    assert in_sqlite(url, MIB).verdict is Verdict.OK
    assert not (tmp_path / "not").exists()

    # (Root may write anywhere.)
    monkeypatch.setattr(os, "access", lambda path, _: str(path) != str(tmp_path))
    refused = in_sqlite(url, MIB)

    assert refused.verdict is Verdict.MEND
    assert str(tmp_path) in refused.said


def test_a_file_that_may_outgrow_its_disk_is_to_look_at(tmp_path: Path) -> None:
    assert in_sqlite(f"sqlite:///{tmp_path}/x.sqlite", 1 << 60).verdict is Verdict.LOOK
