"""`events`: what happened in the order in which it happened, and the events about one object."""

from __future__ import annotations

import time
from typing import Any

import click

from minik8s.api.errors import Gone
from minik8s.cli import targets
from minik8s.cli.connection import Cluster
from minik8s.cli.printing import Layout, Printer, as_list, echo, without_managed_fields
from minik8s.clock import parse_time

Json = dict[str, Any]
HEADINGS = ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]


class EventTable:
    """Rows of events for people."""

    def __init__(
        self, cluster: Cluster, *, everywhere: bool = False, about: str = "", types: str = "", headings: bool = True
    ) -> None:
        self.cluster, self.everywhere, self.headings = cluster, everywhere, headings
        self.types = {word.strip().lower() for word in types.split(",") if word.strip()}
        if unknown := self.types - {"normal", "warning"}:
            raise click.ClickException(f'"{unknown.pop()}" is no type of event: Normal or Warning')
        self.selector = ""
        if about:
            (target,) = targets.parse(cluster, [about])
            self.selector = f"involvedObject.kind={target.kind.kind},involvedObject.name={target.name}"
        self._layout = Layout()

    def run(self, print_whole: Printer | None, *, watch: bool) -> None:
        listed = self.cluster.wire.get(self._path, self._query)
        found = sorted(filter(self._wanted, listed["items"]), key=last_seen)
        if print_whole is not None:
            echo(
                print_whole(as_list({"apiVersion": "v1", "kind": "Event", **without_managed_fields(e)} for e in found))
            )
        elif found:
            head = [(["NAMESPACE"] if self.everywhere else []) + HEADINGS] if self.headings else []
            echo(self._layout.lines([*head, *map(self._row, found)], heading=bool(head)))
        elif not watch:
            where = "" if self.everywhere else f" in {self.cluster.namespace} namespace."
            click.echo(f"No events found{where}", err=True)
        if watch:
            self._follow(listed["metadata"]["resourceVersion"])

    def _follow(self, version: str) -> None:
        while True:
            try:
                for event in self.cluster.wire.events(self._path, {**self._query, "resourceVersion": version}):
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] in ("ADDED", "MODIFIED") and self._wanted(event["object"]):
                        echo(self._layout.lines([self._row(event["object"])]))
            except Gone:
                version = self.cluster.wire.get(self._path, {"limit": "1"})["metadata"]["resourceVersion"]
            time.sleep(0.2)

    @property
    def _path(self) -> str:
        return self.cluster.kinds.find("events.v1.").path(None if self.everywhere else self.cluster.namespace)

    @property
    def _query(self) -> dict[str, str]:
        return {"fieldSelector": self.selector} if self.selector else {}

    def _wanted(self, event: Json) -> bool:
        return not self.types or str(event.get("type", "")).lower() in self.types

    def _row(self, event: Json) -> list[str]:
        involved = event.get("involvedObject") or {}
        message = str(event.get("message") or "").strip().replace("\n", " ")
        row = [
            seen(event, time.time()), event.get("type", ""), event.get("reason", ""),
            f"{involved.get('kind', '')}/{involved.get('name', '')}", message,
        ]  # fmt: skip
        return ([event["metadata"].get("namespace", "")] if self.everywhere else []) + row


def last_seen(event: Json) -> float:
    """Unix seconds; 0 if the event says no time."""
    series = event.get("series") or {}
    meta = event["metadata"].get("creationTimestamp")
    said = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime") or meta
    return parse_time(said) if said else 0.0


def seen(event: Json, now: float) -> str:
    """`5m`, or `2m (x7 over 12m)` for one that happened several times."""
    from minik8s.api.kinds.columns import duration

    last = last_seen(event)
    count = event.get("count") or (event.get("series") or {}).get("count") or 1
    first = event.get("firstTimestamp") or event.get("eventTime")
    text = duration(now - last) if last else "<unknown>"
    return f"{text} (x{count} over {duration(now - parse_time(first))})" if count > 1 and first else text
