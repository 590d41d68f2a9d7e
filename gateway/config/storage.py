"""Where entries live: the store, and how it is reached."""

from __future__ import annotations

from pydantic import Field, SecretStr

from gateway.config.kinds import Count, Positive, PositiveInt, StoreUrl
from gateway.config.section import MIB, Section


class StoreTls(Section):
    """TLS towards Redis, with a rediss:// URL. The server's certificate is always checked."""

    ca_path: str | None = Field(
        None, description="Who signs the server's certificate (PEM); unset: the system's list."
    )
    cert_path: str | None = Field(None, description="Our own certificate (PEM), if asked for.")
    key_path: str | None = Field(None, description="Its key (PEM); unset: in `cert_path`.")
    key_password: SecretStr | None = Field(None, description="What opens the key.")
    check_hostname: bool = Field(
        True, description="Whether the certificate must name the host that was dialled."
    )


class Store(Section):
    """Where entries live."""

    url: StoreUrl | None = Field(
        None,
        description="memory://, sqlite:///path, redis://host:6379/0, "
        "redis+sentinel://host1,host2/service/0, redis+cluster://host1,host2; rediss for TLS. "
        "Unset: SQLite in the user's state folder.",
    )
    username: str | None = Field(
        None, description="ACL user of Redis; unset: the URL's, or the default."
    )
    password: SecretStr | None = Field(
        None, description="Password of Redis, which is shown nowhere; unset: the URL's, or none."
    )
    sentinel_username: str | None = Field(None, description="ACL user of the Sentinels themselves.")
    sentinel_password: SecretStr | None = Field(
        None, description="Password of the Sentinels themselves."
    )
    tls: StoreTls = Field(StoreTls(), description="TLS towards Redis.")
    read_from_replicas: bool = Field(
        False,
        description="Ask replicas (Sentinel, Cluster) for entries: less work for primaries, and "
        "now and then a miss for what was stored just before.",
    )
    memory_bytes: Count = Field(
        64 * MIB,
        description="Byte budget of the memory tier in front, and an eighth more for what is hot; 0 turns it off.",
    )
    sqlite_bytes: PositiveInt = Field(
        4 * 1024 * MIB,
        description="Size budget of the SQLite file: beyond it, what expires first goes.",
    )
    deadline_ms: Positive = Field(50.0, description="Deadline of every store operation.")
    key_prefix: str = Field("warmgate:", description="Prefix of every key in Redis.")
