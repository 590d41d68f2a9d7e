"""What an operator did to the cache: one line each, whatever the log level."""

from __future__ import annotations

from typing import Any

import structlog


def audited(action: str, *, who: str, result: str, **facts: Any) -> None:
    """Say that `who` did `action` (`purge`, `import`, ...), on what, and how it ended.

    Facts are names, counts and times; never content, never a credential.
    """
    structlog.get_logger("warmgate.audit").error(
        "audit", action=action, who=who, result=result, **facts
    )
