"""Objects that a few words describe, as kubectl's own `create KIND NAME` makes them.

Each kind is a function from its name and options to an object; its keyword parameters are the options that go with it.
"""

from __future__ import annotations

import base64
import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

Json = dict[str, Any]
Maker = Callable[..., Json]
DOCKER_HUB = "https://index.docker.io/v1/"
KEY = re.compile(r"[-._a-zA-Z0-9]+")  # of a ConfigMap or Secret


def make(words: Sequence[str], options: Json, command: Sequence[str]) -> Json:
    """The object of `KIND [TYPE] NAME`; `options` are those that were given, `command` is what stood after `--`."""
    kind = ALIASES.get(words[0].lower(), words[0].lower())
    types = [key.partition(" ")[2] for key in MAKERS if key.startswith(f"{kind} ")]
    if types:
        kind = f"{kind} {words[1] if len(words) > 1 else ''}".strip()
    maker = MAKERS.get(kind)
    if maker is None:
        known = [f"{words[0]} {type}" for type in types] or sorted({key.partition(" ")[0] for key in MAKERS})
        raise click.ClickException(
            f'create cannot make "{kind}" of words: it knows {", ".join(known)}; else use -f FILE'
        )
    names = words[2 if types else 1 :]
    if len(names) != 1:
        raise click.ClickException(f"create {kind}: exactly one NAME is required, got {len(names)}")
    given = options | ({"command": list(command)} if command else {})
    belonging = inspect.signature(maker).parameters
    for option in given:
        if option not in belonging:
            word = "a command" if option == "command" else f"--{option.replace('_', '-')}"
            raise click.ClickException(f"create {kind}: {word} does not go with it")
    return maker(names[0], **given)


def _namespace(name: str) -> Json:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _service_account(name: str) -> Json:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}


# -- workloads


def _deployment(
    name: str, *, image: Sequence[str] = (), replicas: int = 1, port: int = 0, command: Sequence[str] = ()
) -> Json:
    if not image:
        raise click.ClickException("create deployment: say which image: --image IMAGE")
    if len(image) > 1 and command:
        raise click.ClickException("create deployment: a command goes with one --image only")
    containers = [_container(container_name(each), each, command) for each in image]
    if port:
        containers[0]["ports"] = [{"containerPort": port}]
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        },
    }


def _job(name: str, *, image: Sequence[str] = (), command: Sequence[str] = ()) -> Json:
    if len(image) != 1:
        raise click.ClickException("create job: say which image: one --image IMAGE")
    pod = {"containers": [_container(name, image[0], command)], "restartPolicy": "Never"}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": {"spec": pod}}}


def _container(name: str, image: str, command: Sequence[str]) -> Json:
    return {"name": name, "image": image} | ({"command": list(command)} if command else {})


def container_name(image: str) -> str:
    """`registry:5000/team/web:1` -> `web`"""
    return image.rpartition("/")[2].partition("@")[0].partition(":")[0].lower().replace("_", "-").replace(".", "-")


# -- ConfigMaps and Secrets


def _config_map(
    name: str, *, from_literal: Sequence[str] = (), from_file: Sequence[str] = (), from_env_file: Sequence[str] = ()
) -> Json:
    whole: Json = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
    for key, value in _entries(from_literal, from_file, from_env_file):
        try:
            whole.setdefault("data", {})[key] = value.decode()
        except UnicodeDecodeError:
            whole.setdefault("binaryData", {})[key] = base64.b64encode(value).decode()
    return whole


def _generic(
    name: str, *, from_literal: Sequence[str] = (), from_file: Sequence[str] = (), from_env_file: Sequence[str] = (),
    type: str = "",
) -> Json:  # fmt: skip
    return _secret(name, type, _entries(from_literal, from_file, from_env_file))


def _tls(name: str, *, cert: str = "", key: str = "") -> Json:
    if not (cert and key):
        raise click.ClickException("create secret tls: say which files: --cert FILE and --key FILE")
    return _secret(name, "kubernetes.io/tls", [("tls.crt", _read(Path(cert))), ("tls.key", _read(Path(key)))])


def _docker_registry(
    name: str, *, docker_server: str = DOCKER_HUB, docker_username: str = "", docker_password: str = "",
    docker_email: str = "",
) -> Json:  # fmt: skip
    if not (docker_username and docker_password):
        raise click.ClickException("create secret docker-registry: needs --docker-username and --docker-password")
    login = {"username": docker_username, "password": docker_password} | (
        {"email": docker_email} if docker_email else {}
    )
    auth = base64.b64encode(f"{docker_username}:{docker_password}".encode()).decode()
    config = json.dumps({"auths": {docker_server: {**login, "auth": auth}}}, separators=(",", ":"))
    return _secret(name, "kubernetes.io/dockerconfigjson", [(".dockerconfigjson", config.encode())])


def _secret(name: str, type: str, entries: Iterable[tuple[str, bytes]]) -> Json:
    data = {key: base64.b64encode(value).decode() for key, value in entries}
    whole: Json = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
    return whole | ({"data": data} if data else {}) | ({"type": type} if type else {})


def _entries(literals: Sequence[str], files: Sequence[str], env_files: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """(key, value) in order; a ClickException for a key that is none or comes twice."""
    seen: set[str] = set()
    for key, value in (*_literals(literals), *_files(files), *_env_files(env_files)):
        if not KEY.fullmatch(key):
            raise click.ClickException(f'"{key}" is no key: letters, digits, "-", "_" and "." may be in one')
        if key in seen:
            raise click.ClickException(f'the key "{key}" is given twice')
        seen.add(key)
        yield key, value


def _literals(words: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise click.ClickException(f'--from-literal "{word}": write KEY=VALUE')
        yield key, value.encode()


def _files(words: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """`FILE`, `KEY=FILE`, or a folder: its files by their names, those of further folders left out."""
    for word in words:
        key, equals, name = word.rpartition("=")
        path = Path(name)
        if path.is_dir() and not equals:
            for file in sorted(path.iterdir()):
                if file.is_file():
                    yield file.name, _read(file)
        else:
            yield key or path.name, _read(path)


def _env_files(names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Lines `KEY=VALUE`; empty ones and comments are passed over."""
    for name in names:
        for number, line in enumerate(_read(Path(name)).decode(errors="replace").splitlines(), 1):
            text = line.lstrip()
            if not text or text.startswith("#"):
                continue
            key, equals, value = text.partition("=")
            if not equals:
                raise click.ClickException(f"{name}:{number}: write KEY=VALUE")
            yield key, value.encode()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise click.ClickException(f'the path "{path}" cannot be read: {error.strerror}') from None


# -- Services


def _cluster_ip(name: str, *, tcp: Sequence[str] = (), clusterip: str = "") -> Json:
    if not tcp and clusterip != "None":
        raise click.ClickException("create service clusterip: say which ports: --tcp PORT[:TARGETPORT]")
    return _service(name, "ClusterIP", tcp, {"clusterIP": clusterip} if clusterip else {})


def _node_port(name: str, *, tcp: Sequence[str] = (), node_port: int = 0) -> Json:
    service = _load_balancer(name, tcp=tcp)
    service["spec"]["type"] = "NodePort"
    if node_port:
        service["spec"]["ports"][0]["nodePort"] = node_port
    return service


def _load_balancer(name: str, *, tcp: Sequence[str] = ()) -> Json:
    if not tcp:
        raise click.ClickException("create service: say which ports: --tcp PORT[:TARGETPORT]")
    return _service(name, "LoadBalancer", tcp, {})


def _external_name(name: str, *, external_name: str = "", tcp: Sequence[str] = ()) -> Json:
    if not external_name:
        raise click.ClickException("create service externalname: say which: --external-name NAME")
    return _service(name, "ExternalName", tcp, {"externalName": external_name})


def _service(name: str, type: str, tcp: Sequence[str], more: Json) -> Json:
    ports = {"ports": [_port(word) for word in tcp]} if tcp else {}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"type": type, "selector": {"app": name}, **ports, **more},
    }


def _port(word: str) -> Json:
    port, _, target = word.partition(":")
    if not port.isdecimal():
        raise click.ClickException(f'--tcp "{word}": write PORT or PORT:TARGETPORT')
    wanted = target or port
    return {
        "name": word.replace(":", "-"),
        "port": int(port),
        "protocol": "TCP",
        "targetPort": int(wanted) if wanted.isdecimal() else wanted,
    }


MAKERS: dict[str, Maker] = {
    "namespace": _namespace,
    "serviceaccount": _service_account,
    "deployment": _deployment,
    "job": _job,
    "configmap": _config_map,
    "secret generic": _generic,
    "secret tls": _tls,
    "secret docker-registry": _docker_registry,
    "service clusterip": _cluster_ip,
    "service nodeport": _node_port,
    "service loadbalancer": _load_balancer,
    "service externalname": _external_name,
}
ALIASES = {"ns": "namespace", "namespaces": "namespace", "sa": "serviceaccount", "deploy": "deployment",
           "deployments": "deployment", "jobs": "job", "cm": "configmap", "configmaps": "configmap",
           "secrets": "secret", "svc": "service", "services": "service"}  # fmt: skip
