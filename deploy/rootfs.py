"""Puts together the image's file system: Python, the gateway's packages, and what these load.

    python rootfs.py base /opt/warmgate /rootfs          the environment without the gateway
    python rootfs.py gateway /opt/warmgate /rootfs-gateway    the gateway alone

The base image has a shell, a package manager and 60 MB that a gateway never opens. Here each file is
named or found by the dynamic loader. What scanners read (which Debian package, which version) and
the licences come along, at the places where distroless images have them.
"""
# ruff: noqa: INP001 - a program, copied into the build by itself

from __future__ import annotations

import compileall
import fnmatch
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

USER = 65532
# Of the standard library: what needs a display or a compiler, tests, and installers.
UNUSED = (
    *("test", "tests", "idlelib", "idle_test", "tkinter", "turtledemo", "turtle.py", "ensurepip"),
    *("pydoc_data", "site-packages", "config-*", "__pycache__", "*.a", "*.pyc"),
    *("_tkinter*.so", "_test*.so", "_ctypes_test*.so", "xx*.so", "readline*.so", "_curses*.so"),
)
# The system's part: whom to trust, the time zones, how names are looked up.
SYSTEM = (
    *("/etc/ssl", "/usr/lib/ssl", "/usr/share/ca-certificates", "/usr/share/zoneinfo"),
    *("/etc/os-release", "/usr/lib/os-release", "/etc/debian_version"),
)
PASSWD = f"root:x:0:0:root:/root:/sbin/nologin\nwarmgate:x:{USER}:{USER}:Warmgate:/var/lib/warmgate:/sbin/nologin\n"
GROUP = f"root:x:0:\nwarmgate:x:{USER}:\n"


def main() -> None:
    """Does what the command line says; see the top of this file."""
    part, environment, root = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if part == "base":
        directories(root)
        python(root)
        copy(environment, root)
        owners = libraries(root)
        finish(root)
        owners |= {path for path in map(Path, SYSTEM) if path.exists()}
        for path in map(Path, SYSTEM):
            copy(path, root)
        origins(owners, root)
        # Python's own library is where the loader looks only if its cache says so.
        (root / "etc/ld.so.conf").write_text("/usr/local/lib\n")
        subprocess.run(["ldconfig", "-r", root], check=True)  # noqa: S603, S607
    elif part == "gateway":
        for path in (
            *environment.glob("lib/python*/site-packages/gateway"),
            *environment.glob("lib/python*/site-packages/warmgate-*.dist-info"),
            environment / "bin/gateway",
        ):
            copy(path, root)
        finish(root)
    else:
        sys.exit(f"rootfs.py: no part {part!r}")


def copy(path: Path, root: Path, *, leave: tuple[str, ...] = ("__pycache__", ".lock")) -> None:
    """Copies a file, link or folder to the same place below `root`."""
    place = below(root, path)
    place.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        if not place.is_symlink():
            place.symlink_to(path.readlink())
    elif path.is_dir():
        ignore = shutil.ignore_patterns(*leave)
        shutil.copytree(path, place, symlinks=True, ignore=ignore, dirs_exist_ok=True)
    elif path.exists():
        shutil.copy2(path, place)


def below(root: Path, path: Path) -> Path:
    """Where an absolute path is below `root`, with Debian's links of /lib and the like followed."""
    return root / (path.parent.resolve() / path.name).relative_to("/")


def directories(root: Path) -> None:
    """What must be there before anything runs: owners and modes are part of the image."""
    root.mkdir(parents=True)
    for name in ("lib", "lib64", "bin", "sbin"):
        if Path("/", name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    for name in ("dev", "proc", "sys", "run", "etc/warmgate", "root", "usr/bin", "usr/sbin"):
        (root / name).mkdir(parents=True)
    tmp = root / "tmp"
    tmp.mkdir()
    tmp.chmod(0o1777)
    state = root / "var/lib/warmgate"
    state.mkdir(parents=True)
    state.chmod(0o700)
    os.chown(state, USER, USER)
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    # Without it glibc asks the name server before /etc/hosts, which Kubernetes writes.
    (root / "etc/nsswitch.conf").write_text("hosts: files dns\n")


def python(root: Path) -> None:
    """The interpreter that this program runs on, and its standard library."""
    standard = Path(sysconfig.get_path("stdlib"))
    copy(standard, root, leave=UNUSED)
    (below(root, standard) / "site-packages").mkdir()
    home = Path(sys.base_prefix, "bin")
    program = Path(sys.executable).resolve()
    copy(program, root)
    for name in ("python", "python3"):
        below(root, home / name).symlink_to(program.name)


def finish(root: Path) -> None:
    """Takes symbols out of what is loaded, and compiles what is imported.

    Nothing can be compiled where the root is read-only, and each start would do it anew. The byte
    code is bound to no time stamp, because tools that make images reproducible change these.
    """
    stripped = [path for path in elf_files(root) if not path.is_symlink()]
    if stripped:
        subprocess.run(["strip", "--strip-unneeded", *stripped], check=True)  # noqa: S603, S607
    done = compileall.compile_dir(
        root,
        maxlevels=40,
        quiet=1,
        stripdir=str(root),
        prependdir="/",
        workers=0,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    if not done:
        sys.exit("rootfs.py: not everything could be compiled")


def elf_files(root: Path) -> list[Path]:
    """Programs and libraries below `root`."""
    found = []
    for path in sorted(root.rglob("*")):
        if path.is_file() and (os.access(path, os.X_OK) or fnmatch.fnmatch(path.name, "*.so*")):
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    found.append(path)
    return found


def libraries(root: Path) -> set[Path]:
    """Copies what the loader will ask for; returns where it came from."""
    taken: set[Path] = set()
    for path in elf_files(root):
        original = Path("/") / path.relative_to(root)
        told = subprocess.run(  # noqa: S603
            ["ldd", original],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        if "not found" in told:
            sys.exit(f"rootfs.py: {original} cannot be loaded:\n{told}")
        for name in re.findall(r"(?:=> |^\s*)(/\S+) \(0x", told, re.MULTILINE):
            library = Path(name)
            if not below(root, library).exists():
                # The name that is asked for may be a link to the one that has the version.
                for each in dict.fromkeys((library, library.resolve())):
                    copy(each, root)
                taken.add(library)
    return taken


def origins(paths: set[Path], root: Path) -> None:
    """Tells which Debian packages are in the image, as distroless does, and copies their licences."""
    folder = root / "var/lib/dpkg/status.d"
    folder.mkdir(parents=True)
    names: set[str] = set()
    for path in paths:
        # A file of /usr may be listed without it, from before the two were merged.
        for each in (path.resolve(), path, Path(str(path.resolve()).removeprefix("/usr"))):
            told = subprocess.run(  # noqa: S603
                ["dpkg", "--search", each],  # noqa: S607
                capture_output=True,
                text=True,
                check=False,
            ).stdout
            if told:
                owners = told.splitlines()[0].rpartition(": ")[0]
                names |= {owner.strip() for owner in owners.split(",")}
                break
    for name in sorted(names):
        told = subprocess.run(  # noqa: S603
            ["dpkg", "--status", name],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        bare = name.partition(":")[0]
        (folder / bare).write_text(told)
        # One package's folder may be a link to another's, whose name would be lost.
        licence = Path("/usr/share/doc", bare, "copyright")
        if licence.exists():
            place = root / licence.relative_to("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(licence, place)


if __name__ == "__main__":
    main()
