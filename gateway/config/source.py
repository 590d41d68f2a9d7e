"""Where a config comes from, so that it can be read again: file, environment, flags."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.config.catalogue import PREFIX
from gateway.config.document import Unreadable, read_text
from gateway.config.environment import FROM_FILE
from gateway.config.load import load_with_origins
from gateway.errors import ConfigError, Fault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config.load import Loaded
    from gateway.config.tree import Config


@dataclass(frozen=True, slots=True)
class Source:
    """What a process was given. Its environment stays as it is; what files say may change."""

    file: Path | None = None
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    flags: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Loaded:
        """What it says now, secrets that stand in files included. Raises ConfigError."""
        return load_with_origins(self.file, self.environ, self.flags)

    def load_again(self) -> Loaded:
        """The same, while something holds: a file that is empty now is half a write, or a mistake, and
        would silently set everything back to its default. Raises ConfigError.
        """
        loaded = self.load()
        if self.is_blank:
            raise ConfigError(
                (
                    Fault(
                        str(self.file),
                        "is empty",
                        "write {} into it where every setting is to have its default",
                    ),
                )
            )
        return loaded

    @property
    def is_blank(self) -> bool:
        """There is a file, and it says nothing."""
        if self.file is None:
            return False
        try:
            return not read_text(self.file).strip()
        except Unreadable:
            return False

    def irregular(self, config: Config | None = None) -> tuple[Path, ...]:
        """Of its files those that are there and are none that can be read twice: a pipe, a terminal."""
        return tuple(each for each in self.files(config) if each.exists() and not each.is_file())

    def files(self, config: Config | None = None) -> tuple[Path, ...]:
        """What is read: the config file, the files that variables name, and, of a config that holds,
        those of its warm-ups.
        """
        named = [
            Path(value)
            for name, value in sorted(self.environ.items())
            if value and name.startswith(PREFIX) and name.endswith(FROM_FILE)
        ]
        warm = [] if config is None else [Path(each.file) for each in config.warm if each.file]
        first = [] if self.file is None else [self.file]
        return tuple(dict.fromkeys((*first, *named, *warm)))
