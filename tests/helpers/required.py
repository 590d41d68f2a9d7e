"""What only some machines have for the tests, and CI must have."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(name: str, reason: str) -> NoReturn:
    """Skips, or fails where WARMGATE_REQUIRE (comma-separated names) says it must be here."""
    required = os.environ.get("WARMGATE_REQUIRE", "").replace(" ", "").split(",")
    if name in required:
        pytest.fail(f"WARMGATE_REQUIRE asks for {name}: {reason}")
    pytest.skip(f"{name}: {reason}")
