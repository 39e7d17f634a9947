"""`func traffic` and `func rollback`: which revisions answer, and how often. Nothing is started or stopped for it."""

from __future__ import annotations

from typing import Any

import click

from minik8s.cli.connection import Cluster
from minik8s.cli.func import condition, fetch, path_of, print_revisions, revisions
from minik8s.cli.verb import complete_functions, verb
from minik8s.cli.wire import MERGE

Json = dict[str, Any]


@verb()
@click.argument("name", shell_complete=complete_functions)
@click.argument("shares", metavar="[REVISION=PERCENT]...", nargs=-1)
@click.option("--latest", is_flag=True, help="All to the newest that loads, as it is without shares.")
def traffic(cluster: Cluster, name: str, shares: tuple[str, ...], latest: bool) -> None:
    """Share calls among revisions: func traffic hello 1=90 2=10; without shares tell how it is."""
    if latest and shares:
        raise click.ClickException("give shares or --latest, not both")
    found = fetch(cluster, name)
    if not latest and not shares:
        print_revisions(cluster, name, found.get("status") or {})
        return
    wanted = []
    for share in shares:
        word, equals, percent = share.partition("=")
        if not equals or not percent.rstrip("%").isdecimal():
            raise click.ClickException(f'"{share}" is no share: write REVISION=PERCENT, e.g. 2=10')
        wanted.append({"revision": _revision(cluster, name, word), "percent": int(percent.rstrip("%"))})
    _set_traffic(cluster, name, wanted)


@verb()
@click.argument("name", shell_complete=complete_functions)
@click.option("--to", default="", help="Number or name of the revision (default: the one before what serves now).")
def rollback(cluster: Cluster, name: str, to: str) -> None:
    """Let an older revision answer all calls, at once: nothing is started, nothing is lost."""
    found = fetch(cluster, name)
    if to:
        target = _revision(cluster, name, to)
    else:
        serving = {share["revision"] for share in (found.get("status") or {}).get("traffic") or () if share["percent"]}
        every = revisions(cluster, name)
        first = next((at for at, each in enumerate(every) if each["metadata"]["name"] in serving), len(every))
        loaded = [each for each in every[:first] if condition(each.get("status") or {}).get("status") == "True"]
        good = [each["metadata"]["name"] for each in loaded]
        if not good:
            raise click.ClickException(
                f"{name} has no older revision that was loaded: minik8s func get {name} lists them"
            )
        target = good[-1]
    _set_traffic(cluster, name, [{"revision": target, "percent": 100}])


def _revision(cluster: Cluster, name: str, word: str) -> str:
    """The name of the revision that a number or a name means. It must be there, and not be known to have a fault: such
    a one gets no calls, whatever its share."""
    from minik8s.cli import unknown

    known = {each["metadata"]["name"]: condition(each.get("status") or {}) for each in revisions(cluster, name)}
    wanted = f"{name}-{int(word):05d}" if word.isdecimal() else word
    if wanted not in known:
        names = list(known)
        raise click.ClickException(f"{unknown('revision', wanted, names)}; {name} has: {', '.join(names) or 'none'}")
    if known[wanted].get("status") == "False":
        why = known[wanted].get("reason")
        raise click.ClickException(f"{wanted} cannot answer calls ({why}): see minik8s func get {name}")
    return wanted


def _set_traffic(cluster: Cluster, name: str, shares: list[Json]) -> None:
    cluster.wire.send("PATCH", path_of(cluster, name), {"spec": {"traffic": shares}}, content_type=MERGE)
    told = ", ".join(f"{share['revision']} {share['percent']}%" for share in shares) or "the newest that loads"
    click.echo(f"function.faas.minik8s.io/{name} traffic: {told}")
