"""Verbs that look: get, events, top, api-resources."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click

from minik8s.api.errors import Gone, NotFound, StatusError
from minik8s.cli import jsonpath, targets
from minik8s.cli.connection import Cluster
from minik8s.cli.discovery import Kind
from minik8s.cli.printing import Layout, TablePrinter, as_list, echo, printer, without_managed_fields
from minik8s.cli.targets import Target
from minik8s.cli.verb import (
    Failures,
    all_namespaces_option,
    complete_targets,
    explain,
    fields_option,
    files_option,
    output_option,
    recursive_option,
    selector_option,
    verb,
)  # fmt: skip
from minik8s.cli.wire import JSON, TABLE

CHUNK = 500  # objects asked for at once
Json = dict[str, Any]


@verb()
@click.argument("words", metavar="KIND [NAME]...", nargs=-1, shell_complete=complete_targets)
@output_option
@click.option("-w", "--watch", is_flag=True, help="Go on printing what changes.")
@click.option("--watch-only", is_flag=True, help="Print only what changes from now on.")
@click.option("--output-watch-events", is_flag=True, help="Say what kind of change each is.")
@selector_option
@fields_option
@all_namespaces_option
@files_option
@recursive_option
@click.option("--show-labels", is_flag=True, help="A column with all labels.")
@click.option("-L", "--label-columns", multiple=True, help="Labels to be shown as columns; repeatable.")
@click.option("--show-kind", is_flag=True, help="Names with their kind.")
@click.option("--no-headers", is_flag=True, help="No line of headings.")
@click.option("--sort-by", default="", help="JSONPath to sort by: .metadata.creationTimestamp")
@click.option("--show-managed-fields", is_flag=True, help="Keep managedFields in YAML and JSON.")
@click.option("--ignore-not-found", is_flag=True, help="Missing objects are no error.")
@click.option("--raw", default="", help="Print what the server answers at a path.")
@click.option("--chunk-size", type=int, default=CHUNK, help="Objects asked for at once.")
def get(cluster: Cluster, words: tuple[str, ...], **options: Any) -> None:
    """List objects: `get pods`, `get pods,svc -A`, `get deploy web -o yaml`, `get all`, `get -f web.yaml`."""
    if options["raw"]:
        echo(cluster.wire.call("GET", options["raw"]).decode(errors="replace"))
        return
    wanted = targets.parse(cluster, words, everywhere=options["all_namespaces"])
    if options["filenames"]:
        wanted += targets.from_files(cluster, options["filenames"], recursive=options["recursive"])
    if not wanted:
        raise click.ClickException('say what to get: "minik8s get pods"; "minik8s api-resources" lists the kinds')
    if any(target.name for target in wanted) and (options["selector"] or options["field_selector"]):
        raise click.ClickException("a name and a selector cannot be given together")
    Getting(cluster, wanted, options).run()


def show(cluster: Cluster, *words: str, output: str = "", fields: str = "", everywhere: bool = False) -> None:
    """What `get` with these words shows: for commands that list one kind. `fields` is a field selector."""
    options: dict[str, Any] = dict.fromkeys(
        ("watch", "watch_only", "output_watch_events", "selector", "show_labels", "show_kind", "no_headers", "sort_by",
         "show_managed_fields", "ignore_not_found")
    )  # fmt: skip
    options |= {"all_namespaces": everywhere, "label_columns": (), "chunk_size": CHUNK, "output": output,
                "field_selector": fields}  # fmt: skip
    Getting(cluster, targets.parse(cluster, list(words), everywhere=everywhere), options).run()


class Getting:
    """One `get`: as tables or whole, and then perhaps a watch."""

    def __init__(self, cluster: Cluster, wanted: Sequence[Target], options: dict[str, Any]) -> None:
        self.cluster, self.wanted, self.options = cluster, wanted, options
        self.print = printer(options["output"])
        self.failures = Failures()
        self.versions: dict[Kind, str] = {}  # resourceVersion at which a kind was listed

    def run(self) -> None:
        following = self.options["watch"] or self.options["watch_only"]
        if following and len({target.kind for target in self.wanted}) > 1:
            raise click.ClickException("only one kind can be watched at a time")
        tables = TablePrinters(self.wanted, self.options)
        if self.print is None:
            self._tables(tables)
        else:
            self._objects()
        if following and not self.failures.count:
            self._follow(tables)
        self.failures.finish()

    # -- tables

    def _tables(self, tables: TablePrinters) -> None:
        printed = 0
        for kind, group in _by_kind(self.wanted):
            parts = [part for target in group if (part := self._table(target)) is not None]
            if not parts or self.options["watch_only"]:
                continue
            merged = {**parts[0], "rows": [row for part in parts for row in part["rows"]]}
            if self.options["sort_by"]:
                merged["rows"] = _sorted_by(self.options["sort_by"], merged["rows"], lambda row: row["object"])
            if merged["rows"]:
                echo(("\n" if printed else "") + tables.of(kind).text(merged, self._prefix(merged)))
                printed += 1
        if not printed and not self.failures.count and not self.options["watch_only"]:
            self._nothing()

    def _prefix(self, table: Json) -> tuple[str, ...]:
        return ("ADDED",) if self.options["output_watch_events"] else ()

    def _table(self, target: Target) -> Json | None:
        query = {"includeObject": "Object"} if self.options["sort_by"] else {}
        try:
            table = self._read(target, query, TABLE)
        except StatusError as error:
            self._failed(error)
            return None
        if table.get("kind") != "Table":  # a server that has no tables: name and nothing more
            items = table.get("items", [table])
            table = {"columnDefinitions": [{"name": "Name"}], "metadata": table["metadata"],
                     "rows": [{"cells": [item["metadata"]["name"]], "object": item} for item in items]}  # fmt: skip
        return table

    # -- whole objects

    def _objects(self) -> None:
        assert self.print is not None
        found: list[Json] = []
        single = len(self.wanted) == 1 and bool(self.wanted[0].name)
        for target in self.wanted:
            try:
                answer = self._read(target, {}, JSON)
            except StatusError as error:
                self._failed(error)
                continue
            if target.name:
                found.append(answer)
            else:
                kind = answer.get("kind", "").removesuffix("List")
                found += [{"apiVersion": answer["apiVersion"], "kind": kind, **item} for item in answer["items"]]
        if self.options["sort_by"]:
            found = _sorted_by(self.options["sort_by"], found, lambda obj: obj)
        if not self.options["show_managed_fields"]:
            found = [without_managed_fields(obj) for obj in found]
        if self.options["watch_only"] or (single and not found):
            return
        if found or not self.failures.count:
            echo(self.print(found[0] if single else as_list(found)))

    # -- both

    def _read(self, target: Target, query: dict[str, str], accept: str) -> Json:
        """An object, or a whole list collected in chunks."""
        if target.name:
            answer = self.cluster.wire.get(target.path, query, accept=accept)
            self.versions[target.kind] = answer["metadata"].get("resourceVersion", "")
            return answer
        query = {**query, **self._selectors(), "limit": str(self.options["chunk_size"])}
        whole = self.cluster.wire.get(target.path, query, accept=accept)
        self.versions[target.kind] = whole["metadata"].get("resourceVersion", "")
        items = "rows" if "rows" in whole else "items"
        meta = whole["metadata"]
        while meta.get("continue"):
            page = self.cluster.wire.get(target.path, {**query, "continue": meta["continue"]}, accept=accept)
            whole[items] += page[items]
            meta = page["metadata"]
        whole[items] = whole[items] or []
        return whole

    def _selectors(self) -> dict[str, str]:
        pairs = (("labelSelector", self.options["selector"]), ("fieldSelector", self.options["field_selector"]))
        return {key: value for key, value in pairs if value}

    def _failed(self, error: StatusError) -> None:
        if not (self.options["ignore_not_found"] and isinstance(error, NotFound)):
            self.failures.add(explain(error))

    def _nothing(self) -> None:
        if self.options["ignore_not_found"] or (self.options["no_headers"] and self.print):
            return
        where = ""
        if any(target.namespace for target in self.wanted):
            where = f" in {self.wanted[0].namespace or self.cluster.namespace} namespace"
        click.echo(f"No resources found{where}" + ("." if where else ""), err=True)

    # -- watching

    def _follow(self, tables: TablePrinters) -> None:
        kind, first = self.wanted[0].kind, self.wanted[0]
        names = {target.name for target in self.wanted if target.name}
        query = self._selectors()
        if len(names) == 1:
            query["fieldSelector"] = f"metadata.name={first.name}"
        path = kind.path(first.namespace)
        version = self.versions.get(kind, "")
        while True:
            try:
                accept = TABLE if self.print is None else JSON
                for event in self.cluster.wire.events(path, {**query, "resourceVersion": version}, accept=accept):
                    version = self._show(event, tables.of(kind), names) or version
            except Gone:
                version = self.cluster.wire.get(path, {"limit": "1"})["metadata"]["resourceVersion"]
            time.sleep(0.2)  # the server ends a watch after some minutes, or has gone away: ask again, not at once

    def _show(self, event: Json, table: TablePrinter, names: set[str]) -> str:
        """Print an event; the resourceVersion to go on from."""
        obj, prefix = event["object"], (event["type"],) if self.options["output_watch_events"] else ()
        if event["type"] == "BOOKMARK":
            return str(obj["metadata"].get("resourceVersion", ""))
        meta = obj["rows"][0]["object"]["metadata"] if obj.get("kind") == "Table" else obj["metadata"]
        if not names or meta["name"] in names:
            if self.print is None:
                echo(table.text(obj, prefix))
            else:
                separator = "---\n" if self.options["output"] == "yaml" else ""
                ending = "\n" if self.options["output"].startswith("jsonpath=") else ""
                echo(separator + self.print(without_managed_fields(obj)) + ending)
        return str(meta.get("resourceVersion", ""))


class TablePrinters:
    """One printer per kind, so that watched rows stay under their headings."""

    def __init__(self, wanted: Sequence[Target], options: dict[str, Any]) -> None:
        self._several = len({target.kind for target in wanted}) > 1
        self._options = options
        self._made: dict[Kind, TablePrinter] = {}

    def of(self, kind: Kind) -> TablePrinter:
        if kind not in self._made:
            options = self._options
            columns = [name for given in options["label_columns"] for name in given.split(",")]
            self._made[kind] = TablePrinter(
                kind, wide=options["output"] == "wide", namespaces=options["all_namespaces"],
                kinds=self._several or options["show_kind"], labels=options["show_labels"], label_columns=columns,
                headings=not options["no_headers"],
            )  # fmt: skip
        return self._made[kind]


def _by_kind(wanted: Sequence[Target]) -> list[tuple[Kind, list[Target]]]:
    """Neighbours of one kind share a table."""
    groups: list[tuple[Kind, list[Target]]] = []
    for target in wanted:
        if not groups or groups[-1][0] != target.kind:
            groups.append((target.kind, []))
        groups[-1][1].append(target)
    return groups


def _sorted_by(path: str, items: list[Json], of: Any) -> list[Json]:
    try:
        find = jsonpath.compile_path(jsonpath.relaxed(path.strip("{}")))
    except jsonpath.JsonPathError as error:
        raise click.ClickException(str(error)) from None

    def key(item: Json) -> tuple[int, float, str]:
        found = find(of(item))
        value = found[0] if found else ""
        if isinstance(value, int | float):
            return (1, float(value), "")
        return (2 if found else 0, 0.0, str(value))

    return sorted(items, key=key)


@verb()
@all_namespaces_option
@output_option
@click.option("-w", "--watch", is_flag=True, help="Go on printing.")
@click.option("--for", "about", default="", help="Only about one object: pod/web")
@click.option("--types", default="", help="Normal, Warning")
@click.option("--no-headers", is_flag=True, help="No line of headings.")
def events(
    cluster: Cluster, all_namespaces: bool, output: str, watch: bool, about: str, types: str, no_headers: bool
) -> None:
    """What happened, the latest last: `events`, `events --for pod/web`, `events --types Warning -A`."""
    from minik8s.cli.event_table import EventTable

    table = EventTable(cluster, everywhere=all_namespaces, about=about, types=types, headings=not no_headers)
    table.run(printer(output), watch=watch)


@verb()
@click.argument("what", type=click.Choice(["nodes", "node", "no", "pods", "pod", "po"]), metavar="nodes|pods")
@click.argument("name", required=False)
@all_namespaces_option
@selector_option
@click.option("--containers", is_flag=True, help="Each container by itself (pods).")
@click.option("--sort-by", type=click.Choice(["cpu", "memory"]), help="The biggest first.")
@click.option("--no-headers", is_flag=True, help="No line of headings.")
def top(cluster: Cluster, what: str, name: str | None, **options: Any) -> None:
    """What nodes or pods use of CPU and memory, as last measured."""
    from minik8s.cli.usage import print_usage

    print_usage(cluster, "nodes" if what.startswith("n") else "pods", name or "", options)


@verb(name="api-resources")
@click.option("-o", "--output", type=click.Choice(["", "wide", "name"]), default="", help="wide or name")
@click.option("--api-group", default=None, help="Only those of a group.")
@click.option("--namespaced", type=bool, default=None, help="true or false: only those that are, or are not.")
@click.option("--verbs", default="", help="Only those that have all these: list,watch")
@click.option("--no-headers", is_flag=True, help="No line of headings.")
def api_resources(
    cluster: Cluster, output: str, api_group: str | None, namespaced: bool | None, verbs: str, no_headers: bool
) -> None:
    """The kinds that the server knows."""
    rows = [["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"] + (["VERBS", "CATEGORIES"] if output else [])]
    wanted = {word for word in verbs.split(",") if word}
    for kind in sorted(_preferred(cluster), key=lambda kind: (kind.group, kind.plural)):
        if api_group not in (None, kind.group) or namespaced not in (None, kind.namespaced):
            continue
        if not kind.verbs or not wanted <= set(kind.verbs):
            continue
        row = [kind.plural, ",".join(kind.shortNames), kind.api_version, str(kind.namespaced).lower(), kind.kind]
        rows.append(row + ([",".join(kind.verbs), ",".join(kind.categories)] if output else []))
        if output == "name":
            echo(f"{kind.name}\n")
    if output != "name":
        echo(Layout().lines(rows[no_headers:], heading=not no_headers))


def _preferred(cluster: Cluster) -> list[Kind]:
    """One version of each kind, the preferred one, which comes first."""
    seen: dict[tuple[str, str], Kind] = {}
    for kind in cluster.kinds.all():
        seen.setdefault((kind.group, kind.plural), kind)
    return list(seen.values())
