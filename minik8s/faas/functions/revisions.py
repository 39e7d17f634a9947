"""What a Function's revision is made of, which ones calls go to, which are forgotten, what the Function says. Pure.

A revision holds all that is needed to load it. Its shape is the hash of what makes a container: revisions of one shape
are loaded into the same pods.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from minik8s.api.kinds.environment import PLAIN, Environment, environment_hash
from minik8s.api.kinds.function import DEFAULT_RESOURCES, Code, Function, Share
from minik8s.api.kinds.functionrevision import FunctionRevision, FunctionRevisionSpec
from minik8s.api.kinds.pod import ResourceRequirements
from minik8s.api.meta import Condition, condition, is_true
from minik8s.api.resource import Json

READY = "Ready"


class Built(NamedTuple):
    """An environment that can be used; the plain one unless it is said otherwise."""

    name: str = ""
    hash: str = PLAIN
    image: str = ""


class Trouble(NamedTuple):
    """Why no revision can be made of a Function as it is."""

    reason: str
    message: str
    waiting: bool = False  # for something that is on its way


def built(name: str, namespace: str, found: Environment | None, *, made_for_it: bool) -> Built | Trouble:
    """The environment of that name, once it can be used. `made_for_it`: for a Function's own requirements."""
    if not name:
        return Built()
    if found is None:
        if made_for_it:
            return Trouble("EnvironmentNotReady", f'Environment "{name}" is being made', waiting=True)
        return Trouble("EnvironmentNotFound", f'there is no Environment "{name}" in namespace "{namespace}"')
    hashed, ready = environment_hash(found.spec), condition(found.status.conditions, READY)
    if hashed == PLAIN:
        return Built(name)
    if found.status.hash == hashed and ready is not None and ready.status == "True":
        return Built(name, hashed, found.spec.image)
    if found.status.hash == hashed and ready is not None and ready.reason == "BuildFailed":
        return Trouble("BuildFailed", f'Environment "{name}": {ready.message}')
    return Trouble("EnvironmentNotReady", f'Environment "{name}" is being built', waiting=True)


def shape(
    built: Built, resources: ResourceRequirements, node_selector: dict[str, str] | None = None, account: str = ""
) -> str:
    made_of = [built.hash, built.image, msgspec.to_builtins(resources), node_selector or {}, account]
    return hashlib.sha256(msgspec.json.encode(made_of, order="deterministic")).hexdigest()[:10]


def usual_shape(built: Built) -> str:
    """Of functions that ask for nothing particular: that of pods that wait in a pool."""
    return shape(built, msgspec.convert(DEFAULT_RESOURCES, ResourceRequirements))


def spec_of(function: Function, code: Code, built: Built, number: int) -> FunctionRevisionSpec:
    spec = function.spec
    return FunctionRevisionSpec(
        function=function.metadata.name, number=number, code=code, handler=spec.handler, env=spec.env,
        concurrency=spec.concurrency, workers=spec.workers, timeoutSeconds=spec.timeoutSeconds,
        maxBodyBytes=spec.maxBodyBytes, invokes=spec.invokes, environment=built.name, environmentHash=built.hash,
        image=built.image, resources=spec.resources, nodeSelector=spec.nodeSelector,
        serviceAccountName=spec.serviceAccountName, isolation=spec.isolation,
        shape=shape(built, spec.resources, spec.nodeSelector, spec.serviceAccountName),
    )  # fmt: skip


def same(one: FunctionRevisionSpec, other: FunctionRevisionSpec) -> bool:
    return replace(one, number=0) == replace(other, number=0)


def name_of(function: str, number: int) -> str:
    return f"{function}-{number:05d}"


def settings(revision: FunctionRevision, env: dict[str, str]) -> Json:
    """What a runtime is told when it loads the revision; `env` with all references followed."""
    spec = revision.spec
    return {
        "revision": revision.metadata.name, "revisionUid": revision.metadata.uid,
        "function": spec.function, "namespace": revision.metadata.namespace,
        "handler": spec.handler, "env": env, "concurrency": spec.concurrency, "workers": spec.workers,
        "timeoutSeconds": spec.timeoutSeconds, "maxBodyBytes": spec.maxBodyBytes, "invokes": list(spec.invokes),
        "tenant": f"{revision.metadata.namespace}/{spec.crowd}",
    }  # fmt: skip


# -- which revisions are called


def is_ready(revision: FunctionRevision) -> bool:
    return is_true(revision.status.conditions, READY)


def undecided(revision: FunctionRevision) -> bool:
    """Whether no pod has told yet whether it can be loaded."""
    found = condition(revision.status.conditions, READY)
    return found is None or found.status == "Unknown"


def traffic(wanted: Sequence[Share], history: Sequence[FunctionRevision], known: Sequence[Share]) -> tuple[Share, ...]:
    """Shares of 100 together, of ready revisions alone: as wanted; else as they were; else all to the newest.

    `history` is in order, the newest last; () when none is ready.
    """
    ready = [revision.metadata.name for revision in history if is_ready(revision)]
    if not ready:
        return ()
    if not wanted:
        return (Share(ready[-1], 100),)
    for shares in (wanted, known):
        usable = [share for share in shares if share.revision in ready and share.percent > 0]
        if usable:
            return _hundred(usable)
    return (Share(ready[-1], 100),)


def _hundred(shares: Sequence[Share]) -> tuple[Share, ...]:
    """The same proportions, whole numbers that are 100 together (largest remainders first)."""
    total = sum(share.percent for share in shares)
    cut = [share.percent * 100 // total for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda at: -(shares[at].percent * 100 % total))
    for at in by_remainder[: 100 - sum(cut)]:
        cut[at] += 1
    return tuple(Share(share.revision, percent) for share, percent in zip(shares, cut, strict=True))


def superfluous(history: Sequence[FunctionRevision], limit: int, shares: Collection[Share]) -> list[FunctionRevision]:
    """The oldest beyond `limit`; never the newest, the newest that is ready, or one that calls may go to."""
    kept = {share.revision for share in shares} | {revision.metadata.name for revision in history[-1:]}
    kept |= {revision.metadata.name for revision in [each for each in history if is_ready(each)][-1:]}
    return [revision for revision in history[: max(0, len(history) - limit)] if revision.metadata.name not in kept]


# -- what the Function says


def ready_condition(latest: FunctionRevision | None, trouble: Trouble | None, stuck: str = "") -> Condition:
    """Whether the Function as it is now can be called. `stuck`: why no pod of it starts."""
    if trouble is not None:
        status = "Unknown" if trouble.waiting else "False"
        return Condition(type=READY, status=status, reason=trouble.reason, message=trouble.message)
    if latest is None:
        return Condition(type=READY, status="Unknown", reason="Loading", message="the first revision is being made")
    found = condition(latest.status.conditions, READY)
    name = latest.metadata.name
    if found is not None and found.status == "True":
        return Condition(type=READY, status="True", reason=found.reason, message=f"{name} is loaded")
    if found is not None and found.status == "False":
        return Condition(type=READY, status="False", reason=found.reason, message=f"{name}: {found.message}")
    if stuck:
        return Condition(type=READY, status="False", reason="PodNotStarting", message=f"{name}: {stuck}")
    if found is not None and found.reason:
        return Condition(type=READY, status="Unknown", reason=found.reason, message=f"{name}: {found.message}")
    return Condition(type=READY, status="Unknown", reason="Loading", message=f"{name} waits to be loaded into a pod")
