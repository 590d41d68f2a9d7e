"""A gateway whose config lies in a file, in the test's own loop, and what is written into that file."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import yaml

from gateway.app import start
from gateway.config.source import Source
from tests.helpers.gateway_here import settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from gateway.app import RunningGateway
    from gateway.config import Config
    from gateway.reloading import Reloaded, Reloading


class InFile:
    """The gateway, and its file."""

    def __init__(self, gateway: RunningGateway, file: Path, tree: dict[str, Any]) -> None:
        self.gateway = gateway
        self.file = file
        self.tree = tree

    @property
    def reloading(self) -> Reloading:
        """Who reads it again."""
        return self.gateway.reloading

    @property
    def config(self) -> Config:
        """The one that holds."""
        return self.gateway.config

    def write(self, **sections: Any) -> None:
        """Lay sections over what the file said; None takes one out."""
        for name, section in sections.items():
            if section is None:
                self.tree.pop(name, None)
            elif isinstance(section, dict):
                self.tree[name] = {**self.tree.get(name, {}), **section}
            else:
                self.tree[name] = section
        self.file.write_text(yaml.safe_dump(self.tree))

    async def say(self, **sections: Any) -> Reloaded:
        """Write, and have it read."""
        self.write(**sections)
        return await self.reloading.reload()


@asynccontextmanager
async def gateway_in_file(
    file: Path,
    base: str,
    environ: Mapping[str, str] | None = None,
    **sections: Mapping[str, Any] | list[Any],
) -> AsyncIterator[InFile]:
    """A gateway in front of `base` (`http://127.0.0.1:PORT`); stopped afterwards."""
    tree = settings(base, **sections)
    file.write_text(yaml.safe_dump(tree))  # noqa: ASYNC240 - short
    source = Source(file, environ or {})
    gateway = await start(source.load().config, {}, None, source)
    try:
        # What is written from here on is read when the test says so, not at the first look.
        await gateway.reloading.reload()
        yield InFile(gateway, file, tree)
    finally:
        await gateway.stop()
