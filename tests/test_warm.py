"""What is remembered of hot entries."""

from __future__ import annotations

from gateway.core.model import Entry, Form
from gateway.core.template import Template
from gateway.warm import Warm


def entry(size: int = 100) -> Entry:
    return Entry(
        api="openai_chat",
        recorded=Form.BODY,
        forms=frozenset(Form),
        payload=b'{"id":"x"}'.ljust(size),
        stored_at=0.0,
        ttl_s=1.0,
        model="m",
        response_id="x",
        usage=None,
        has_stream_usage=True,
    )


def test_only_the_very_blob_that_was_decoded_finds_its_entry() -> None:
    warm, kept, blob = Warm(1 << 20), entry(), bytes(bytearray(b"blob"))
    warm.put(b"key", blob, kept)
    assert warm.get(b"key", blob) is kept
    assert warm.get(b"key", bytes(bytearray(b"blob"))) is None
    assert warm.get(b"other", blob) is None


def test_templates_belong_to_the_very_entry() -> None:
    warm, kept = Warm(1 << 20), entry()
    warm.put(b"key", b"blob", kept)
    found = warm.of(kept)
    assert found is not None
    assert found.ids == frozenset({"x"})
    assert warm.of(entry()) is None
    template = Template((b"a" * 500,), (), ())
    before = warm.used_bytes
    warm.rendered(found, (Form.BODY, False), template)
    assert found.templates == {(Form.BODY, False): template}
    assert warm.used_bytes == before + 500


def test_it_stays_within_its_budget_and_forgets_the_first() -> None:
    warm = Warm(100_000)
    kept = [entry(5000) for _ in range(50)]
    for number, each in enumerate(kept):
        warm.put(b"%d" % number, b"blob", each)
        assert warm.used_bytes <= 100_000
    assert warm.of(kept[0]) is None
    assert warm.get(b"49", b"blob") is None or warm.of(kept[49]) is not None
    last = warm.of(kept[49])
    assert last is not None
    warm.rendered(last, (Form.BODY, True), Template((b"a" * 90_000,), (), ()))
    assert warm.used_bytes <= 100_000


def test_what_takes_too_large_a_share_is_not_remembered_nor_what_it_replaces() -> None:
    warm, small, large = Warm(40_000), entry(), entry(39_000)
    warm.put(b"key", b"small", small)
    warm.put(b"key", b"large", large)
    assert warm.of(small) is warm.of(large) is None
    assert warm.used_bytes == 0


def test_a_budget_of_nothing_remembers_nothing() -> None:
    warm, kept = Warm(0), entry()
    warm.put(b"key", b"blob", kept)
    assert warm.of(kept) is None
