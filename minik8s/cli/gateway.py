"""Calls of functions by HTTP, through the gateway of whichever node answers first.

Nodes tell where their gateways are by an annotation. MINIK8S_GATEWAY, or --gateway, names one that they do not know:
a tunnel, a load balancer.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import click

from minik8s.cli.connection import Cluster
from minik8s.cli.wire import CONNECT_TIMEOUT

Json = dict[str, Any]
ANNOTATION = "faas.minik8s.io/gateway"
LONGEST_CALL = 960.0  # seconds of silence; more than any function may take
BLOCK = 64 * 1024


class NoGateway(click.ClickException):
    """Nobody answers where functions are called."""


def addresses(cluster: Cluster, given: str = "") -> list[str]:
    """URLs of gateways, those of Ready nodes first."""
    if given := given or os.environ.get("MINIK8S_GATEWAY", ""):
        return [given if "://" in given else f"http://{given}"]
    nodes = cluster.wire.get("/api/v1/nodes")["items"]
    found = [(not _ready(node), str((node["metadata"].get("annotations") or {}).get(ANNOTATION, ""))) for node in nodes]
    urls = [url for _, url in sorted(found) if url]
    if not urls:
        raise NoGateway("no node has a gateway for functions (yet): is the part switched off? minik8s enable functions "
                        "switches it on; --gateway URL names one that nodes do not know")  # fmt: skip
    return urls


def _ready(node: Json) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def open_call(
    cluster: Cluster, name: str, body: bytes, headers: Mapping[str, str], *, method: str = "POST", rest: str = "",
    gateway: str = "", timeout: float = LONGEST_CALL,
) -> http.client.HTTPResponse:  # fmt: skip
    """The answer of a function, its body not read yet. `rest`: what follows behind its address, with the query.

    Another gateway is tried only where nothing was sent: a call may have been done although its answer is lost.
    """
    told = []
    for url in addresses(cluster, gateway):
        try:
            connection = _connect(cluster, url)
        except OSError as error:
            told.append(f"{url}: {error.strerror or error}")
            continue
        connection.sock.settimeout(timeout)
        target = f"/function/{quote(cluster.namespace, safe='')}/{quote(name, safe='')}{rest}"
        try:
            connection.request(method, target, body, dict(headers))
            return connection.getresponse()
        except TimeoutError:
            raise NoGateway(f"{url} gave no answer within {timeout:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise NoGateway(f"{url} broke off before it answered ({str(error) or type(error).__name__}): it is not "
                            "known whether the call was done") from None  # fmt: skip
    raise NoGateway(f"no gateway can be reached ({'; '.join(told)}); --gateway URL names another way to one")


def _connect(cluster: Cluster, url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        tls = cluster.credentials.tls or ssl.create_default_context()  # of the cluster's own CA, as its API server's
        connection = http.client.HTTPSConnection(host, parts.port or 443, timeout=CONNECT_TIMEOUT, context=tls)
    else:
        connection = http.client.HTTPConnection(host, parts.port or 80, timeout=CONNECT_TIMEOUT)
    connection.connect()
    return connection


# -- what a command makes of an answer


def finish(response: http.client.HTTPResponse, name: str, *, headers: bool = False) -> None:
    """Print an answer as it comes. The exit code is 0 below 400; 4 is the caller's fault, 5 the function's."""
    if headers:
        lines = [f"{response.status} {response.reason}", *(f"{key}: {value}" for key, value in response.getheaders())]
        click.echo("\n".join(lines), err=True)
    if response.status < 400:
        _copy(response)
        return
    body = response.read()
    told = _told(body) if response.headers.get("Minik8s-Error") else None
    if told is None:
        _write(body)
    why = response.headers.get("Minik8s-Error") or response.reason
    click.echo(f"{click.style('error:', fg='red')} {name} answered {response.status} {why}"
               + (f": {told[0]}" if told and told[0] else ""), err=True)  # fmt: skip
    if told and told[1]:
        click.echo(told[1].rstrip(), err=True)
    raise SystemExit(4 if response.status < 500 else 5)


def _copy(response: http.client.HTTPResponse) -> None:
    last = b""
    try:
        while data := response.read1(BLOCK):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            last = data
    except (OSError, http.client.HTTPException) as error:
        raise click.ClickException(f"the answer broke off: {str(error) or type(error).__name__}") from None
    if last and not last.endswith(b"\n") and sys.stdout.isatty():
        click.echo()


def _write(body: bytes) -> None:
    if body:
        sys.stdout.buffer.write(body if body.endswith(b"\n") else body + b"\n")
        sys.stdout.buffer.flush()


def _told(body: bytes) -> tuple[str, str] | None:
    """(the error in a line, its traceback) of an error that gateway or runtime describe; None for other bodies."""
    try:
        found = json.loads(body)
    except ValueError:
        return None
    if not isinstance(found, dict) or "message" not in found:
        return None
    kind, message = str(found.get("error") or ""), str(found["message"])
    return (f"{kind}: {message}" if kind else message), str(found.get("traceback") or "")
