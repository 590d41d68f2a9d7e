"""What every part of the tree is, and the units that its numbers are written in."""

from __future__ import annotations

from collections.abc import Iterator  # noqa: TC003 - pydantic reads the annotations
from typing import Any

from pydantic import BaseModel, ConfigDict

from gateway.config.redaction import redact_url

KIB = 1024
MIB = 1024 * KIB
SECONDS = 1.0
MINUTES = 60.0
HOURS = 3600.0


class Section(BaseModel):
    """A frozen part of the tree; an unknown member is a fault, not a surprise.

    Neither its repr nor its errors show a secret or a password inside a URL.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True
    )

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, redact_url(value) if isinstance(value, str) else value
