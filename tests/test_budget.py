"""What requests may hold together: counted, shared, given back once; how much a container allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.budget import Budget, Share, container_bytes, default_limit

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


def test_what_does_not_fit_is_refused_and_not_counted() -> None:
    budget = Budget(100)
    assert budget.take(60)
    assert not budget.take(41)
    assert budget.take(40)
    assert (budget.used_bytes, budget.refusals) == (100, 1)
    budget.give(60)
    assert budget.has_room(60)
    assert not budget.has_room(61)


def test_what_can_be_done_without_leaves_a_quarter_to_others() -> None:
    budget = Budget(100)
    recording = budget.share(optional=True)
    assert recording.grow(75)
    assert not recording.grow(1)
    assert budget.share().grow(25)


def test_a_share_is_given_back_as_a_whole_and_once() -> None:
    budget = Budget(100)
    with budget.share() as share:
        assert share.grow(30)
        assert share.grow(30)
        assert not share.grow(41)
        assert (share.held_bytes, budget.used_bytes) == (60, 60)
        share.release()
        assert not share.grow(1), "nobody would give it back"
    share.release()
    assert (share.held_bytes, budget.used_bytes) == (0, 0)


def test_a_share_that_shrinks_gives_back_what_is_beyond() -> None:
    budget = Budget(100)
    with budget.share() as share:
        assert share.grow(80)
        share.shrink_to(30)
        assert (share.held_bytes, budget.used_bytes) == (30, 30)
        share.shrink_to(50)
        assert (share.held_bytes, budget.used_bytes) == (30, 30)
    assert budget.used_bytes == 0


def test_a_share_is_given_back_when_its_request_fails() -> None:
    budget = Budget(100)

    def fail() -> None:
        with budget.share() as share:
            share.grow(30)
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - ours, from two lines above
        fail()
    assert budget.used_bytes == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 60), st.booleans()), min_size=1, max_size=60
    )
)
def test_however_shares_come_and_go_the_sum_is_right_and_never_over(
    steps: list[tuple[int, int, bool]],
) -> None:
    budget = Budget(100)
    shares: list[Share] = [budget.share(optional=number % 2 == 0) for number in range(5)]
    for number, size, release in steps:
        if release:
            shares[number].release()
            shares[number] = budget.share(optional=number % 2 == 0)
        else:
            shares[number].grow(size)
        assert budget.used_bytes == sum(share.held_bytes for share in shares) <= 100
    for share in shares:
        share.release()
    assert budget.used_bytes == 0


def test_it_says_how_full_it_is() -> None:
    budget = Budget(100)
    share = budget.share()
    share.grow(7)
    share.grow(700)
    assert repr(share) == "<Share 7 B of <Budget 7 of 100 B, 1 refusals>>"


@pytest.mark.parametrize(
    ("container", "budget"),
    [
        (None, 512 * MIB),
        (1024 * MIB, 256 * MIB),
        (512 * MIB, 128 * MIB),
        (256 * MIB, 48 * MIB),
        (128 * MIB, 16 * MIB),
    ],
)
def test_the_default_is_a_quarter_of_the_container_and_less_of_a_small_one(
    container: int | None, budget: int
) -> None:
    assert default_limit(container) == budget


def layout(root: Path, cgroup: str, **limits: str) -> Path:
    """A file system in which `proc/self/cgroup` says so and the files hold the limits."""
    for name, text in {"proc/self/cgroup": cgroup, **limits}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


def test_version_2_in_a_container_of_its_own(tmp_path: Path) -> None:
    root = layout(tmp_path, "0::/", **{"sys/fs/cgroup/memory.max": "268435456"})
    assert container_bytes(root) == 256 * MIB


def test_the_smallest_limit_on_the_way_up_holds(tmp_path: Path) -> None:
    limits = {
        "sys/fs/cgroup/a/b/memory.max": "max",
        "sys/fs/cgroup/a/memory.max": "1048576",
        "sys/fs/cgroup/memory.max": "9999999",
    }
    assert container_bytes(layout(tmp_path, "0::/a/b", **limits)) == MIB


def test_version_1_and_a_path_of_the_host_that_is_not_visible_here(tmp_path: Path) -> None:
    cgroup = "5:cpu,cpuacct:/x\n4:memory:/docker/0123\n0::/"
    limits = {"sys/fs/cgroup/memory/memory.limit_in_bytes": "2097152"}
    assert container_bytes(layout(tmp_path, cgroup, **limits)) == 2 * MIB


@pytest.mark.parametrize("text", ["max", "9223372036854771712", "what?"])
def test_no_limit_is_none(tmp_path: Path, text: str) -> None:
    root = layout(tmp_path, "0::/", **{"sys/fs/cgroup/memory.max": text})
    assert container_bytes(root) is None


def test_where_there_are_no_cgroups_nothing_is_known(tmp_path: Path) -> None:
    assert container_bytes(tmp_path) is None
