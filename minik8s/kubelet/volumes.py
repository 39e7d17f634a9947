"""A pod's files on the host: volumes made, kept up to date, mounted into containers, and taken away.

    DATA/pods/UID/volumes/kubernetes.io~TYPE/NAME   one folder for each volume
    DATA/pods/UID/etc/{hosts,resolv.conf,hostname}
    DATA/pods/UID/containers/NAME/ATTEMPT           where a container leaves its termination message

File work happens in threads. What the API names is checked before it becomes a path.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from minik8s.api.errors import StatusError
from minik8s.api.kinds.pod import Container, DownwardAPIFile, EmptyDirVolume, HostPathVolume, Pod, Volume
from minik8s.api.quantity import to_bytes
from minik8s.api.references import of_volume
from minik8s.kubelet import pod_files
from minik8s.kubelet.file_tree import UnsafePath, give_to_group, open_inside, write_tree
from minik8s.kubelet.mounts import bind, mount_tmpfs, unmount, unmount_below
from minik8s.kubelet.objects import Objects, Unavailable
from minik8s.kubelet.tokens import Tokens
from minik8s.kubelet.volume_sources import MountFailed, holds_secrets, is_rendered, render, tokens_of
from minik8s.runtime.base import Mount

FieldResolver = Callable[[Pod, DownwardAPIFile], str]
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_PROPAGATION = {"": "", "None": "", "HostToContainer": "rslave", "Bidirectional": "rshared"}


def safe_name(name: str) -> str:
    """`name` as one component of a path; MountFailed for what could be anything else."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise MountFailed(f"{name!r} cannot be the name of a folder")
    return name


class Volumes:
    """All pods' folders below `root`; `field` says the value of a downward API item."""

    def __init__(
        self, root: Path, objects: Objects, tokens: Tokens, dns: Callable[[], pod_files.DNS], field: FieldResolver
    ) -> None:
        self.root = root
        self._objects = objects
        self._tokens = tokens
        self._dns = dns
        self._field = field

    def folder(self, uid: str) -> Path:
        return self.root / safe_name(uid)

    # -- making

    async def setup(self, pod: Pod) -> None:
        """Make all volumes of a pod, and bring those made of API objects up to date; MountFailed, idempotent."""
        for volume in pod.spec.volumes:
            try:
                await self._one(pod, volume)
            except (MountFailed, Unavailable, OSError, UnsafePath) as error:
                raise MountFailed(f'MountVolume.SetUp failed for volume "{volume.name}" : {error}') from None

    async def refresh(self, pod: Pod) -> float | None:
        """Bring rendered volumes up to date; seconds until a token must be renewed, if there is one."""
        for volume in pod.spec.volumes:
            if is_rendered(volume):
                await self._render(pod, volume)
        return self._tokens.renew_after(pod.metadata.uid)

    async def _one(self, pod: Pod, volume: Volume) -> None:
        if is_rendered(volume):
            await self._render(pod, volume)
        elif volume.emptyDir is not None:
            await asyncio.to_thread(self._empty_dir, pod, volume.name, volume.emptyDir)
        elif volume.hostPath is not None:
            await asyncio.to_thread(check_host_path, volume.hostPath)
        elif volume.persistentVolumeClaim is not None:
            claim = volume.persistentVolumeClaim.claimName
            raise MountFailed(f'persistentvolumeclaim "{claim}": this version of minik8s has no persistent volumes yet')
        else:
            raise MountFailed("this type of volume is not supported")

    def _path(self, uid: str, volume: Volume) -> Path:
        kinds = {
            "empty-dir": volume.emptyDir,
            "configmap": volume.configMap,
            "secret": volume.secret,
            "downward-api": volume.downwardAPI,
            "projected": volume.projected,
        }
        kind = next((name for name, source in kinds.items() if source is not None), "unknown")
        return self.folder(uid) / "volumes" / f"kubernetes.io~{kind}" / safe_name(volume.name)

    def _empty_dir(self, pod: Pod, name: str, source: EmptyDirVolume) -> None:
        path = self._path(pod.metadata.uid, Volume(name=name, emptyDir=source))
        new = not path.exists()
        _make_folder(path)
        if source.medium == "Memory":
            mount_tmpfs(path, to_bytes(source.sizeLimit) if source.sizeLimit else 0, 0o777)
        elif source.medium not in ("", "Memory"):
            raise MountFailed(f"unknown storage medium {source.medium!r}: use '' or Memory")
        if new:
            path.chmod(0o777)
        group = pod.spec.securityContext.fsGroup
        if group is not None:
            give_to_group(path, group)

    async def _render(self, pod: Pod, volume: Volume) -> None:
        space = pod.metadata.namespace
        objects = {(kind, name): await self._objects.get(kind, space, name) for kind, name in of_volume(volume)}
        try:
            tokens = {(a, s): await self._tokens.get(pod, a, s) for a, s in tokens_of(volume)}
        except StatusError as error:
            raise MountFailed(f"failed to fetch token: {error}") from None
        files = render(volume, objects, tokens, lambda item: self._field(pod, item))
        path = self._path(pod.metadata.uid, volume)
        await asyncio.to_thread(_write, path, files, pod.spec.securityContext.fsGroup, holds_secrets(volume))

    async def write_etc(self, pod: Pod, ip: str) -> None:
        """hosts, resolv.conf and hostname, once the pod's address is known."""
        await asyncio.to_thread(self._write_etc, pod, ip)

    def _write_etc(self, pod: Pod, ip: str) -> None:
        dns = self._dns()
        folder = self.folder(pod.metadata.uid) / "etc"
        _make_folder(folder)
        host = Path("/etc/hosts").read_text(errors="replace") if pod.spec.hostNetwork else ""
        texts = {
            "hosts": pod_files.hosts_file(pod, ip, dns.cluster_domain, host),
            "resolv.conf": pod_files.resolv_conf(pod, dns),
            "hostname": pod_files.pod_hostname(pod) + "\n",
        }
        for name, text in texts.items():
            # Written in place: these are bound as files, a new inode would not be seen by running containers.
            (folder / name).write_text(text)

    # -- mounting

    async def mounts(self, pod: Pod, container: Container, attempt: int, env: Mapping[str, str]) -> tuple[Mount, ...]:
        """What to mount into a container; makes subPath folders and the termination log. MountFailed."""
        try:
            return await asyncio.to_thread(self._mounts, pod, container, attempt, env)
        except (OSError, UnsafePath) as error:
            raise MountFailed(str(error)) from None

    def _mounts(self, pod: Pod, container: Container, attempt: int, env: Mapping[str, str]) -> tuple[Mount, ...]:
        volumes = {volume.name: volume for volume in pod.spec.volumes}
        found: list[Mount] = []
        pins = self.folder(pod.metadata.uid) / "volume-subpaths" / safe_name(container.name)
        for number, wanted in enumerate(container.volumeMounts):
            volume = volumes.get(wanted.name)
            if volume is None:
                raise MountFailed(f"volume {wanted.name!r} is not in the pod's volumes")
            source = Path(volume.hostPath.path) if volume.hostPath else self._path(pod.metadata.uid, volume)
            sub = expand(wanted.subPathExpr, env) if wanted.subPathExpr else wanted.subPath
            if sub:
                source = pin_sub_path(source, sub, pins / str(number))
            read_only = wanted.readOnly or is_rendered(volume)
            found.append(Mount(str(source), wanted.mountPath, read_only, _PROPAGATION[wanted.mountPropagation]))
        return (*found, *self._own_mounts(pod, container, attempt, {mount.target for mount in found}))

    def _own_mounts(self, pod: Pod, container: Container, attempt: int, taken: set[str]) -> list[Mount]:
        etc = self.folder(pod.metadata.uid) / "etc"
        log = self.termination_log(pod.metadata.uid, container.name, attempt)
        _make_folder(log.parent)
        log.touch()
        log.chmod(0o666)  # any user of the container may leave a message
        own = [Mount(str(etc / name), f"/etc/{name}") for name in ("hosts", "resolv.conf", "hostname")]
        own.append(Mount(str(log), container.terminationMessagePath or "/dev/termination-log"))
        return [mount for mount in own if mount.target not in taken]

    def termination_log(self, uid: str, name: str, attempt: int) -> Path:
        return self.folder(uid) / "containers" / safe_name(name) / str(int(attempt))

    async def read_termination_log(self, uid: str, name: str, attempt: int) -> bytes:
        """What a container left in its termination log, at most 4096 bytes."""
        return await asyncio.to_thread(_read_start, self.termination_log(uid, name, attempt))

    # -- taking away

    async def remove(self, uid: str) -> None:
        """Unmount and delete all of a pod's files; idempotent."""
        self._tokens.forget(uid)
        await asyncio.to_thread(_remove, self.folder(uid))

    async def remove_orphans(self, known: Sequence[str]) -> list[str]:
        """Delete folders of pods that are not in `known`; returns their uids."""
        present = await asyncio.to_thread(lambda: os.listdir(self.root) if self.root.exists() else [])
        orphans = [uid for uid in present if uid not in set(known) and _NAME.fullmatch(uid)]
        for uid in orphans:
            await self.remove(uid)
        return orphans


def _read_start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError:
        return b""


def _make_folder(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True, mode=0o750)


def _write(path: Path, files: Mapping[str, object], gid: int | None, secret: bool) -> None:
    _make_folder(path)
    if secret:
        mount_tmpfs(path, 0, 0o755)
    path.chmod(0o755)
    write_tree(path, files, gid)  # type: ignore[arg-type]


def _remove(folder: Path) -> None:
    if folder.exists():
        unmount_below(folder)
        shutil.rmtree(folder)


def pin_sub_path(root: Path, relative: str, target: Path) -> Path:
    """Make `target` show `relative` of a volume, whatever the volume's owner does to the path afterwards."""
    descriptor = open_inside(root, relative)
    try:
        unmount(target)
        _make_folder(target.parent)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            target.mkdir(exist_ok=True)
        else:
            target.touch()
        bind(descriptor, target)
    finally:
        os.close(descriptor)
    return target


def expand(expression: str, env: Mapping[str, str]) -> str:
    """`$(POD_NAME)/logs` with the container's environment; MountFailed for a name that it does not have."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        if match[1] not in env:
            raise MountFailed(f"missing value for {match[1]!r} in subPathExpr")
        return env[match[1]]

    return re.sub(r"\$\$|\$\(([A-Za-z_.][A-Za-z0-9_.-]*)\)", value, expression)


_CHECKS: dict[str, tuple[Callable[[int], bool], str]] = {
    "Directory": (stat.S_ISDIR, "a directory"),
    "DirectoryOrCreate": (stat.S_ISDIR, "a directory"),
    "File": (stat.S_ISREG, "a file"),
    "FileOrCreate": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a socket file"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}


def check_host_path(source: HostPathVolume) -> None:
    """Make it where the type says so, then check that it is what the type says. Blocking."""
    path = Path(source.path)
    if ".." in path.parts or not path.is_absolute():
        raise MountFailed(f"hostPath {source.path!r} must be absolute and without '..'")
    if source.type == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True, mode=0o755)
    elif source.type == "FileOrCreate" and not path.exists():
        path.touch(mode=0o644)
    elif source.type == "" and not path.exists():
        path.mkdir(parents=True, exist_ok=True, mode=0o755)  # as Docker does for a bind mount without a source
    if source.type in _CHECKS:
        check, word = _CHECKS[source.type]
        if not path.exists() or not check(path.stat().st_mode):
            raise MountFailed(f"hostPath type check failed: {source.path} is not {word}")
