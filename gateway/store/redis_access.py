"""What the settings add to a URL of Redis; without redis-py, which only such a store is to load."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Access:
    """What the settings say beside the URL. Empty texts say nothing."""

    username: str = ""
    password: str = field(default="", repr=False)
    sentinel_username: str = ""
    sentinel_password: str = field(default="", repr=False)
    ca_path: str = ""
    cert_path: str = ""
    key_path: str = ""
    key_password: str = field(default="", repr=False)
    check_hostname: bool = True
    read_from_replicas: bool = False
