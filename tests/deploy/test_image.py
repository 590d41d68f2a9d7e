"""What comes of the Dockerfile's own steps: its size, its files, and that it starts."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.deploy.image import REVISION
from tests.deploy.test_dockerfile import VERSION
from tests.helpers.container import Container, Mount, Process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.deploy.image import BuiltImage

pytestmark = pytest.mark.slow
MOST_BYTES = 150_000_000
STARTS_S = 20.0
OWN_NETWORK = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")


def files(image: BuiltImage) -> Iterator[Path]:
    return (path for path in image.root.rglob("*") if path.is_file() and not path.is_symlink())


def ended(image: BuiltImage, folder: Path, *argv: str, **environ: str) -> Container:
    """A container of it that has ended; its root is read-only and it is nobody."""
    # A runtime writes it, and names in it count before any name server.
    hosts = folder.parent / "hosts"
    hosts.write_text("127.0.0.1 localhost\n10.1.2.3 redis.test\n")
    process = Process(
        str(image.root),
        list(argv),
        image.config["env"] | environ,
        uid=65532,
        gid=65532,
        mounts=[Mount("/tmp"), Mount("/etc/hosts", str(hosts))],
        read_only_root=True,
        no_new_privileges=True,
        drop_all=True,
    )
    container = Container(process, folder)
    container.ended.wait(STARTS_S)
    container.close()
    return container


def within(
    container: Container,
    argv: list[str],
    environ: dict[str, str],
    *,
    uid: int = 65532,
    gid: int = 65532,
) -> subprocess.CompletedProcess[str]:
    """What `docker exec` does: a program in the container, as its user."""
    done = subprocess.run(
        [
            *(str(shutil.which("nsenter")), "--target", str(container.pid())),
            *("--mount", "--net", "--pid", "--root", "--wd"),
            *("--setuid", str(uid), "--setgid", str(gid), "--", *argv),
        ],
        env=environ,
        capture_output=True,
        text=True,
        timeout=STARTS_S,
        check=False,
    )
    print(done.stdout, done.stderr)
    return done


def is_healthy(container: Container, test: list[str], environ: dict[str, str]) -> bool:
    """What the image's health check finds."""
    return within(container, test, environ).returncode == 0


def told_by_doctor(
    container: Container, environ: dict[str, str], *, uid: int = 65532, gid: int = 65532
) -> dict[str, str]:
    """The verdict of each check of `gateway doctor` in there, where there is nobody to ask outside."""
    argv = ["gateway", "doctor", "--json", "--anyway", "--skip", "upstreams", "--skip", "host"]
    done = within(container, argv, environ, uid=uid, gid=gid)
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert done.returncode == told["status"] == 0
    return {each["check"]: each["verdict"] for each in told["findings"]}


def test_it_is_small(built_image: BuiltImage) -> None:
    size = sum(path.stat().st_size for path in files(built_image))
    print(f"the image's files: {size / 1e6:.1f} MB")
    assert size < MOST_BYTES


def test_there_is_no_shell_no_installer_and_nothing_with_rights_of_its_own(
    built_image: BuiltImage,
) -> None:
    programs = {p.name for p in files(built_image) if os.access(p, os.X_OK) and ".so" not in p.name}
    assert not programs & {"sh", "bash", "dash", "apt", "dpkg", "pip", "uv", "strip", "ldd", "wget"}
    assert not list(built_image.root.rglob("pip"))
    assert not [path for path in files(built_image) if path.stat().st_mode & 0o6000]


def test_nobody_but_the_gateway_owns_anything_and_it_owns_its_state_alone(
    built_image: BuiltImage,
) -> None:
    own = [p for p in built_image.root.rglob("*") if p.lstat().st_uid != 0]
    assert [str(p.relative_to(built_image.root)) for p in own] == ["var/lib/warmgate"]
    state = own[0].stat()
    assert (state.st_uid, state.st_gid, state.st_mode & 0o7777) == (65532, 65532, 0o700)
    assert (built_image.root / "tmp").stat().st_mode & 0o7777 == 0o1777
    loose = [p for p in files(built_image) if p.stat().st_mode & 0o022]
    assert loose == []


def test_every_module_is_compiled_for_any_time_stamp(built_image: BuiltImage) -> None:
    """A read-only root keeps no byte code: what is not there is compiled at each start."""
    sources = [path for path in files(built_image) if path.suffix == ".py"]
    assert len(sources) > 1000
    bare = []
    for path in sources:
        compiled = list((path.parent / "__pycache__").glob(f"{path.stem}.cpython-*.pyc"))
        # PEP 552: 1 is a hash, not to be checked.
        if not compiled or compiled[0].read_bytes()[4:8] != b"\1\0\0\0":
            bare.append(path)
    assert bare == []


def test_its_labels_say_what_it_is(built_image: BuiltImage) -> None:
    labels = built_image.config["labels"]
    prefix = "org.opencontainers.image."
    assert {name.removeprefix(prefix) for name in labels} >= {
        *("title", "description", "licenses", "version", "revision", "created"),
    }
    assert all(name.startswith(prefix) and value for name, value in labels.items())
    assert (labels[f"{prefix}version"], labels[f"{prefix}revision"]) == (VERSION, REVISION)
    dt.datetime.fromisoformat(labels[f"{prefix}created"])


def test_scanners_are_told_what_of_debian_is_in_it_and_licences_are_there(
    built_image: BuiltImage,
) -> None:
    told = {
        path.name: path.read_text() for path in built_image.root.glob("var/lib/dpkg/status.d/*")
    }
    assert {"libc6", "ca-certificates", "tzdata"} <= set(told)
    assert any(name.startswith("libssl3") for name in told)
    for name, text in told.items():
        assert f"Package: {name}\n" in text
        assert "\nVersion: " in text
        assert (built_image.root / f"usr/share/doc/{name}/copyright").exists(), name
    assert "ID=debian" in (built_image.root / "etc/os-release").read_text()
    assert list(
        built_image.root.glob("opt/warmgate/lib/python3*/site-packages/aiohttp-*/licenses/*")
    )


def test_every_library_can_be_loaded_and_names_certificates_and_zones_are_known(
    built_image: BuiltImage, tmp_path: Path
) -> None:
    program = """
import ctypes, datetime, pathlib, pwd, socket, ssl, sys, zoneinfo
for path in sorted(pathlib.Path("/").rglob("*.so*")):
    if path.is_file() and path.open("rb").read(4) == b"\\x7fELF" and "ld-linux" not in path.name:
        ctypes.CDLL(str(path))
import bz2, hashlib, lzma, sqlite3, uuid, zlib, uvloop, gateway
assert pwd.getpwuid(65532).pw_name == "warmgate"
assert len(ssl.create_default_context(cafile="/etc/ssl/certs/ca-certificates.crt").get_ca_certs()) > 100
assert pathlib.Path(ssl.get_default_verify_paths().capath, "ca-certificates.crt").exists()
assert socket.gethostbyname("redis.test") == "10.1.2.3"
now = datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))
assert now.utcoffset() == datetime.timedelta(hours=2)
assert sys.flags.dont_write_bytecode and sys.getfilesystemencoding() == "utf-8"
print("all of it")
"""
    done = ended(built_image, tmp_path / "c", "python", "-c", program)
    assert (done.status, done.output()) == (0, "all of it\n")


def test_its_verbs_work_and_a_wrong_setting_is_named(
    built_image: BuiltImage, tmp_path: Path
) -> None:
    checked = ended(built_image, tmp_path / "check", "gateway", "check", GATEWAY_CACHE__TTL_S="60")
    assert checked.status == 0, checked.output()
    wrong = ended(built_image, tmp_path / "wrong", "gateway", "check", GATEWAY_CACHE__TTL="60")
    assert wrong.status == 2
    assert "GATEWAY_CACHE__TTL" in wrong.output()


def test_as_it_is_it_keeps_its_store_in_its_volume_and_answers_its_health_check(
    built_image: BuiltImage, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 65532, 65532)
    config = built_image.config
    uid, gid = map(int, config["user"].split(":"))
    process = Process(
        str(built_image.root),
        [*config["entrypoint"], *config["cmd"]],
        config["env"],
        uid=uid,
        gid=gid,
        mounts=[Mount("/tmp"), Mount("/var/lib/warmgate", str(state))],
        read_only_root=True,
        no_new_privileges=True,
        drop_all=True,
    )
    container = Container(process, tmp_path / "c", OWN_NETWORK)
    try:
        deadline = time.monotonic() + STARTS_S
        # Whatever proxy the upstreams are reached by, this is not asked of it.
        environ = config["env"] | {"http_proxy": "http://127.0.0.1:1"}
        while not is_healthy(container, config["healthcheck"]["test"], environ):
            assert time.monotonic() < deadline, container.output()
            assert not container.ended.wait(0.05), container.output()
        elsewhere = environ | {"GATEWAY_SERVER__PROBE_PORT": "9"}
        assert not is_healthy(container, config["healthcheck"]["test"], elsewhere)
        assert [path.name for path in state.rglob("*.sqlite")]
        told = told_by_doctor(container, config["env"])
        assert {told[name] for name in ("gateway.probes", "gateway.config", "store.sqlite")} == {
            "ok"
        }
    finally:
        container.send(signal.SIGTERM)
        container.ended.wait(STARTS_S)
        container.close()
    assert container.status == 0, container.output()


def test_any_other_user_can_run_it_with_a_store_elsewhere(
    built_image: BuiltImage, tmp_path: Path
) -> None:
    config = built_image.config
    # As OpenShift does: a number that no file knows, in root's group.
    uid, gid = 1_000_670_000, 0
    environ = config["env"] | {"GATEWAY_STORE__URL": "memory://"}
    process = Process(
        str(built_image.root),
        [*config["entrypoint"], *config["cmd"]],
        environ,
        uid=uid,
        gid=gid,
        read_only_root=True,
        no_new_privileges=True,
        drop_all=True,
    )
    container = Container(process, tmp_path / "c", OWN_NETWORK)
    try:
        deadline = time.monotonic() + STARTS_S
        while "listening on" not in container.output():
            assert time.monotonic() < deadline, container.output()
            assert not container.ended.wait(0.02), container.output()
        told = told_by_doctor(container, environ, uid=uid, gid=gid)
        assert {told["gateway.probes"], told["gateway.config"], told["store"]} == {"ok"}
    finally:
        container.close()
