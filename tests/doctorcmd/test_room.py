"""The doctor does not take the memory that the gateway needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.cli import main
from gateway.doctorcmd import room
from gateway.doctorcmd.room import NEEDED_BYTES, room_bytes, stand_back

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

MIB = 1 << 20


def container(root: Path, limit: str, used: int, dropped: int = 0) -> Path:
    folder = root / "sys/fs/cgroup"
    folder.mkdir(parents=True)
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("0::/\n")
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {dropped}\nodd\n")
    return root


def test_what_is_left_counts_files_that_can_be_dropped(tmp_path: Path) -> None:
    root = container(tmp_path, str(256 * MIB), 200 * MIB, 50 * MIB)

    assert room_bytes(root) == 106 * MIB


def test_the_group_that_has_least_left_counts_wherever_it_is(tmp_path: Path) -> None:
    root = container(tmp_path / "v2", "max", 900 * MIB)
    (root / "proc/self/cgroup").write_text("0::/system.slice/warmgate.service\n")
    group = root / "sys/fs/cgroup/system.slice/warmgate.service"
    group.mkdir(parents=True)
    (group / "memory.max").write_text(str(128 * MIB))
    (group / "memory.current").write_text(str(100 * MIB))
    first = tmp_path / "v1"
    (first / "proc/self").mkdir(parents=True)
    (first / "proc/self/cgroup").write_text("4:memory:/docker/0123\n0::/\n")
    folder = first / "sys/fs/cgroup/memory"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(str(64 * MIB))
    (folder / "memory.usage_in_bytes").write_text(str(50 * MIB))
    (folder / "memory.stat").write_text(f"inactive_file 1\ntotal_inactive_file {6 * MIB}\n")

    assert room_bytes(root) == 28 * MIB
    assert room_bytes(first) == 20 * MIB


def test_without_a_limit_nothing_is_said(tmp_path: Path) -> None:
    assert room_bytes(container(tmp_path / "a", "max", MIB)) is None
    assert room_bytes(tmp_path / "none") is None


def test_it_offers_itself_to_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    stand_back(tmp_path)
    stand_back(tmp_path / "none")

    assert (tmp_path / "proc/self/oom_score_adj").read_text() == "1000"


def test_where_there_is_no_room_it_leaves_unless_one_insists(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(room, "room_bytes", lambda: NEEDED_BYTES - 1)
    monkeypatch.setenv("GATEWAY_STORE__URL", "memory://")
    alone = ["doctor"]
    for group in ("host", "gateway", "upstreams", "otlp"):
        alone += ["--skip", group]

    assert main(alone) == 2
    left = capsys.readouterr()
    assert main([*alone, "--anyway"]) == 0

    assert left.out == ""
    assert "63 MiB" in left.err
    assert "--anyway" in left.err
