"""Functions called: `func invoke`; what they print (`logs`), what was called (`calls`), what never worked (`dlq`)."""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import click

from minik8s.api.errors import NotFound, StatusError
from minik8s.cli.connection import Cluster
from minik8s.cli.func import fetch, path_of
from minik8s.cli.printing import Layout, cell_text, dump, echo
from minik8s.cli.trigger import GATEWAY_OPTION, payload
from minik8s.cli.verb import Verb, complete_functions, duration, explain, verb
from minik8s.cli.wire import Unreachable

Json = dict[str, Any]
LABEL = "faas.minik8s.io/function"
ENDED = ("Succeeded", "Failed", "DeadLetter")
LOOK = 0.5  # seconds between two looks at what goes on elsewhere
PAGE = 500
FORMATS = click.Choice(["table", "json", "yaml"])


@verb()
@click.argument("name", shell_complete=complete_functions)
@click.option("-d", "--data", help="Body: JSON, @FILE, or - for standard input.")
@click.option("-X", "--method", default="", help="HTTP method (default: POST with -d, else GET).")
@click.option("-p", "--path", "rest", default="", help="What follows behind the function's address: /items/7?full=1")
@click.option("-H", "--header", "headers", multiple=True, help="Header 'NAME: VALUE'; repeatable.")
@click.option("-i", "--include", is_flag=True, help="Print the answer's status and headers, too (to standard error).")
@click.option("--async", "later", is_flag=True, help="Queue it: it is done at least once, whatever happens.")
@click.option("--key", default="", help="With --async: idempotency key; the same key is one call.")
@click.option("-w", "--watch", is_flag=True, help="With --async: wait for its end and print its result.")
@click.option("--timeout", default="16m", help="How long to wait for an answer.")
@GATEWAY_OPTION
def invoke(
    cluster: Cluster, name: str, data: str | None, method: str, rest: str, headers: tuple[str, ...], include: bool,
    later: bool, key: str, watch: bool, timeout: str, gateway: str,
) -> None:  # fmt: skip
    """Call a function as any HTTP client does, or --async: later, by the queue."""
    from minik8s.cli import gateway as calling

    if (watch or key) and not later:
        raise click.ClickException(f"--{'watch' if watch else 'key'} is for calls that are queued: add --async")
    body, kind = payload(data)
    sent = {"Content-Type": kind} if kind else {}
    for header in headers:
        title, colon, value = header.partition(":")
        if not colon or not title.strip():
            raise click.ClickException(f'-H "{header}" is no header: write NAME: VALUE')
        sent[title.strip()] = value.strip()
    if rest and rest[0] not in "/?":
        rest = f"/{rest}"
    if later:
        sent |= {"Prefer": "respond-async"} | ({"Idempotency-Key": key} if key else {})
    response = calling.open_call(
        cluster, name, body, sent, method=(method or ("GET" if data is None and not later else "POST")).upper(),
        rest=rest, gateway=gateway, timeout=duration(timeout),
    )  # fmt: skip
    if response.status == 404 and response.headers.get("Minik8s-Error") == "NotFound":
        fetch(cluster, name)
    if not later or response.status != 202:
        calling.finish(response, name, headers=include)
        return
    id = json.loads(response.read())["id"]
    if not watch:
        click.echo(id)
        return
    click.echo(f"call {id} is queued", err=True)
    _result(_await(cluster, name, id, duration(timeout)), name)


def _await(cluster: Cluster, name: str, id: str, seconds: float) -> Json:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(Unreachable, OSError):
            call = cluster.wire.get(path_of(cluster, name, f"calls/{quote(id, safe='')}"))
            if (call.get("status") or {}).get("phase") in ENDED:
                return call
        time.sleep(LOOK)
    raise click.ClickException(f"call {id} has not ended within {seconds:g} s: see minik8s func calls {name} {id}")


def _result(call: Json, name: str) -> None:
    """Print what a queued call has brought; a failure is exit code 5."""
    status = call.get("status") or {}
    body = status.get("body")
    if status.get("phase") == "Succeeded":
        if "bodyBase64" in status:
            import base64

            sys.stdout.buffer.write(base64.b64decode(status["bodyBase64"]))
        elif body is not None:
            echo((body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)) + "\n")
        return
    why = ": ".join(str(status[key]) for key in ("error", "cause") if status.get(key))
    ended = f"{status.get('phase')} after {status.get('attempts')} attempts" + (f": {why}" if why else "")
    click.echo(f"{click.style('error:', fg='red')} {name}: {ended}", err=True)
    raise SystemExit(5)


# -- logs


@verb()
@click.argument("name", shell_complete=complete_functions)
@click.option("-f", "--follow", is_flag=True, help="Go on printing, of pods that come later, too.")
@click.option("--call", default="", help="Only what one call has printed, by its id.")
@click.option("--tail", type=int, default=-1, help="Only that many lines from the end, of each pod.")
@click.option("--since", default="", help="Only what is younger: 5s, 2m, 3h.")
@click.option("--prefix", is_flag=True, help="Begin lines with the pod's name.")
def logs(cluster: Cluster, name: str, follow: bool, call: str, tail: int, since: str, prefix: bool) -> None:
    """Print what a function has printed, in all of its pods that are there."""
    fetch(cluster, name)
    query = {"follow": "true"} if follow else {}
    query |= {"tailLines": str(tail)} if tail >= 0 else {}
    query |= {"sinceSeconds": str(max(1, round(duration(since))))} if since else {}
    lines: queue.SimpleQueue[tuple[str, bytes] | None] = queue.SimpleQueue()
    threading.Thread(target=_read_pods, args=(cluster, name, query, follow, lines), daemon=True).start()
    mark, printed = f"[{call}] ".encode(), 0
    while (item := lines.get()) is not None:
        pod, line = item
        if call and not line.startswith(mark):
            continue
        sys.stdout.buffer.write((f"[{pod}] ".encode() if prefix else b"") + line)
        sys.stdout.buffer.flush()
        printed += 1
    if not printed:
        what = f"call {call} has printed nothing that is still there" if call else "nothing is printed in its pods"
        click.echo(f"{name}: {what}", err=True)


def _read_pods(cluster: Cluster, name: str, query: dict[str, str], follow: bool, lines: Any) -> None:
    """Put lines of all pods into the queue, and None at the end. Each pod has a thread while it is followed."""
    threads: dict[str, threading.Thread] = {}
    try:
        while True:
            for pod in _pods(cluster, name):
                if pod not in threads:
                    threads[pod] = threading.Thread(target=_read_pod, args=(cluster, pod, query, lines), daemon=True)
                    threads[pod].start()
            if not follow:
                break
            time.sleep(LOOK)
        for thread in threads.values():
            thread.join()
    except (StatusError, click.ClickException) as error:
        click.echo(f"error: {error}", err=True)
    finally:
        lines.put(None)


def _pods(cluster: Cluster, name: str) -> Iterator[str]:
    path = f"/api/v1/namespaces/{quote(cluster.namespace, safe='')}/pods"
    for pod in Cluster(cluster.choice).wire.get(path, {"labelSelector": f"{LABEL}={name}"})["items"]:
        if (pod.get("status") or {}).get("phase") != "Pending":
            yield pod["metadata"]["name"]


def _read_pod(cluster: Cluster, pod: str, query: dict[str, str], lines: Any) -> None:
    path = f"/api/v1/namespaces/{quote(cluster.namespace, safe='')}/pods/{quote(pod, safe='')}/log"
    try:
        with Cluster(cluster.choice).wire.stream(path, query, accept="*/*") as response:
            while line := response.readline():
                lines.put((pod, line if line.endswith(b"\n") else line + b"\n"))
    except NotFound:
        return  # it went meanwhile
    except StatusError as error:
        click.echo(explain(error), err=True)
    except OSError as error:
        click.echo(f"error: the log of {pod} broke off: {error}", err=True)


# -- calls and dead letters


@verb()
@click.argument("name", shell_complete=complete_functions)
@click.argument("id", required=False)
@click.option("-o", "--output", type=FORMATS, default="table")
def calls(cluster: Cluster, name: str, id: str | None, output: str) -> None:
    """List the latest calls of a function; with ID tell how a queued one stands, and its result."""
    fetch(cluster, name)
    found = cluster.wire.get(path_of(cluster, name, f"calls/{quote(id, safe='')}" if id else "calls"))
    if output != "table":
        echo(dump(found, output))
        return
    if id:
        for key, value in (found.get("status") or {}).items():
            shown = value if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)
            click.echo(f"{key + ':':<17}{shown}")
        return
    rows = [["TIME", "ID", "REVISION", "STATUS", "SECONDS", "COLD", "CALLER", "ERROR"]]
    for each in found.get("items") or ():
        seconds = each.get("seconds")
        told = f"{seconds:.4f}" if isinstance(seconds, int | float) else ""
        cells = [each.get("time"), each.get("id"), each.get("revision"), each.get("status"), told, each.get("cold"),
                 each.get("parent"), each.get("error")]  # fmt: skip
        rows.append(["" if cell in (None, "") else cell_text(cell) for cell in cells])
    _table(rows, f"No calls of {name} are remembered.")


@click.group()
def dlq() -> None:
    """Queued calls that were given up: dead letters."""


def _letters(name: str) -> Callable[[Callable[..., Any]], Verb]:
    def decorate(function: Callable[..., Any]) -> Verb:
        made = verb(name)(function)
        dlq.add_command(made)
        return made

    return decorate


def _dead(cluster: Cluster, name: str) -> Iterator[Json]:
    query = {"limit": str(PAGE)}
    while True:
        page = cluster.wire.get(path_of(cluster, name, "deadletters"), query)
        yield from page["items"]
        following = (page.get("metadata") or {}).get("continue")
        if not following:
            return
        query["continue"] = following


@_letters("list")
@click.argument("name", shell_complete=complete_functions)
@click.option("-o", "--output", type=FORMATS, default="table")
def list_(cluster: Cluster, name: str, output: str) -> None:
    """List the dead letters of a function."""
    fetch(cluster, name)
    found = list(_dead(cluster, name))
    if output != "table":
        echo(dump(found, output))
        return
    rows = [["ID", "ACCEPTED", "ATTEMPTS", "ERROR", "CAUSE"]]
    for each in found:
        status = each.get("status") or {}
        cells = [each["metadata"]["name"], status.get("acceptedTime"), status.get("attempts"), status.get("error"),
                 status.get("cause")]  # fmt: skip
        rows.append(["" if cell in (None, "") else cell_text(cell)[:120] for cell in cells])
    _table(rows, f"{name} has no dead letters.")


@_letters("redrive")
@click.argument("name", shell_complete=complete_functions)
@click.argument("ids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them.")
def redrive(cluster: Cluster, name: str, ids: tuple[str, ...], everything: bool) -> None:
    """Queue dead letters again: by their ids, or --all."""
    _one_of(ids, everything=everything)
    fetch(cluster, name)
    done = cluster.wire.send("POST", path_of(cluster, name, "deadletters"), {"ids": list(ids)} if ids else {})
    click.echo(f"{done['redriven']} calls of {name} queued again")


@_letters("purge")
@click.argument("name", shell_complete=complete_functions)
@click.argument("ids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them.")
def purge(cluster: Cluster, name: str, ids: tuple[str, ...], everything: bool) -> None:
    """Forget dead letters: by their ids, or --all."""
    _one_of(ids, everything=everything)
    fetch(cluster, name)
    query = {"id": ",".join(ids)} if ids else None
    done = json.loads(cluster.wire.call("DELETE", path_of(cluster, name, "deadletters"), query))
    click.echo(f"{done['purged']} dead letters of {name} forgotten")


def _one_of(ids: tuple[str, ...], *, everything: bool) -> None:
    if bool(ids) == everything:
        raise click.ClickException("name the dead letters by their ids, or take --all")


def _table(rows: list[list[str]], none: str) -> None:
    if len(rows) == 1:
        click.echo(none, err=True)
        return
    echo(Layout().lines(rows, heading=True))
