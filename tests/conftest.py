"""Fixtures that more than one folder needs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from gateway.telemetry import logs
from tests.helpers.redis_servers import KINDS, RedisServer, binary, missing_is_a_failure

if TYPE_CHECKING:
    from collections.abc import Iterator

ALONE = frozenset(("integration",))
"""Folders whose tests judge time and load: nothing runs beside them. All others run on all cores."""
NOT_ALONE = frozenset(("test_recorded_conversations.py", "test_tenants.py"))
"""Files in them that judge neither."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what may not run beside others."""
    tests = Path(__file__).parent
    for item in items:
        if item.path.relative_to(tests).parts[0] in ALONE and item.path.name not in NOT_ALONE:
            item.add_marker(pytest.mark.alone)


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.redis) for kind in KINDS])
def redis_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A real, empty server of each kind that may be killed, paused and restarted."""
    executable = binary(request.param)
    if executable is None:
        if missing_is_a_failure():
            pytest.fail(f"{request.param} is not installed, and this is CI")
        pytest.skip(f"{request.param} is not installed")
    server = RedisServer(executable)
    server.start()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    """The root logger and structlog as they were: both are global."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    bound = logs._Requests.log
    yield
    logs._Requests.log = bound
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("opentelemetry", "urllib3"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.reset_defaults()
