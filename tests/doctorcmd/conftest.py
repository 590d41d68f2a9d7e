"""What the verb does to its own process is not done to the tests'."""

from __future__ import annotations

import pytest

from gateway.doctorcmd import room


@pytest.fixture(autouse=True)
def _not_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "stand_back", lambda: None)
    # How much memory the machine of the tests has left is none of their matter.
    monkeypatch.setattr(room, "room_bytes", lambda: None)
