"""Verbs that carry bytes to and from containers: logs, exec, attach, port-forward."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Sequence
from typing import Any

import click

from minik8s.api.errors import StatusError
from minik8s.cli import targets
from minik8s.cli.connection import Cluster
from minik8s.cli.lifecycle import data_dir_option
from minik8s.cli.printing import echo
from minik8s.cli.verb import Failures, complete_pods, duration, explain, selector_option, verb

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
MAX_FOLLOWED = 5  # logs followed at once; as kubectl
LEVELS = ("debug", "info", "warning", "error")
Json = dict[str, Any]


def pods_of(cluster: Cluster, word: str) -> list[Json]:
    """The pods that `NAME`, `pod/NAME` or `deploy/NAME` (by its selector) mean; running ones first."""
    (target,) = targets.of_one_kind(cluster, [word], "pods")
    obj = cluster.wire.get(target.path)
    if target.kind.plural == "pods":
        return [obj]
    selector = (obj.get("spec") or {}).get("selector")
    if not selector:
        raise click.ClickException(f"{target.text} selects no pods: name a pod")
    query = {"labelSelector": _selector_text(selector)}
    found: list[Json] = cluster.wire.get(cluster.kinds.find("pods.v1.").path(target.namespace), query)["items"]
    if not found:
        raise click.ClickException(f"{target.text} has no pods yet")
    found.sort(key=lambda pod: ((pod.get("status") or {}).get("phase") != "Running", pod["metadata"]["name"]))
    if len(found) > 1:
        click.echo(f"Found {len(found)} pods, using pod/{found[0]['metadata']['name']}", err=True)
    return found


def _selector_text(selector: Json) -> str:
    if "matchLabels" not in selector and "matchExpressions" not in selector:
        return ",".join(f"{key}={value}" for key, value in selector.items())  # a Service's
    from minik8s.api.kinds.columns import selector_text

    return selector_text(selector)


def container_of(pod: Json, wanted: str, *, quiet: bool = False) -> str:
    """The container to use, which must exist; the first one if none is asked for."""
    spec, meta = pod["spec"], pod["metadata"]
    names = [c["name"] for c in spec["containers"]]
    every = [c["name"] for key in ("initContainers", "containers", "ephemeralContainers") for c in spec.get(key) or ()]
    if wanted:
        if wanted not in every:
            from minik8s.cli import unknown

            raise click.ClickException(
                f"{unknown('container', wanted, every)}; pod {meta['name']} has: {', '.join(every)}"
            )
        return wanted
    chosen = str((meta.get("annotations") or {}).get(DEFAULT_CONTAINER, ""))
    if chosen in names:
        return chosen
    if len(names) > 1 and not quiet:
        click.echo(f'Defaulted container "{names[0]}" out of: {", ".join(names)}', err=True)
    return str(names[0])


# -- logs


@verb()
@click.argument("pod", metavar="POD|KIND/NAME", required=False, shell_complete=complete_pods)
@click.argument("container_word", metavar="[CONTAINER]", required=False)
@click.option("-c", "--container", default="", help="Which container.")
@click.option("-f", "--follow", is_flag=True, help="Go on printing as it is written.")
@click.option("-p", "--previous", is_flag=True, help="Of the container before its last restart.")
@click.option("--tail", type=int, default=None, help="Only that many lines from the end.")
@click.option("--since", default="", help="Only what is younger: 5s, 2m, 3h.")
@click.option("--since-time", default="", help="Only what is younger than an RFC 3339 time.")
@click.option("--timestamps", is_flag=True, help="With the time of each line.")
@click.option("--limit-bytes", type=click.IntRange(min=1), default=None, help="Stop after that many bytes.")
@click.option("--all-containers", is_flag=True, help="Of all containers.")
@click.option("--prefix", is_flag=True, help="Begin lines with pod and container.")
@click.option("--ignore-errors", is_flag=True, help="Go on when a log cannot be read.")
@click.option("--max-log-requests", type=int, default=MAX_FOLLOWED, help="Logs to follow at once.")
@click.option("--component", default="", help="Of a part of minik8s on this machine: kubelet, scheduler … or all.")
@click.option("--level", default="debug", type=click.Choice(LEVELS), help="Of minik8s: only that and what is worse.")
@data_dir_option
@selector_option
def logs(cluster: Cluster, pod: str | None, container_word: str | None, selector: str, **options: Any) -> None:
    """Print containers' logs: logs web-0, logs -f deploy/web -c nginx, logs -l app=web --prefix.

    With --component what minik8s itself says on this machine: logs --component kubelet -f, logs --component all.
    """
    if options["component"]:
        if pod or selector:
            raise click.ClickException("a component of minik8s is no pod: leave the pod out")
        from minik8s.cli.own_log import show

        show(
            options["component"], options["data_dir"], level=options["level"], follow=options["follow"],
            tail=options["tail"], since=duration(options["since"]) if options["since"] else None,
        )  # fmt: skip
        return
    if bool(pod) == bool(selector):
        raise click.ClickException("name a pod, or select pods with -l")
    if options["since"] and options["since_time"]:
        raise click.ClickException("give --since or --since-time, not both")
    kind = cluster.kinds.find("pods.v1.")
    if selector:
        pods = cluster.wire.get(kind.path(cluster.namespace), {"labelSelector": selector})["items"]
        if not pods:
            click.echo(f"No resources found in {cluster.namespace} namespace.", err=True)
    else:
        pods = pods_of(cluster, pod or "")[:1]
    query = _log_query(options, many=bool(selector))
    sources = []
    for found in pods:
        path = kind.path(cluster.namespace, found["metadata"]["name"], "log")
        for name in _logged(found, options, container_word or ""):
            head = f"[pod/{found['metadata']['name']}/{name}] " if options["prefix"] else ""
            sources.append((path, {**query, "container": name}, head))
    if options["follow"] and len(sources) > options["max_log_requests"]:
        raise click.ClickException(
            f"that are {len(sources)} logs to follow, more than {options['max_log_requests']}: raise --max-log-requests"
        )
    Logs(cluster, options["ignore_errors"]).run(sources, at_once=options["follow"])


def _logged(pod: Json, options: dict[str, Any], word: str) -> list[str]:
    if options["all_containers"]:
        spec = pod["spec"]
        return [
            c["name"] for key in ("initContainers", "containers", "ephemeralContainers") for c in spec.get(key) or ()
        ]
    return [container_of(pod, options["container"] or word)]


def _log_query(options: dict[str, Any], *, many: bool) -> dict[str, str]:
    query = {name: "true" for name in ("follow", "previous", "timestamps") if options[name]}
    tail = options["tail"] if options["tail"] is not None else (10 if many else None)
    if tail is not None and tail >= 0:
        query["tailLines"] = str(tail)
    if options["since"]:
        query["sinceSeconds"] = str(max(1, round(duration(options["since"]))))
    if options["since_time"]:
        query["sinceTime"] = options["since_time"]
    if options["limit_bytes"]:
        query["limitBytes"] = str(options["limit_bytes"])
    return query


class Logs:
    """Copies logs to standard output: one after the other, or all at once when they are followed."""

    def __init__(self, cluster: Cluster, ignore_errors: bool) -> None:
        self._wire = cluster.wire
        self._ignore_errors = ignore_errors
        self._failures = Failures()
        self._lock = threading.Lock()

    def run(self, sources: Sequence[tuple[str, dict[str, str], str]], *, at_once: bool) -> None:
        if at_once and len(sources) > 1:
            threads = [threading.Thread(target=self._copy, args=source, daemon=True) for source in sources]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        else:
            for source in sources:
                self._copy(*source)
        self._failures.finish()

    def _copy(self, path: str, query: dict[str, str], head: str) -> None:
        try:
            with self._wire.stream(path, query, accept="*/*") as response:
                while data := response.readline() if head else response.read1(65536):
                    with self._lock:
                        sys.stdout.buffer.write(head.encode() + data)
                        sys.stdout.buffer.flush()
        except StatusError as error:
            with self._lock:
                if self._ignore_errors:
                    click.echo(explain(error), err=True)
                else:
                    self._failures.add(explain(error))
        except ConnectionError as error:
            with self._lock:
                self._failures.add(f"error: the log broke off: {error}")


# -- exec and attach


@verb("exec")
@click.argument("pod", metavar="POD|KIND/NAME", shell_complete=complete_pods)
@click.argument("command", metavar="-- COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("-c", "--container", default="", help="Which container.")
@click.option("-i", "--stdin", is_flag=True, help="Send standard input.")
@click.option("-t", "--tty", is_flag=True, help="With a terminal.")
@click.option("-q", "--quiet", is_flag=True, help="Only what the command prints.")
def exec_(
    cluster: Cluster, pod: str, command: tuple[str, ...], container: str, stdin: bool, tty: bool, quiet: bool
) -> None:
    """Run a command in a container: exec web-0 -- ls /, exec -it deploy/web -c nginx -- sh."""
    _converse(cluster, pod, "exec", container, command, stdin=stdin, tty=tty, quiet=quiet)


@verb()
@click.argument("pod", metavar="POD|KIND/NAME", shell_complete=complete_pods)
@click.option("-c", "--container", default="", help="Which container.")
@click.option("-i", "--stdin", is_flag=True, help="Send standard input.")
@click.option("-t", "--tty", is_flag=True, help="With a terminal.")
@click.option("-q", "--quiet", is_flag=True, help="Only what the container prints.")
def attach(cluster: Cluster, pod: str, container: str, stdin: bool, tty: bool, quiet: bool) -> None:
    """Attach to the process of a running container."""
    _converse(cluster, pod, "attach", container, [], stdin=stdin, tty=tty, quiet=quiet)


def _converse(
    cluster: Cluster,
    word: str,
    how: str,
    container: str,
    command: Sequence[str],
    *,
    stdin: bool,
    tty: bool,
    quiet: bool,
) -> None:
    from minik8s.cli.channels import Conversation

    pod = pods_of(cluster, word)[0]
    phase = (pod.get("status") or {}).get("phase")
    if phase in ("Succeeded", "Failed"):
        raise click.ClickException(f"cannot {how} in pod {pod['metadata']['name']}: it has ended ({phase})")
    name = container_of(pod, container, quiet=quiet)
    if tty and not sys.stdin.isatty():
        click.echo("Unable to use a TTY - input is not a terminal or the right kind of file", err=True)
        tty = False
    query = [("container", name), *(("command", part) for part in command), ("stdout", "true")]
    query += [(flag, "true") for flag, given in (("stdin", stdin), ("tty", tty), ("stderr", not tty)) if given]
    path = cluster.kinds.find("pods.v1.").path(pod["metadata"].get("namespace"), pod["metadata"]["name"], how)
    code = asyncio.run(Conversation(cluster.credentials, path, query, stdin=stdin, tty=tty).run())
    if code:
        if not quiet and how == "exec":
            click.echo(f"command terminated with exit code {code}", err=True)
        raise SystemExit(code)


# -- port-forward


@verb("port-forward")
@click.argument("pod", metavar="POD|KIND/NAME", shell_complete=complete_pods)
@click.argument("ports", metavar="[LOCAL:]REMOTE...", nargs=-1, required=True)
@click.option("--address", default="localhost", show_default=True, help="Addresses to listen on, with commas between.")
def port_forward(cluster: Cluster, pod: str, ports: tuple[str, ...], address: str) -> None:
    """Forward local ports to a pod: port-forward web-0 8080:80, port-forward svc/web :http (:80 takes any free one)."""
    from minik8s.cli.forward import Forwarding

    service = _service(cluster, pod)
    chosen = pods_of(cluster, pod)[0]
    pairs = [parse_ports(text, chosen, service) for text in ports]
    path = cluster.kinds.find("pods.v1.").path(
        chosen["metadata"].get("namespace"), chosen["metadata"]["name"], "portforward"
    )
    hosts = [host for part in address.split(",") for host in (("127.0.0.1", "::1") if part == "localhost" else (part,))]
    asyncio.run(Forwarding(cluster.credentials, path, hosts, pairs, tell=lambda line: echo(f"{line}\n")).run())


def _service(cluster: Cluster, word: str) -> Json | None:
    if "/" not in word:
        return None
    (target,) = targets.parse(cluster, [word])
    return cluster.wire.get(target.path) if target.kind.plural == "services" else None


def parse_ports(text: str, pod: Json, service: Json | None) -> tuple[int, int]:
    """(local port, 0 for any; the pod's port) of `8080:80`, `80`, `:http`, where a Service's port means its target."""
    local, colon, remote = text.rpartition(":")
    port: Any = int(remote) if remote.isdigit() else remote
    given = port
    if service is not None:
        found = next((p for p in service["spec"]["ports"] if port in (p["port"], p.get("name"))), None)
        if found is None:
            known = ", ".join(str(p["port"]) for p in service["spec"]["ports"])
            raise click.ClickException(f"service {service['metadata']['name']} has no port {remote}; it has: {known}")
        given, port = found["port"], found.get("targetPort") or found["port"]
    if isinstance(port, str):
        named = {p.get("name"): p["containerPort"] for c in pod["spec"]["containers"] for p in c.get("ports") or ()}
        if port not in named:
            raise click.ClickException(f'pod {pod["metadata"]["name"]} has no port named "{port}"')
        port = named[port]
        given = port if isinstance(given, str) else given
    if (local and not local.isdigit()) or not 0 < port < 65536:
        raise click.ClickException(f'"{text}" is no pair of ports: write LOCAL:REMOTE')
    return (0 if colon and not local else int(local or given)), int(port)
