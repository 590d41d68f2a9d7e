from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gateway import config
from gateway.config import load
from gateway.errors import ConfigError
from gateway.store.open import describe, redis_access, scheme
from gateway.store.redis import RedisStore
from gateway.store.redis_access import Access
from gateway.store.redis_address import Address, Place

if TYPE_CHECKING:
    from collections.abc import Mapping

TLS = Path(__file__).parent.parent / "helpers" / "tls"


@pytest.mark.parametrize(
    ("url", "topology", "places", "service"),
    [
        ("redis://h", "one", [("h", 6379)], ""),
        ("redis://[::1]:7/2", "one", [("::1", 7)], ""),
        (
            "redis+sentinel://a:1,b,[::1]/gw",
            "sentinel",
            [("a", 1), ("b", 26379), ("::1", 26379)],
            "gw",
        ),
        ("redis+sentinel://a/my%20service/3", "sentinel", [("a", 26379)], "my service"),
        ("redis+cluster://u:p%40@a,b:7", "cluster", [("a", 6379), ("b", 7)], ""),
        ("rediss+cluster://a/0", "cluster", [("a", 6379)], ""),
    ],
)
def test_each_form_of_url_says_whom_to_ask(
    url: str, topology: str, places: list[tuple[str, int]], service: str
) -> None:
    address = Address(url)
    assert (address.topology, list(address.places), address.service) == (topology, places, service)
    assert address.is_tls == url.startswith("rediss")
    assert scheme(url) == "redis"


def settings(connection: Any) -> dict[str, Any]:
    return {
        name: getattr(connection, name) for name in ("host", "port", "db", "username", "password")
    }


def test_a_connection_gets_what_the_url_and_the_settings_say() -> None:
    address = Address("redis+sentinel://ada@s/gw/5", Access(password="right"))
    made = address.maker(Place("h", 7))()
    assert settings(made) == {
        "host": "h",
        "port": 7,
        "db": 5,
        "username": "ada",
        "password": "right",
    }
    assert (made.socket_timeout, made.socket_connect_timeout, made.protocol) == (None, None, 2)


def test_sentinels_have_credentials_of_their_own_and_the_same_tls() -> None:
    access = Access(sentinel_username="watch", sentinel_password="man", ca_path=str(TLS / "ca.pem"))
    address = Address("rediss+sentinel://:data@s/gw", access)
    assert address.sentinel_settings == {
        "ssl": True,
        "ssl_ca_certs": str(TLS / "ca.pem"),
        "username": "watch",
        "password": "man",
    }
    assert Address("redis+sentinel://s/gw?sentinel_password=x").sentinel_settings == {
        "ssl": False,
        "password": "x",
    }


def test_every_fault_is_named_at_once_and_no_password() -> None:
    access = Access(
        password="hunter2", ca_path="/no/such.pem", read_from_replicas=True, sentinel_password="x"
    )
    with pytest.raises(ValueError, match=r"\w") as caught:
        Address("redis://:hunter3@h:99999/x?colour=red", access)
    said = str(caught.value)
    for part in (
        "a host or port",
        "database number",
        "both the URL and store.password",
        "store.sentinel_password",
        "store.tls.ca_path without TLS",
        "store.read_from_replicas",
        "colour",
    ):
        assert part in said
    assert "hunter" not in said


@pytest.mark.parametrize(
    ("url", "access", "said"),
    [
        ("redis+sentinel://a,b", {}, "names no service"),
        ("redis+cluster://a/3", {}, "no databases but 0"),
        ("redis+cluster://a?db=3", {}, "no databases but 0"),
        ("redis://a,b", {}, "several only with Sentinel"),
        ("rediss://a", {"ca_path": "/no/such.pem"}, "TLS files"),
        ("rediss://a", {"ca_path": str(TLS / "key.pem")}, "TLS files"),
        ("rediss://a", {"key_path": str(TLS / "key.pem")}, "key_path without"),
        (
            "rediss://a",
            {"cert_path": str(TLS / "server.pem"), "key_path": str(TLS / "key.pem")},
            "TLS files",
        ),
        ("http://a", {}, "is not redis://"),
    ],
)
def test_what_cannot_work_is_refused(url: str, access: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Address(url, Access(**access))


def test_a_prefix_that_would_keep_all_keys_in_one_slot_is_refused() -> None:
    with pytest.raises(ValueError, match="one slot"):
        RedisStore("redis+cluster://a", key_prefix="{warmgate}:")


def test_the_settings_reach_the_address() -> None:
    store = config.Store.model_validate(
        {
            "url": "rediss+sentinel://s/gw",
            "username": "ada",
            "password": "p",
            "sentinel_username": "watch",
            "sentinel_password": "sp",
            "read_from_replicas": True,
            "tls": {
                "ca_path": "ca.pem",
                "cert_path": "cert.pem",
                "key_path": "key.pem",
                "key_password": "kp",
                "check_hostname": False,
            },
        }
    )
    assert asdict(redis_access(store)) == {
        "username": "ada",
        "password": "p",
        "sentinel_username": "watch",
        "sentinel_password": "sp",
        "ca_path": "ca.pem",
        "cert_path": "cert.pem",
        "key_path": "key.pem",
        "key_password": "kp",
        "check_hostname": False,
        "read_from_replicas": True,
    }
    assert redis_access(config.Store()) == Access()


@pytest.mark.parametrize(
    ("environ", "faults"),
    [
        ({"URL": "redis+sentinel://a,b"}, {"store.url": "service"}),
        ({"URL": "redis+sentinel://a,b/gw/x"}, {"store.url": "database number"}),
        ({"URL": "redis+cluster://a:b:c"}, {"store.url": "host or port"}),
        ({"URL": "redis+cluster://a/1"}, {"store.url": "a Cluster has only one"}),
        ({"URL": "redis+cluster://u:p/x@a"}, {"store.url": "@ after its host"}),
        (
            {
                "URL": "redis://u:p@a",
                "USERNAME": "x",
                "PASSWORD": "y",
                "READ_FROM_REPLICAS": "true",
            },
            {
                "store.username": "in the URL",
                "store.password": "in the URL",
                "store.read_from_replicas": "where replicas are",
            },
        ),
        (
            {"URL": "redis://a", "TLS__CA_FILE": "x", "TLS__CHECK_HOSTNAME": "false"},
            {"store.tls.ca_path": "TLS", "store.tls.check_hostname": "TLS"},
        ),
        ({"URL": "rediss://a", "TLS__KEY_PATH": "x"}, {"store.tls.key_path": "no certificate"}),
        ({"SENTINEL_PASSWORD": "x"}, {"store.sentinel_password": "redis+sentinel"}),
        ({"URL": "memory://", "PASSWORD": "x"}, {"store.password": "another kind"}),
        ({"URL": "redis+cluster://a", "KEY_PREFIX": "{a}"}, {"store.key_prefix": "one slot"}),
    ],
)
def test_settings_that_do_not_go_together_are_named_one_by_one(
    environ: Mapping[str, str], faults: Mapping[str, str]
) -> None:
    variables = {f"GATEWAY_STORE__{name}": value for name, value in environ.items()}
    with pytest.raises(ConfigError) as caught:
        load(None, variables)
    said = str(caught.value)
    for path, problem in faults.items():
        assert problem in said
        assert path in said or f"GATEWAY_{path.upper().replace('.', '__')}" in said


def test_passwords_and_lists_of_hosts_are_shown_as_they_may_be() -> None:
    url = "rediss+sentinel://ada:hunter2@a:1,[::1]:2/gw/0?sentinel_password=hunter2"
    assert describe(url) == "rediss+sentinel://ada:***@a:1,[::1]:2/gw/0?sentinel_password=***"
    made = config.Config.model_validate(
        {"store": {"url": url, "tls": {"ca_path": "/etc/ca.pem"}, "key_prefix": "x:"}}
    )
    assert "hunter2" not in repr(made)
    assert "hunter2" not in str(made.redacted())
    assert len(made.generation()) == 16
    assert "hunter2" not in repr(Access(password="hunter2", sentinel_password="hunter2"))
    assert "hunter2" not in repr(Address("redis://:hunter2@h"))
