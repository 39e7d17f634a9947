"""`delete`: by name, label or file; and then wait until it is true."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click

from minik8s.api.errors import Gone, NotFound, StatusError
from minik8s.cli import targets
from minik8s.cli.connection import Cluster
from minik8s.cli.printing import echo
from minik8s.cli.targets import Target
from minik8s.cli.verb import (
    Bare,
    Failures,
    all_namespaces_option,
    complete_targets,
    dry_run_option,
    duration,
    explain,
    fields_option,
    files_option,
    recursive_option,
    selector_option,
    verb,
)  # fmt: skip
from minik8s.cli.write import list_of

PROPAGATION = {"background": "Background", "orphan": "Orphan", "foreground": "Foreground"}
ALIASES = {"true": "background", "false": "orphan"}
Json = dict[str, Any]


@verb()
@click.argument("words", metavar="KIND [NAME]...", nargs=-1, shell_complete=complete_targets)
@files_option
@recursive_option
@selector_option
@fields_option
@all_namespaces_option
@click.option("--all", "everything", is_flag=True, help="All objects of the kind.")
@click.option("--grace-period", type=int, default=-1, help="Seconds that pods are given to end.")
@click.option("--now", is_flag=True, help="One second of grace.")
@click.option("--force", is_flag=True, help="With --grace-period=0: without waiting for the node.")
@click.option("--cascade", cls=Bare, bare="background", default="background",
              type=click.Choice([*PROPAGATION, *ALIASES]), help="What becomes of what it owns.")  # fmt: skip
@click.option("--wait/--no-wait", default=True, help="Wait until it is gone.")
@click.option("--timeout", default="0s", help="How long to wait; 0s: for ever.")
@click.option("--ignore-not-found", is_flag=True, help="Missing objects are no error.")
@click.option("-o", "--output", type=click.Choice(["", "name"]), default="", help="name")
@dry_run_option
def delete(cluster: Cluster, words: tuple[str, ...], **options: Any) -> None:
    """Delete objects: delete pod web-0, delete deploy/web svc/web, delete -f web.yaml, delete pods -l app=web."""
    wanted = _wanted(cluster, words, options)
    body = delete_options(options)
    if body.get("gracePeriodSeconds") == 0 and options["force"]:
        click.echo(
            f"{click.style('Warning:', fg='yellow')} nobody waits for the containers to end: they may go on running "
            "on the node for a while", err=True,
        )  # fmt: skip
    failures, gone = Failures(), []
    for target in wanted:
        try:
            if options["dry_run"] == "client":
                cluster.wire.get(target.path)
            else:
                query = {"dryRun": "All"} if options["dry_run"] == "server" else {}
                answer = cluster.wire.send("DELETE", target.path, body, query)
                gone.append((target, answer))
        except NotFound as error:
            if not options["ignore_not_found"]:
                failures.add(explain(error))
            continue
        except StatusError as error:
            failures.add(explain(error))
            continue
        echo(_said(target, options))
    if not wanted and not options["ignore_not_found"]:
        click.echo("No resources found", err=True)
    if options["wait"] and options["dry_run"] == "none":
        deadline = time.monotonic() + (duration(options["timeout"]) or float("inf"))
        for target, answer in gone:
            await_gone(cluster, target, _uid(answer), deadline)
    failures.finish()


def delete_options(options: dict[str, Any]) -> Json:
    """The body of the DELETE. --force alone means no grace, as in kubectl."""
    cascade = ALIASES.get(options["cascade"], options["cascade"])
    body: Json = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": PROPAGATION[cascade]}
    grace = options["grace_period"]
    if options["now"]:
        grace = 1
    elif options["force"] and grace < 0:
        grace = 0
    elif grace == 0 and not options["force"]:
        grace = 1  # zero leaves containers running unseen; that needs --force
    if grace >= 0:
        body["gracePeriodSeconds"] = grace
    return body


def _wanted(cluster: Cluster, words: Sequence[str], options: dict[str, Any]) -> list[Target]:
    selecting = options["selector"] or options["field_selector"] or options["everything"]
    found = targets.parse(cluster, words, everywhere=options["all_namespaces"])
    if any(not target.name for target in found):
        if not selecting:
            raise click.ClickException("name the objects, or select them with -l, or take --all")
        return list_of(cluster, found, options["selector"], options["field_selector"])
    if found and selecting:
        raise click.ClickException("names cannot be given together with -l, --field-selector or --all")
    if options["filenames"]:
        found += targets.from_files(cluster, options["filenames"], recursive=options["recursive"])
    elif not words:
        raise click.ClickException("say what to delete: KIND NAME, or -f FILE")
    return found


def _said(target: Target, options: dict[str, Any]) -> str:
    if options["output"] == "name":
        return f"{target.text}\n"
    dry = {"server": " (server dry run)", "client": " (dry run)"}.get(options["dry_run"], "")
    where = f" from {target.namespace} namespace" if target.namespace else ""
    return f"{target.quoted} {'force ' if options['force'] else ''}deleted{where}{dry}\n"


def _uid(answer: Json) -> str:
    """Of the object that was deleted: the answer is it, or a Status about it."""
    return str((answer.get("details") or answer.get("metadata") or {}).get("uid", ""))


def delete_and_wait(cluster: Cluster, target: Target, body: Json) -> None:
    try:
        answer = cluster.wire.send("DELETE", target.path, body)
    except NotFound:
        return
    await_gone(cluster, target, _uid(answer), float("inf"))


def await_gone(cluster: Cluster, target: Target, uid: str, deadline: float) -> None:
    """Return when the object of that uid is no more. A ClickException when the deadline passes first."""
    while True:
        try:
            live = cluster.wire.get(target.path)
        except NotFound:
            return
        if uid and live["metadata"]["uid"] != uid:
            return  # another one bears the name now
        try:
            if _see_deleted(cluster, target, live, deadline):
                return
        except TimeoutError:
            raise click.ClickException(f"timed out waiting until {target.text} is gone") from None
        except Gone:
            pass
        time.sleep(0.1)


def _see_deleted(cluster: Cluster, target: Target, live: Json, deadline: float) -> bool:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    query = {
        "fieldSelector": f"metadata.name={target.name}",
        "resourceVersion": live["metadata"]["resourceVersion"],
        **({"timeoutSeconds": str(max(int(left), 1))} if left != float("inf") else {}),
    }
    timeout = None if left == float("inf") else left
    events = cluster.wire.events(target.kind.path(target.namespace), query, timeout=timeout)
    return any(event["type"] == "DELETED" for event in events)
