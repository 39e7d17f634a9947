"""`minik8s trigger NAME -d JSON`: call a function and print its answer."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from minik8s.cli.connection import Cluster
from minik8s.cli.verb import complete_functions, verb

GATEWAY_OPTION = click.option("--gateway", default="", help="URL of a gateway (default: what nodes tell).")


def payload(text: str | None, option: str = "-d") -> tuple[bytes, str]:
    """(body, content type) of JSON, @FILE or - for standard input. Files may hold anything; it is sent as it is."""
    if text is None:
        return b"", ""
    try:
        if text == "-":
            data = sys.stdin.buffer.read()
        elif text.startswith("@"):
            data = Path(text[1:]).read_bytes()
        else:
            data = text.encode()
    except OSError as error:
        raise click.ClickException(f"{option}: {error.filename}: {error.strerror}") from None
    try:
        json.loads(data)
    except ValueError as error:
        if text != "-" and not text.startswith("@"):
            raise click.ClickException(f"{option}: this is not JSON: {error}; @FILE sends anything") from None
        return data, "application/octet-stream"
    return data, "application/json"


@verb()
@click.argument("name", shell_complete=complete_functions)
@click.option("-d", "--data", default="{}", show_default=True, help="Parameters: JSON, @FILE, or - for standard input.")
@GATEWAY_OPTION
def trigger(cluster: Cluster, name: str, data: str, gateway: str) -> None:
    """Call a function and print its answer: trigger hello -d '{"name": "you"}'.

    The exit code is 0 if it went well, 4 for an answer of 400 to 499, 5 from 500 on, 1 if it could not be called.
    """
    from minik8s.cli import gateway as calling

    body, kind = payload(data)
    response = calling.open_call(cluster, name, body, {"Content-Type": kind} if kind else {}, gateway=gateway)
    if response.status == 404 and response.headers.get("Minik8s-Error") == "NotFound":
        from minik8s.cli.func import fetch

        fetch(cluster, name)  # tells of names alike, if it is not there
    calling.finish(response, name)
