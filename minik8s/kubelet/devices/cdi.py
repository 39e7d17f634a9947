"""Container Device Interface: what the name `vendor.example/class=device` stands for, from specs in files.

Docker 20.10 does not know CDI, so that a device's edits are turned here into what every engine can do. Hooks are not
among that: they are named, so that somebody may be told. Format: CNCF's container-device-interface, SPEC.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from minik8s.api.meta import Struct
from minik8s.log import get_logger
from minik8s.runtime.base import Device, Mount

FOLDERS = (Path("/etc/cdi"), Path("/var/run/cdi"))  # the later one wins
ANNOTATION = "cdi.k8s.io/"  # prefix of annotations whose values are names of devices, with commas between
log = get_logger("devices")


class Node(Struct):
    path: str = ""
    hostPath: str = ""
    permissions: str = ""


class MountEdit(Struct):
    hostPath: str = ""
    containerPath: str = ""
    options: tuple[str, ...] = ()
    type: str = ""


class Hook(Struct):
    hookName: str = ""
    path: str = ""


class Edits(Struct):
    env: tuple[str, ...] = ()
    deviceNodes: tuple[Node, ...] = ()
    mounts: tuple[MountEdit, ...] = ()
    hooks: tuple[Hook, ...] = ()
    additionalGids: tuple[int, ...] = ()


class Named(Struct):
    name: str = ""
    containerEdits: Edits = Edits()


class Spec(Struct):
    cdiVersion: str = ""
    kind: str = ""
    devices: tuple[Named, ...] = ()
    containerEdits: Edits = Edits()  # once, for whoever gets any of its devices


class Unresolvable(Exception):
    """No spec names the device, or two that are as good as each other do."""


class Given(Struct):
    """The edits of some devices, in the engine's terms."""

    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    groups: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()  # programs that the specs want to be run and that are not


def read_specs(folders: Iterable[Path] = FOLDERS) -> list[list[Spec]]:
    """The specs of each folder. Blocking. A broken file is told in the log and counts as none."""
    return [[spec for path in _files(folder) if (spec := _read(path)) is not None] for folder in folders]


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in (".json", ".yaml", ".yml"))
    except OSError:
        return []


def _read(path: Path) -> Spec | None:
    try:
        return msgspec.convert(_document(path), Spec)
    except (OSError, ValueError) as error:  # what JSON, YAML and msgspec raise are ValueErrors
        log.warning(
            "a CDI spec cannot be used",
            file=str(path),
            error=" ".join(str(error).split()),
            remedy="mend the file, or have the vendor's tool write it anew",
        )
        return None


def _document(path: Path) -> Any:
    if path.suffix == ".json":
        return msgspec.json.decode(path.read_bytes())
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(path.read_text())
    except YAMLError as error:
        raise ValueError(str(error)) from None


def from_annotations(annotations: Mapping[str, str]) -> list[str]:
    """Plugins that know no better field put names there."""
    values = [value for key, value in sorted(annotations.items()) if key.startswith(ANNOTATION)]
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def resolve(names: Sequence[str], folders: Sequence[Sequence[Spec]]) -> Given:
    """What all of the devices together bring. Unresolvable."""
    edits: list[Edits] = []
    begun: list[Spec] = []
    for name in dict.fromkeys(names):
        spec, device = _find(name, folders)
        if not any(spec is other for other in begun):
            begun.append(spec)
            edits.append(spec.containerEdits)
        edits.append(device.containerEdits)
    return Given(
        env=tuple((word.partition("=")[0], word.partition("=")[2]) for edit in edits for word in edit.env),
        mounts=tuple(_mount(mount) for edit in edits for mount in edit.mounts),
        devices=tuple(
            Device(node.hostPath or node.path, node.path, node.permissions or "rwm")
            for edit in edits
            for node in edit.deviceNodes
        ),
        groups=tuple(dict.fromkeys(str(gid) for edit in edits for gid in edit.additionalGids)),
        hooks=tuple(dict.fromkeys(hook.path for edit in edits for hook in edit.hooks)),
    )


def _find(name: str, folders: Sequence[Sequence[Spec]]) -> tuple[Spec, Named]:
    kind, _, wanted = name.partition("=")
    for specs in reversed(folders):
        found = [(spec, each) for spec in specs if spec.kind == kind for each in spec.devices if each.name == wanted]
        if len(found) > 1:
            raise Unresolvable(f"CDI device {name} is in {len(found)} specs of the same folder: remove all but one")
        if found:
            return found[0]
    raise Unresolvable(f"unresolvable CDI device {name}: no spec in {', '.join(map(str, FOLDERS))} has it")


def _mount(edit: MountEdit) -> Mount:
    spread = next((word for word in ("rshared", "rslave") if word in edit.options), "")
    return Mount(edit.hostPath, edit.containerPath, "ro" in edit.options, spread)
