"""What to do about one environment, out of what is seen of its builds. Pure.

The first build goes wherever the scheduler likes, and decides whether the environment is good. Later ones follow pods
that need it to their nodes. A Job that has ended well is written down in the status and taken away; one that failed
stays for a while, so that people can look at it, and is then tried anew.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from minik8s.api.kinds.environment import PLAIN, EnvironmentStatus

RETRY = 120.0  # seconds after which a failed build is tried again: an index may have been away
TOLD_LINES = 12  # of pip's output in the condition


@dataclass(frozen=True)
class Build:
    """A Job as it is seen. `node`: which it was made for, "" for the first; `ran_on`: where its pod was."""

    name: str
    hash: str
    node: str
    state: str  # Running | Complete | Failed
    ran_on: str = ""
    said: str = ""  # the last word of its pod
    ended: float = 0.0  # Unix seconds


@dataclass(frozen=True)
class Verdict:
    nodes: tuple[str, ...] = ()
    installed: tuple[str, ...] = ()
    status: str = "Unknown"
    reason: str = ""
    message: str = ""
    build: tuple[str, ...] = ()  # nodes to make Jobs for; "" for the first
    remove: tuple[str, ...] = ()  # Jobs that have served
    failures: tuple[Build, ...] = field(default=())  # to be told
    again: float | None = None  # seconds after which to look again


def decide(
    hashed: str, before: EnvironmentStatus, builds: Sequence[Build], needed: Collection[str], lost: Collection[str],
    exist: Collection[str], now: float,
) -> Verdict:  # fmt: skip
    """`needed`: nodes with pods that mount it; `lost`: those of them where it should be, and pods wait in vain."""
    if hashed == PLAIN:
        old = tuple(build.name for build in builds)
        return Verdict(status="True", reason="Built", message="there is nothing to build", remove=old)
    current = before.hash == hashed
    nodes = {node for node in before.nodes if node in exist and node not in lost} if current else set()
    installed = before.installed if current else ()
    remove = [build.name for build in builds if build.hash != hashed]
    mine = [build for build in builds if build.hash == hashed]
    for build in mine:
        if build.state == "Complete":
            nodes |= {build.ran_on or build.node} - {""}
            installed = installed or tuple(build.said.split("\n") if build.said else ())
            remove.append(build.name)
        elif build.state == "Failed" and now >= build.ended + RETRY:
            remove.append(build.name)
    failed = [build for build in mine if build.state == "Failed"]
    going = {build.node for build in mine if build.state != "Complete"}
    if nodes:
        wanted = set(needed) & set(exist) - nodes - going
        status, reason, message = "True", "Built", f"on {', '.join(sorted(nodes))}"
    else:
        wanted = set() if mine else {""}
        status, reason, message = _unbuilt(failed, mine)
    waits = [build.ended + RETRY - now for build in failed if now < build.ended + RETRY]
    return Verdict(
        nodes=tuple(sorted(nodes)), installed=installed, status=status, reason=reason, message=message,
        build=tuple(sorted(wanted)), remove=tuple(remove), failures=tuple(failed), again=min(waits, default=None),
    )  # fmt: skip


def _unbuilt(failed: Sequence[Build], mine: Sequence[Build]) -> tuple[str, str, str]:
    if failed and len(failed) == len(mine):
        return "False", "BuildFailed", last_lines(failed[0].said) or "the build failed and said nothing"
    return "False", "Building", "what is required is being installed"


def last_lines(text: str) -> str:
    """The end of pip's output, without advice on upgrading, and without each of its attempts at a lost network."""
    lines = [line for line in text.strip().splitlines() if line.strip() and not line.startswith("[notice]")]
    retries = [line for line in lines if line.startswith("WARNING: Retrying")]
    return "\n".join([line for line in lines if line not in retries[:-1]][-TOLD_LINES:])
