"""What makes a security context wrong: users, profiles of system calls, settings of the kernel."""

from __future__ import annotations

import re
from collections.abc import Iterator

from minik8s.api.errors import Cause, duplicate, invalid, required
from minik8s.api.kinds.validation import choice
from minik8s.api.resource import Json

SECCOMP_TYPES = ("Localhost", "RuntimeDefault", "Unconfined")
SYSCTL = re.compile(r"[a-z0-9](?:[-_a-z0-9]*[a-z0-9])?(?:[./][a-z0-9](?:[-_a-z0-9]*[a-z0-9])?)*")
OF_NAMESPACES = {  # which the kernel keeps for each network, each IPC namespace
    "hostNetwork": ("net.",),
    "hostIPC": ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."),
}


def validate_security(context: Json, path: str) -> Iterator[Cause]:
    """The security context of a pod, or of a container."""
    for name in ("runAsUser", "runAsGroup", "fsGroup"):
        if context.get(name, 0) < 0:
            yield invalid(f"{path}.{name}", context[name], "must be between 0 and 2147483647, inclusive")
    for index, group in enumerate(context.get("supplementalGroups") or ()):
        if group < 0:
            yield invalid(f"{path}.supplementalGroups[{index}]", group, "must be between 0 and 2147483647, inclusive")
    if context.get("privileged") and context.get("allowPrivilegeEscalation") is False:
        yield invalid(path, "", "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
    yield from _seccomp(context.get("seccompProfile") or {}, f"{path}.seccompProfile")


def _seccomp(profile: Json, path: str) -> Iterator[Cause]:
    """A profile of the node's is named by its path below a folder of such, and never leads out of it."""
    file = profile.get("localhostProfile")
    if profile:
        yield from choice(profile, path, "type", SECCOMP_TYPES)
        if not profile.get("type"):
            yield required(f"{path}.type")
    if profile.get("type") != "Localhost":
        if file:
            yield invalid(f"{path}.localhostProfile", file, "can only be set when seccomp type is Localhost")
    elif not file:
        yield required(f"{path}.localhostProfile", "must be set when seccomp type is Localhost")
    elif file.startswith("/"):
        yield invalid(f"{path}.localhostProfile", file, "must be a relative path")
    elif ".." in file.split("/"):
        yield invalid(f"{path}.localhostProfile", file, "must not contain '..'")


def validate_sysctls(spec: Json, path: str) -> Iterator[Cause]:
    """Kernel settings belong to namespaces: a pod sets none of those that it shares with the host."""
    seen: set[str] = set()
    for index, sysctl in enumerate((spec.get("securityContext") or {}).get("sysctls") or ()):
        here, name = f"{path}.securityContext.sysctls[{index}].name", sysctl.get("name", "")
        if not name:
            yield required(here)
        elif not SYSCTL.fullmatch(name):
            yield invalid(here, name, "must be the name of a kernel setting, like net.core.somaxconn")
        elif name.replace("/", ".") in seen:
            yield duplicate(here, name)
        seen.add(name.replace("/", "."))
        for shared, prefixes in OF_NAMESPACES.items():
            if spec.get(shared) and name.replace("/", ".").startswith(prefixes):
                yield invalid(here, name, f"may not be specified when '{shared}' is true")
