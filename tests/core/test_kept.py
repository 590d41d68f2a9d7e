from __future__ import annotations

from gateway.core.kept import ENTRY_BYTES, MOST_MACHINES, PREFIX_BYTES, Entry, Kept


def test_a_prefix_that_everybody_shares_is_kept_on_so_many_machines() -> None:
    kept = Kept(1 << 20)
    for number in range(1000):
        kept.write(7, Entry(f"user-{number}#0", 300.0, float(number), number + 0.5))
    assert len(kept.find(7)) == MOST_MACHINES
    assert kept.size_bytes == PREFIX_BYTES + MOST_MACHINES * ENTRY_BYTES


def test_the_machine_that_used_a_prefix_longest_ago_is_forgotten() -> None:
    kept = Kept(1 << 20)
    for number in range(MOST_MACHINES):
        kept.write(7, Entry(f"m{number}", 300.0, float(number), number + 0.5))
    first = kept.on(7, "m0")
    assert first is not None
    first.used_at = 100.0
    kept.write(7, Entry("new", 300.0, 101.0, 101.5))
    assert kept.on(7, "m0") is first
    assert kept.on(7, "m1") is None
    assert kept.on(7, "new") is not None
