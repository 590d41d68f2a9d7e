"""The tree of prefixes: found again, bounded, and as large as it says."""

from __future__ import annotations

import tracemalloc

from gateway.core.prefix_tree import DETAIL_BYTES, NODE_BYTES, Held, PrefixTree
from gateway.core.recurrence import Awaited, Recurrence


def test_a_path_is_the_same_nodes_each_time() -> None:
    tree = PrefixTree(1_000_000)
    first = tree.path([1, 2, 3])
    second = tree.path([1, 2, 4])

    assert first[:2] == second[:2]
    assert first[2] is not second[2]
    assert len(tree) == 4
    assert tree.find(4) is second[2]
    assert tree.find(9) is None


def test_what_is_met_again_outlives_what_is_not() -> None:
    tree = PrefixTree(100 * NODE_BYTES)
    kept = tree.path([1])[0]
    for number in range(10, 2000):
        tree.path([number])
        if number % 20 == 0:
            assert tree.path([1])[0] is kept
        assert tree.size_bytes <= 100 * NODE_BYTES
    assert tree.find(11) is None


def test_its_size_is_what_the_process_pays() -> None:
    # The first tree pays for what Python makes once.
    PrefixTree(10_000).path([1])
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tree = PrefixTree(1 << 30)
    nodes = tree.path([(1 << 62) + 7919 * number for number in range(20_000)])
    plain = tracemalloc.get_traced_memory()[0] - before
    for node in nodes:
        detail = tree.details(node)
        detail.held = [Held(300, 0.0, 0.0, 0), Held(3600, 0.0, 0.0, 0)]
        detail.starts = Recurrence()
        detail.started = Awaited(0.0, (detail.starts,))
        detail.awaited = Awaited(0.0, (detail.starts,))
    detailed = tracemalloc.get_traced_memory()[0] - before - plain
    tracemalloc.stop()

    assert plain <= 20_000 * NODE_BYTES * 1.1
    assert detailed <= 20_000 * DETAIL_BYTES * 1.1
    assert tree.size_bytes == 20_000 * (NODE_BYTES + DETAIL_BYTES)
