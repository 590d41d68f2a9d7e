"""A pod's volumes, laid out as a node lays them out."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

from tests.helpers.container import Mount

if TYPE_CHECKING:
    from pathlib import Path

Manifest = dict[str, Any]
_UNITS = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def amount(text: str | int) -> int:
    """Bytes of a Kubernetes quantity: `256Mi`."""
    found = re.fullmatch(r"(\d+)([kMG]i?|Ki)?", str(text))
    assert found, text
    return int(found[1]) * _UNITS[found[2] or ""]


def mount_volumes(
    pod: Manifest, container: Manifest, objects: list[Manifest], folder: Path
) -> list[Mount]:
    """What a container's `volumeMounts` give it; the files are made below `folder`."""
    volumes = {volume["name"]: volume for volume in pod.get("volumes", ())}
    mounts = []
    for asked in container.get("volumeMounts", ()):
        assert set(asked) <= {"name", "mountPath", "readOnly"}, asked
        volume = dict(volumes[asked["name"]])
        name = volume.pop("name")
        ((kind, told),) = volume.items()
        target, read_only = asked["mountPath"], asked.get("readOnly", False)
        if kind == "emptyDir":
            size = told.get("sizeLimit")
            mounts.append(Mount(target, "", read_only, amount(size) if size else None))
            continue
        files, mode = _files(kind, told, objects)
        place = folder / "volumes" / name
        if not place.exists():
            project(place, files, mode)
        # Of ConfigMaps and Secrets a container can never change anything.
        mounts.append(Mount(target, str(place), read_only=True))
    return mounts


def project(place: Path, files: dict[str, bytes], mode: int) -> None:
    """Puts files where a node does: behind a link that is replaced whole when they change."""
    place.mkdir(parents=True, exist_ok=True)
    generation = f"..generation-{sum(1 for _ in place.glob('..generation-*'))}"
    (place / generation).mkdir()
    for name, content in files.items():
        file = place / generation / name
        file.write_bytes(content)
        file.chmod(mode)
    fresh = place / "..data_tmp"
    fresh.symlink_to(generation)
    fresh.rename(place / "..data")
    for name in files:
        if not (place / name).is_symlink():
            (place / name).symlink_to(f"..data/{name}")


def _files(kind: str, told: Manifest, objects: list[Manifest]) -> tuple[dict[str, bytes], int]:
    match kind:
        case "configMap":
            return content("ConfigMap", told["name"], told.get("items"), objects), told.get(
                "defaultMode", 0o644
            )
        case "secret":
            return content("Secret", told["secretName"], told.get("items"), objects), told.get(
                "defaultMode", 0o644
            )
        case "projected":
            files: dict[str, bytes] = {}
            for source in told["sources"]:
                ((each, details),) = source.items()
                assert each in {"secret", "configMap"}, each
                of_kind = "Secret" if each == "secret" else "ConfigMap"
                files |= content(of_kind, details["name"], details.get("items"), objects)
            return files, told.get("defaultMode", 0o644)
        case _:
            raise AssertionError(f"volumes of kind {kind} are not known here")


def content(
    kind: str, name: str, items: list[Manifest] | None, objects: list[Manifest]
) -> dict[str, bytes]:
    """What a ConfigMap or a Secret holds, by file name."""
    found = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]
    assert len(found) == 1, f"the pod waits for the {kind} {name}"
    held = {key: value.encode() for key, value in (found[0].get("data") or {}).items()}
    if kind == "Secret":
        held = {key: base64.b64decode(value) for key, value in held.items()}
        held |= {k: v.encode() for k, v in (found[0].get("stringData") or {}).items()}
    if items is None:
        return held
    return {item["path"]: held[item["key"]] for item in items}
