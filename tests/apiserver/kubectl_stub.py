"""Just enough of an API server for a real kubectl to talk to the OpenAPI documents and the patches under test.

It has discovery, OpenAPI, and objects in a dict; nothing of the real server's registry. It writes down the patches.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from minik8s.api.errors import StatusError, not_found
from minik8s.api.patch import json_patch, merge_patch, strategic_merge
from minik8s.api.resource import Resource
from minik8s.api.schema import compile_schema
from minik8s.apiserver.openapi import V2_PROTOBUF, V2_PROTOBUF_TYPE, OpenAPI
from tests.kubectls import KUBECTLS

KUBECTL = sorted(Path("/usr/lib/google-cloud-sdk/bin").glob("kubectl.1.*")) or KUBECTLS
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
Json = dict[str, Any]


@dataclass
class Stub:
    resources: list[Resource]
    validates: bool = True  # False: a server that does not know fieldValidation, so that kubectl validates itself
    objects: dict[str, Json] = field(default_factory=dict)
    patches: list[tuple[str, Json]] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)  # (path, Accept)

    def __post_init__(self) -> None:
        self.openapi = OpenAPI(self.resources)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.handle)
        return app

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, request.headers.get("Accept", "")))
        try:
            return self.discovery(request.path) or self.documents(request) or await self.serve(request)
        except StatusError as error:
            return web.json_response(error.to_status(), status=error.code)

    def discovery(self, path: str) -> web.Response | None:
        rows = {(r.group, r.version) for r in self.resources}
        if path == "/version":
            return web.json_response({"major": "1", "minor": "33", "gitVersion": "v1.33.0"})
        if path == "/api":
            return web.json_response({"kind": "APIVersions", "versions": ["v1"]})
        if path == "/apis":
            groups = [
                {"name": g, "versions": [v := {"groupVersion": f"{g}/{n}", "version": n}], "preferredVersion": v}
                for g, n in sorted(rows) if g
            ]  # fmt: skip
            return web.json_response({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        for group, version in rows:
            if path == (f"/apis/{group}/{version}" if group else f"/api/{version}"):
                return self.resource_list(group, version)
        return None

    def resource_list(self, group: str, version: str) -> web.Response:
        rows = [r for r in self.resources if (r.group, r.version) == (group, version)]
        named = [(r.plural, r) for r in rows] + [(f"{r.plural}/{s}", r) for r in rows for s in sorted(r.subresources)]
        listed = []
        for name, r in named:
            scale = {"group": "autoscaling", "version": "v1"} if name.endswith("/scale") else {}
            kind = "Scale" if scale else r.kind
            short = {"shortNames": list(r.shortNames)} if r.shortNames and "/" not in name else {}
            entry = {"name": name, "singularName": r.kind.lower(), "namespaced": r.namespaced, "kind": kind}
            listed.append(entry | {"verbs": VERBS} | scale | short)
        version = f"{group}/{version}" if group else version
        body = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": listed}
        return web.json_response(body)

    def documents(self, request: web.Request) -> web.Response | None:
        accept = request.headers.get("Accept", "")
        if request.path == "/openapi/v2":
            protobuf = V2_PROTOBUF in accept
            return self.document(
                self.openapi.v2_protobuf() if protobuf else self.openapi.v2_json(),
                V2_PROTOBUF_TYPE if protobuf else "application/json",
            )
        if request.path == "/openapi/v3":
            return web.json_response(self.openapi.v3_index())
        if request.path.startswith("/openapi/v3/"):
            group_version = request.path.removeprefix("/openapi/v3/").partition("/")[2]
            return self.document(self.openapi.v3(group_version), "application/json")
        return None

    def document(self, packed: bytes, kind: str) -> web.Response:
        body = gzip.decompress(packed)
        if not self.validates:
            body = body.replace(b"fieldValidation", b"fieldValidatior")
        return web.Response(body=body, content_type=kind)

    async def serve(self, request: web.Request) -> web.Response:
        path = request.path.rstrip("/")
        if request.method == "POST":
            obj = await request.json()
            self.objects[f"{path}/{obj['metadata']['name']}"] = obj
            return web.json_response(obj, status=201)
        if path not in self.objects:
            name = path.rpartition("/")[2]
            raise not_found(path.split("/")[-2], name)
        obj = self.objects[path]
        if request.method == "PATCH":
            patch = await request.json()
            self.patches.append((request.content_type, patch))
            self.objects[path] = obj = self.patched(obj, patch, request.content_type)
        return web.json_response(obj)

    def patched(self, obj: Json, patch: Any, kind: str) -> Json:
        if kind == "application/json-patch+json":
            return json_patch(obj, patch)
        if kind == "application/merge-patch+json":
            return merge_patch(obj, patch)
        row = next(r for r in self.resources if (r.api_version, r.kind) == (obj["apiVersion"], obj["kind"]))
        return strategic_merge(obj, patch, compile_schema(row.definition))


@dataclass
class Kubectl:
    binary: Path
    server: str
    home: Path  # for its discovery cache

    async def __call__(self, *args: str, stdin: Any = None, env: dict[str, str] | None = None) -> tuple[int, str]:
        """(exit code, stdout and stderr)."""
        process = await asyncio.create_subprocess_exec(
            self.binary, f"--server={self.server}", f"--cache-dir={self.home}", *args,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env={"HOME": str(self.home), "PATH": "/usr/bin:/bin", "KUBECONFIG": "/dev/null", **(env or {})},
        )  # fmt: skip
        text = "" if stdin is None else stdin if isinstance(stdin, str) else json.dumps(stdin)
        out, _ = await process.communicate(text.encode())
        return process.returncode or 0, out.decode()
