"""Docker drops forwarded packets that are not its own; this lets those of pods through.

dockerd sets the policy of iptables' FORWARD to DROP. An accept elsewhere (in a table of nftables) does not overrule
it, so a chain of ours is jumped to from DOCKER-USER, which Docker keeps for its users and does not touch when it
restarts; from FORWARD itself where there is no Docker but somebody else's rules.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from minik8s.net.base import NetworkError
from minik8s.net.nft import MASQUERADE

CHAIN = "MINIK8S-FORWARD"


def plan(listing: Sequence[str], links: str) -> list[list[str]]:
    """iptables commands, as argument lists, that are missing in `iptables -S`. `links` as "mk8s+"."""
    if not _is_needed(listing):
        return []
    home = "DOCKER-USER" if "-N DOCKER-USER" in listing else "FORWARD"
    rules = [
        f"-A {CHAIN} -i {links} -j ACCEPT",
        f"-A {CHAIN} -o {links} -j ACCEPT",
        # Who comes to a node port from outside may be led on to another node of the same subnet, by the same link.
        f"-A {CHAIN} -m mark --mark {MASQUERADE:#x}/{MASQUERADE:#x} -j ACCEPT",
        f"-A {CHAIN} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    ]
    commands: list[list[str]] = []
    if f"-N {CHAIN}" not in listing:
        commands.append(["-N", CHAIN])
    if [line for line in listing if line.startswith(f"-A {CHAIN} ")] != rules:
        commands += [["-F", CHAIN], *(rule.split() for rule in rules)]
    first = next((line for line in listing if line.startswith(f"-A {home} ")), "")
    if first != f"-A {home} -j {CHAIN}":
        commands += [["-D", home, "-j", CHAIN]] * listing.count(f"-A {home} -j {CHAIN}")
        commands.append(["-I", home, "-j", CHAIN])
    return commands


def plan_removal(listing: Sequence[str]) -> list[list[str]]:
    """Commands that take back everything `plan` made."""
    jumps = [["-D", *line.split()[1:]] for line in listing if line.startswith("-A ") and line.endswith(f" -j {CHAIN}")]
    return [*jumps, ["-F", CHAIN], ["-X", CHAIN]] if f"-N {CHAIN}" in listing else jumps


def _is_needed(listing: Sequence[str]) -> bool:
    """Not on a host whose FORWARD lets everything through: nothing is made there that would have to be removed."""
    return "-P FORWARD ACCEPT" not in listing or any(line.startswith("-A FORWARD ") for line in listing)


async def ensure(links: str) -> None:
    """Idempotent; to be called again when rules have changed."""
    await _run_all(plan(await _listing(), links))


async def remove() -> None:
    await _run_all(plan_removal(await _listing()))


async def _listing() -> list[str]:
    try:
        return (await _iptables("-S")).splitlines()
    except FileNotFoundError:
        return ["-P FORWARD ACCEPT"]  # without iptables there is no Docker whose rules could be in the way


async def _run_all(commands: Sequence[Sequence[str]]) -> None:
    for command in commands:
        await _iptables(*command)


async def _iptables(*arguments: str) -> str:
    """Whichever variant (legacy or nf_tables) `iptables` is, dockerd uses the same."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("iptables", "-w", "5", *arguments, stdout=pipe, stderr=pipe)
    output, errors = await process.communicate()
    if process.returncode:
        reason = errors.decode(errors="replace").strip()
        raise NetworkError(f"iptables {' '.join(arguments)} failed: {reason}")
    return output.decode()
