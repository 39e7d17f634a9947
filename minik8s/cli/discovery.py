"""The kinds that the server knows, found by any of their names: `po`, `pods`, `Pod`, `deploy.apps`, `events.v1.`.

Kept on disk for ten minutes per server, as kubectl keeps it, and asked for anew when a name is not among them.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import click

from minik8s.api.errors import NotAcceptable, NotFound
from minik8s.cli.wire import Wire

MAX_AGE = 600.0  # seconds
FORMAT = 1  # of the file; another one is not read
AGGREGATED = ",".join(
    f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList" for version in ("v2", "v2beta1")
)
Json = dict[str, Any]


class Kind(NamedTuple):
    """One kind in one version. `verbs` are the API's; `subresources` their names."""

    group: str
    version: str
    plural: str
    singular: str
    kind: str
    namespaced: bool
    shortNames: tuple[str, ...]
    categories: tuple[str, ...]
    verbs: tuple[str, ...]
    subresources: tuple[str, ...]

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def name(self) -> str:
        """`pods`, `deployments.apps`: as messages about many say."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def one(self) -> str:
        """`pod`, `deployment.apps`: as messages about one say."""
        singular = self.singular or self.kind.lower()
        return f"{singular}.{self.group}" if self.group else singular

    def path(self, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
        """Where it is served; `namespace` None: in all namespaces (or it has none)."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        place = f"/namespaces/{quoted(namespace)}" if self.namespaced and namespace else ""
        tail = f"/{quoted(name)}" if name else ""
        return f"{root}{place}/{self.plural}{tail}" + (f"/{subresource}" if subresource else "")


def quoted(segment: str) -> str:
    from urllib.parse import quote

    return quote(segment, safe=":")


class Kinds:
    """Looks kinds up; read from the cache or the server on first use."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._known: list[Kind] | None = None
        self._fresh = False  # asked for by this process

    def all(self) -> list[Kind]:
        """Every kind in its every version, core first, preferred versions first."""
        if self._known is None:
            self._known = self._cached() or self._refresh()
        return self._known

    def find(self, word: str) -> Kind:
        """The kind that a word on the command line means; a ClickException with a suggestion if there is none."""
        if "/" in word:
            raise click.ClickException(f'"{word}" is no kind: write KIND NAME or KIND/NAME')
        found = self._search(lambda: _match(self.all(), word))
        if found is None:
            raise click.ClickException(self._unknown(word))
        return found

    def category(self, word: str) -> list[Kind]:
        """The kinds of a category such as `all`, one version of each; [] if there is none such."""
        seen: dict[tuple[str, str], Kind] = {}
        for kind in self.all():
            if word.lower() in kind.categories and "list" in kind.verbs:
                seen.setdefault((kind.group, kind.plural), kind)
        return list(seen.values())

    def of(self, api_version: str, kind: str) -> Kind | None:
        """The kind of a manifest, which must be spelt exactly."""
        return self._search(lambda: _exact(self.all(), api_version, kind))

    def explain_missing(self, api_version: str, kind: str) -> str:
        """Why `of` found nothing: the case, the version, or the spelling."""
        message = f'no matches for kind "{kind}" in version "{api_version}"'
        listable = [k for k in self.all() if k.kind and "create" in k.verbs]
        same = [k for k in listable if k.kind.lower() == kind.lower()]
        if same:
            other = next((k for k in same if k.api_version == api_version), same[0])
            if other.kind != kind and other.api_version == api_version:
                return f'{message}, did you mean "{other.kind}"?'
            hint = (
                f'"{other.kind}" of "{other.api_version}"' if other.kind != kind else f'version "{other.api_version}"'
            )
            return f"{message}, did you mean {hint}?"
        near = _near(kind, [k.kind for k in listable])
        return message + (f', did you mean "{near}"?' if near else "")

    def _search(self, look: Callable[[], Kind | None]) -> Kind | None:
        found = look()
        if found is None and not self._fresh:
            self._known = self._refresh()
            found = look()
        return found

    def _unknown(self, word: str) -> str:
        names = [k.plural for k in self.all() if "list" in k.verbs]
        names += [k.singular for k in self.all() if "list" in k.verbs and not word.lower().endswith(("s", "z"))]
        near = _near(word.partition(".")[0].lower(), names)
        return f'the server doesn\'t have a resource type "{word}"' + (f', did you mean "{near}"?' if near else "")

    # -- the copy on disk

    @property
    def _file(self) -> Path:
        address = urlsplit(self._wire.credentials.server)
        cache = os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME") or tempfile.gettempdir()) / ".cache"
        return Path(cache) / "minik8s" / re.sub(r"[^A-Za-z0-9.-]", "_", address.netloc) / "kinds.json"

    def _cached(self) -> list[Kind] | None:
        try:
            held = json.loads(self._file.read_bytes())
            if held["format"] != FORMAT or not 0 <= time.time() - held["time"] < MAX_AGE:
                return None
            return [_from_row(row) for row in held["kinds"]]
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def _refresh(self) -> list[Kind]:
        kinds = fetch(self._wire)
        self._fresh = True
        file = self._file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as copy:
                json.dump({"format": FORMAT, "time": time.time(), "kinds": kinds}, copy)
            os.replace(copy.name, file)
        except OSError:
            pass  # no home, a full disk: the server is asked each time
        return kinds


def _from_row(row: list[Any]) -> Kind:
    return Kind(*row[:6], *(tuple(part) for part in row[6:]))


def fetch(wire: Wire) -> list[Kind]:
    """Ask the server: all at once where it can, group by group where it cannot."""
    try:
        answers = [wire.get(path, accept=f"{AGGREGATED},application/json") for path in ("/api", "/apis")]
    except (NotAcceptable, NotFound):
        return list(_listed(wire, wire.get("/api"), wire.get("/apis")))
    if any(answer.get("kind") != "APIGroupDiscoveryList" for answer in answers):
        return list(_listed(wire, *answers))
    return [kind for answer in answers for group in answer["items"] for kind in _aggregated(group)]


def _aggregated(group: Json) -> Iterator[Kind]:
    for version in group.get("versions") or ():
        for item in version.get("resources") or ():
            kind = (item.get("responseKind") or {}).get("kind", "")
            subresources = tuple(sub["subresource"] for sub in item.get("subresources") or ())
            yield Kind(
                group["metadata"].get("name", ""), version["version"], item["resource"],
                item.get("singularResource", ""), kind, item.get("scope") == "Namespaced",
                tuple(item.get("shortNames") or ()), tuple(item.get("categories") or ()), tuple(item["verbs"]),
                subresources,
            )  # fmt: skip


def _listed(wire: Wire, core: Json, named: Json) -> Iterator[Kind]:
    versions = [("", version, f"/api/{version}") for version in core.get("versions") or ()]
    for group in named.get("groups") or ():
        for version in group["versions"]:
            versions.append((group["name"], version["version"], f"/apis/{version['groupVersion']}"))
    for name, version, path in versions:
        items = wire.get(path)["resources"]
        for item in items:
            if "/" not in item["name"]:
                inner = tuple(i["name"].split("/", 1)[1] for i in items if i["name"].startswith(f"{item['name']}/"))
                yield Kind(
                    name, version, item["name"], item.get("singularName", ""), item["kind"], item["namespaced"],
                    tuple(item.get("shortNames") or ()), tuple(item.get("categories") or ()), tuple(item["verbs"]),
                    inner,
                )  # fmt: skip


def _match(kinds: list[Kind], word: str) -> Kind | None:
    """`word` is a name, `name.group`, or `name.version.group`; in any case."""
    word = word.lower()
    name, _, rest = word.partition(".")
    version, _, versioned = rest.partition(".")
    short: Kind | None = None
    for kind in kinds:
        if rest and kind.group != rest and (kind.version, kind.group) != (version, versioned):
            continue
        if name in (kind.plural, kind.singular, kind.kind.lower()) and kind.verbs:
            return kind
        if short is None and name in kind.shortNames:
            short = kind
    return short


def _exact(kinds: list[Kind], api_version: str, name: str) -> Kind | None:
    return next((k for k in kinds if k.kind == name and k.api_version == api_version), None)


def _near(word: str, known: list[str]) -> str:
    import difflib

    folded = {name.lower(): name for name in known}
    return next((folded[near] for near in difflib.get_close_matches(word.lower(), folded, n=1)), "")
