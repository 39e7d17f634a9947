"""GpuJobs as older manifests have them, and Jobs that name a partition: their own words for the same things.

A password in one is moved into a Secret at once; the job refers to it. An archive is given on the command line, and its
checksum is not known before: `spec.filename` becomes `spec.source.archive.name`, which `minik8s apply -j` completes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minik8s.api.errors import BadRequest, Invalid, forbidden
from minik8s.api.resource import Json

GROUP_VERSION = "hpc.minik8s.io/v1"
NUMBERS = {"numProcess": "ntasks", "nTasks": "ntasks", "numTasksPerNode": "ntasksPerNode",
           "nTasksPerNode": "ntasksPerNode", "cpusPerTask": "cpusPerTask", "numGpus": "gpus", "gpuNums": "gpus",
           "nodes": "nodes"}  # fmt: skip
COMMANDS = {"compileScripts": "build", "compileCommands": "build", "runScripts": "run", "runCommands": "run"}
LOGIN = ("username", "password")
KNOWN = (*NUMBERS, *COMMANDS, *LOGIN, "partition", "volume", "submitDirectory", "workDir", "outputFile", "errorFile",
         "filename", "time", "memory", "modules")  # fmt: skip
FOLDER_ANNOTATION = "hpc.minik8s.io/source-folder"  # on the client's disk: `minik8s apply` packs and sends it


def gpu_job(doc: Json) -> list[Json]:
    """`kind: GpuJob` without our apiVersion, and `kind: Job` with a partition in its spec."""
    spec = doc.get("spec")
    if doc.get("apiVersion") == GROUP_VERSION or not isinstance(spec, dict):
        return [doc]
    if doc["kind"] == "Job" and "partition" not in spec:
        return [doc]
    for key in spec:
        if key not in KNOWN:
            cause = forbidden(f"spec.{key}", f"unknown field; this {doc['kind']} knows {', '.join(KNOWN)}")
            raise Invalid("GpuJob", str((doc.get("metadata") or {}).get("name", "")), [cause])
    meta: Json = dict(doc.get("metadata") or {})
    native: Json = {"resources": _resources(spec)}
    for old, new in COMMANDS.items():
        if old in spec:
            native[new] = _commands(spec[old], f"spec.{old}")
    for key in ("workDir", "modules"):
        if spec.get(key):
            native[key] = spec[key]
    output = {new: spec[old] for old, new in (("outputFile", "stdout"), ("errorFile", "stderr")) if spec.get(old)}
    native |= {"output": output} if output else {}
    if spec.get("filename"):
        native["source"] = {"archive": {"name": str(spec["filename"])}}
    folder = spec.get("volume") or spec.get("submitDirectory")
    if folder:
        meta["annotations"] = {**(meta.get("annotations") or {}), FOLDER_ANNOTATION: str(folder)}
    login = _login(spec, meta)
    native |= {"secretRef": {"name": login["metadata"]["name"]}} if login else {}
    job = {"apiVersion": GROUP_VERSION, "kind": "GpuJob", "metadata": meta, "spec": native}
    return [login, job] if login else [job]


def _resources(spec: Mapping[str, Any]) -> Json:
    found: Json = {key: str(spec[key]) for key in ("partition", "time", "memory") if spec.get(key)}
    for old, new in NUMBERS.items():
        if old in spec:
            try:
                found[new] = int(spec[old])
            except (TypeError, ValueError):
                raise BadRequest(f"spec.{old}: {spec[old]!r} is not a number") from None
    return found


def _commands(value: Any, path: str) -> list[str]:
    if isinstance(value, str):
        return value.splitlines()
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise BadRequest(f"{path}: expected a list of commands")
    return list(value)


def _login(spec: Mapping[str, Any], meta: Json) -> Json:
    """The Secret that a user and a password become; {} if there is no password."""
    if not spec.get("password"):
        return {}
    name = {"name": f"{meta.get('name', '')}-login"} | ({"namespace": meta["namespace"]} if "namespace" in meta else {})
    data = {key: str(spec[key]) for key in LOGIN if spec.get(key)}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": name, "type": "Opaque", "stringData": data}


def redacted(obj: Json) -> Json:
    """What may be shown of a native form: not what a Secret holds."""
    if obj.get("kind") != "Secret":
        return obj
    return {**obj, "stringData": dict.fromkeys(obj.get("stringData") or {}, "<redacted>")}
