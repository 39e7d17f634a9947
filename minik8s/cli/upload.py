"""What goes up besides objects: the sources of jobs and the code of functions, in chunks, from where it was cut off."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import Any

import click

from minik8s.api.errors import Conflict
from minik8s.cli.connection import Cluster

CHUNK = 2 * 2**20  # bytes of one request, of which the server takes 3 MiB
SHOWN_FROM = 8 * 2**20  # bytes from which progress is shown


def send(cluster: Cluster, where: str, data: Path | bytes) -> None:
    """Put bytes into a subresource that tells `{size, received}` and takes `?offset=N`. `where`: its path."""
    state = cluster.wire.get(where)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(data.open("rb") if isinstance(data, Path) else io.BytesIO(data))
        bar: Any = None
        if state["size"] >= SHOWN_FROM and sys.stderr.isatty():
            bar = stack.enter_context(click.progressbar(length=state["size"], label="sending", file=sys.stderr))
            bar.update(state["received"])
        while state["received"] < state["size"]:
            before = state["received"]
            file.seek(before)
            try:
                state = cluster.wire.send("PUT", where, file.read(CHUNK), {"offset": str(before)})
            except Conflict as error:
                state["received"] = error.details.get("received", 0)
            if bar is not None:
                bar.update(state["received"] - before)
