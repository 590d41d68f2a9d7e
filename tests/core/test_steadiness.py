"""Conversations as lists of blocks: what is sent of them stays, or it is noticed where it didn't."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.prefix import joined
from gateway.core.steadiness import BUDGET_BYTES, Change, Compared, Drift, Shown, Steadiness

OWNER = b"owner"


def chained(blocks: list[int]) -> list[int]:
    fingerprints, fingerprint = [], 0
    for block in blocks:
        fingerprint = joined(fingerprint, block)
        fingerprints.append(fingerprint)
    return fingerprints


def shown(client: list[int], sent: list[int] | None = None, change: Change = Change.MARK) -> Shown:
    sent = client if sent is None else sent
    return Shown(chained(client), [True] * len(client), chained(sent), change)


def test_a_conversation_that_grows_and_is_sent_so_is_steady() -> None:
    steadiness = Steadiness()
    found = [steadiness.compare(OWNER, shown(list(range(n)))) for n in range(2, 40, 2)]
    assert found == [(Compared.NEW, None)] + [(Compared.STEADY, None)] * 18


def test_what_was_sent_otherwise_is_found_with_its_first_block() -> None:
    steadiness = Steadiness()
    assert steadiness.compare(OWNER, shown([1, 2, 3], [1, 20, 3])) == (Compared.NEW, None)
    found = steadiness.compare(OWNER, shown([1, 2, 3, 4], [1, 21, 3, 4], Change.REWRITE))
    assert found == (Compared.DRIFTED, Drift(1, Change.REWRITE))
    # Said once: from now on that is how it is sent.
    assert steadiness.compare(OWNER, shown([1, 2, 3, 4, 5], [1, 21, 3, 4, 5]))[1] is None


def test_of_what_was_done_then_and_now_the_deeper_one_is_named() -> None:
    steadiness = Steadiness()
    steadiness.compare(OWNER, shown([1, 2], [10, 11, 2], Change.SPLIT))
    _, drift = steadiness.compare(OWNER, shown([1, 2, 3], change=Change.NONE))
    assert drift == Drift(0, Change.SPLIT)


def test_a_prompt_that_is_sent_short_of_what_it_was_has_drifted_behind_its_last_block() -> None:
    steadiness = Steadiness()
    steadiness.compare(OWNER, shown([1, 2, 3]))
    _, drift = steadiness.compare(OWNER, shown([1, 2, 3, 4], [1, 2], Change.STRIP))
    assert drift == Drift(2, Change.STRIP)


@pytest.mark.parametrize("client", [[1, 9, 3, 4], [9, 2, 3, 4], [1, 2]])
def test_a_prompt_that_its_client_changed_is_not_compared(client: list[int]) -> None:
    steadiness = Steadiness()
    steadiness.compare(OWNER, shown([1, 2, 3], [10, 20, 30]))
    assert steadiness.compare(OWNER, shown(client)) == (Compared.NEW, None)


def test_a_message_that_grew_is_another_one() -> None:
    steadiness = Steadiness()
    steadiness.compare(OWNER, shown([1, 2], [10, 2]))
    grown = shown([1, 2, 3])._replace(ends=[True, False, True])
    assert steadiness.compare(OWNER, grown) == (Compared.NEW, None)


def test_nobody_is_compared_with_somebody_else() -> None:
    steadiness = Steadiness()
    steadiness.compare(OWNER, shown([1, 2], [10, 20]))
    assert steadiness.compare(b"other", shown([1, 2, 3])) == (Compared.NEW, None)


def test_conversations_that_begin_alike_may_be_sent_unlike_each_as_it_began() -> None:
    steadiness = Steadiness()
    steadiness.compare(OWNER, shown([1, 2]))
    assert steadiness.compare(OWNER, shown([1, 2], [10, 11, 2])) == (Compared.NEW, None)
    for sent in ([1, 2, 3], [10, 11, 2, 3]):
        assert steadiness.compare(OWNER, shown([1, 2, 3], sent)) == (Compared.STEADY, None)
    _, drift = steadiness.compare(OWNER, shown([1, 2, 4], [10, 2, 4]))
    assert drift is not None


def test_a_conversation_that_forks_is_compared_on_each_way() -> None:
    steadiness = Steadiness()
    steadiness.compare(OWNER, shown([1, 2], [10, 2]))
    for way in range(5):
        grown = [10, 2, 100 + way]
        assert steadiness.compare(OWNER, shown([1, 2, 100 + way], grown))[1] is None
    for way in range(5):
        client, sent = [1, 2, 100 + way, 7], [10, 2, 100 + way, 7]
        assert steadiness.compare(OWNER, shown(client, sent)) == (Compared.STEADY, None)
        _, drift = steadiness.compare(OWNER, shown([*client, 8], [10, 2, 99, 7, 8]))
        assert drift == Drift(2, Change.MARK)


def test_what_is_remembered_stays_within_its_budget_and_the_latest_are_kept() -> None:
    steadiness = Steadiness(200_000)
    for number in range(3000):
        base = [number * 1000 + n for n in range(20)]
        for length in (10, 15, 20):
            compared, drift = steadiness.compare(OWNER, shown(base[:length]))
            assert drift is None
            assert compared is (Compared.NEW if length == 10 else Compared.STEADY)
        assert steadiness.size_bytes <= 200_000
    assert steadiness.compare(OWNER, shown([*range(20), 5]))[0] is Compared.NEW
    assert BUDGET_BYTES > 200_000


def test_one_conversation_longer_than_the_budget_is_forgotten_at_once() -> None:
    steadiness = Steadiness(1000)
    for turns in range(1, 4):
        found = steadiness.compare(OWNER, shown(list(range(1000 * turns))))
        assert found == (Compared.NEW, None)
    assert steadiness.size_bytes == 0


def test_nothing_is_said_of_an_empty_prompt() -> None:
    steadiness = Steadiness()
    assert steadiness.compare(OWNER, shown([])) == (Compared.NEW, None)
    assert steadiness.size_bytes == 0


blocks = st.lists(st.integers(0, 3), min_size=1, max_size=6)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(blocks, st.booleans()), min_size=1, max_size=20))
def test_what_is_said_is_what_lists_of_all_that_was_sent_say(
    turns: list[tuple[list[int], bool]],
) -> None:
    """Against a memory that keeps everything, whole. A break changes a block that was sent before."""
    steadiness, kept = Steadiness(), dict[tuple[int, ...], list[list[int]]]()
    for number, (client, breaks) in enumerate(turns):
        sent = [block + 10 for block in client]
        if breaks:
            sent[0] = 1000 + number
        alike = kept.get(tuple(client), [])
        shorter = (tuple(client[:n]) for n in range(len(client) - 1, 0, -1))
        before = next((kept[each] for each in shorter if each in kept), [])
        expected = Compared.DRIFTED if before else Compared.NEW
        if any(sent[: len(each)] == each for each in (*alike, *before)):
            expected = Compared.STEADY
        compared, drift = steadiness.compare(OWNER, shown(client, sent))
        assert compared is expected
        if drift is not None:
            assert drift.block == 0
        forms = kept.setdefault(tuple(client), [])
        if sent not in forms:
            forms.append(sent)
            del forms[:-4]
    assert steadiness.size_bytes > 0
