"""The table of routes as the files that nginx reads. Pure.

    nginx.conf.gz            everything but keys; compressed, as a Secret holds 1 MiB
    NAMESPACE.SECRET.crt     certificates, .key their keys
    run.sh                   what the pods run: see ingress_run.sh
    fragments                which Ingress contributed what, as hashes: whose wishes are live

Requests go to a Service's ClusterIP and are spread by the node's own service table: pods come and go without a word to
nginx. Names (headless services, ExternalName) are resolved when they are used.

What comes from objects is written by `_quoted` or `_literal` alone, so that no text of theirs can end its argument.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from minik8s.controllers.ingress_routes import DEFAULT_CERTIFICATE, EXACT, Backend, Host, Pair, Route, Table

HEALTH_HOST, HEALTH_PATH = "minik8s-ingress.invalid", "/healthz"  # RFC 6761: nobody else can have this name
CONF, RUN, FRAGMENTS, VERSION = "nginx.conf.gz", "run.sh", "fragments", "version"
Files = Mapping[str, bytes]


class Options(NamedTuple):
    http_port: int = 80
    https_port: int = 443
    resolver: str = "10.96.0.10"  # the cluster's DNS
    extra: str = ""  # lines for `http`, from those who run the cluster


class Rendered(NamedTuple):
    conf: str  # nginx.conf
    files: Files
    version: str  # a hash of all files
    fragments: Mapping[str, str]  # Ingress key -> hash of what it contributes


def render(table: Table, default: Pair, options: Options) -> Rendered:
    """All files of a configuration; `default` is the certificate of hosts that have none."""
    pairs = {**table.certificates, DEFAULT_CERTIFICATE: default}
    fragments = _fragments(table)
    conf = _conf(table, options)
    made: dict[str, bytes] = {CONF: gzip.compress(conf.encode(), mtime=0), RUN: script()}
    for name, pair in sorted(pairs.items()):
        made[f"{name}.crt"], made[f"{name}.key"] = pair.certificate, pair.key
    made[FRAGMENTS] = msgspec.json.encode(fragments)
    version = hashlib.blake2b(msgspec.json.encode(sorted(made.items())), digest_size=8).hexdigest()
    return Rendered(conf, {**made, VERSION: f"{version}\n".encode()}, version, fragments)


def script() -> bytes:
    """run.sh."""
    return Path(__file__).with_name("ingress_run.sh").read_bytes()


def _fragments(table: Table) -> dict[str, str]:
    texts: dict[str, list[object]] = {}
    for host in table.hosts:
        for route in host.routes:
            texts.setdefault(route.owner, []).append((host.name, route))
        if host.certificate_owner:
            texts.setdefault(host.certificate_owner, []).append((host.name, table.certificates[host.certificate]))
    return {
        owner: hashlib.blake2b(msgspec.json.encode(parts), digest_size=8).hexdigest()
        for owner, parts in sorted(texts.items())
    }


# -- nginx.conf

_HEAD = r"""# Made by minik8s from Ingress and DNS objects: what is written here is lost with the next change.
worker_processes auto;
worker_shutdown_timeout 240s;
pid /tmp/nginx.pid;
error_log stderr notice;
events { worker_connections 4096; }
http {
  server_tokens off;
  default_type text/plain;
  log_format minik8s '$remote_addr [$time_iso8601] $http_host "$request" $status $body_bytes_sent $request_time '
                     '$minik8s_service $upstream_status';
  access_log /dev/stdout minik8s;
  client_body_temp_path /tmp/body;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  server_names_hash_max_size 65536;
  server_names_hash_bucket_size 512;
  ssl_protocols TLSv1.2 TLSv1.3;
  ssl_session_cache shared:minik8s:4m;

  # Bodies of any size pass as they come, in both directions; a connection may be silent for an hour.
  client_max_body_size 0;
  proxy_request_buffering off;
  proxy_buffering off;
  proxy_buffer_size 16k;
  proxy_buffers 8 16k;
  proxy_http_version 1.1;
  proxy_connect_timeout 5s;
  proxy_read_timeout 3600s;
  proxy_send_timeout 3600s;
  proxy_redirect off;

  map $http_upgrade $minik8s_connection { default upgrade; '' close; }
  map $http_host $minik8s_host { default $http_host; '' $host; }
  # 503 where no connection came about, 502 where one broke.
  map $upstream_connect_time $minik8s_failure { default unreachable; "~[0-9]" broken; }
  geo $minik8s_dollar { default "$"; }
  proxy_set_header Host $minik8s_host;
  proxy_set_header Upgrade $http_upgrade;
  proxy_set_header Connection $minik8s_connection;
  proxy_set_header X-Real-IP $remote_addr;
  proxy_set_header X-Forwarded-For $remote_addr;
  proxy_set_header X-Forwarded-Host $minik8s_host;
  proxy_set_header X-Forwarded-Port $server_port;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Forwarded-Prefix $minik8s_prefix;
  error_page 502 504 = @$minik8s_failure;
"""


def _conf(table: Table, options: Options) -> str:
    lines = [f"  resolver {options.resolver} valid=5s ipv6=off;"]
    lines += _upstreams(table)
    lines += _health(options)
    if not any(host.name == "" for host in table.hosts):
        lines += _server(Host("", ()), options)
    for host in table.hosts:
        lines += _server(host, options)
    extra = [f"  {line}" for line in options.extra.splitlines()]
    return _HEAD + "\n".join([*lines, *extra, "}"]) + "\n"


def _upstreams(table: Table) -> Iterator[str]:
    """Each address twice: an endpoint that has just gone is tried again, by the service table at another one."""
    used = {(r.backend.address, r.backend.port) for host in table.hosts for r in host.routes if _is_address(r.backend)}
    for address, port in sorted(used):
        server = f"server {_literal(address)}:{port} max_fails=0;"
        yield f"  upstream {_upstream(address, port)} {{ {server} {server} }}"


def _is_address(backend: Backend) -> bool:
    return bool(backend.address) and not backend.named


def _upstream(address: str, port: int) -> str:
    return f"service_{_literal(address).replace('.', '_')}_{port}"


def _health(options: Options) -> Iterator[str]:
    yield "  server {"
    yield from _listen(options, "")
    yield f"    server_name {HEALTH_HOST};"
    yield "    access_log off;"
    yield f'    location = {HEALTH_PATH} {{ return 200 "ok\\n"; }}'
    yield "    location / { return 404; }"
    yield "  }"


def _listen(options: Options, more: str, certificate: str = DEFAULT_CERTIFICATE) -> Iterator[str]:
    yield f"    listen {options.http_port}{more};"
    yield f"    listen {options.https_port} ssl http2{more};"
    yield f"    ssl_certificate {_quoted(certificate + '.crt')};"
    yield f"    ssl_certificate_key {_quoted(certificate + '.key')};"


def _server(host: Host, options: Options) -> Iterator[str]:
    yield ""
    yield "  server {"
    yield from _listen(options, "" if host.name else " default_server", host.certificate)
    yield f"    server_name {_server_name(host.name)};"
    yield "    set $minik8s_service -;"
    yield "    set $minik8s_prefix '';"
    exact = {route.path for route in host.routes if route.type == EXACT}
    for route in host.routes:
        yield from _locations(route, exact)
    if not any(not route.path for route in host.routes):
        words = "no Ingress or DNS object names the path $uri of this host" if host.routes else (
            "no Ingress or DNS object names the host $host")  # fmt: skip
        yield f'    location / {{ return 404 "404 Not Found: {words}\\n"; }}'
    yield ('    location @unreachable { return 503 "503 Service Unavailable: '
           'no endpoint of service $minik8s_service accepts connections\\n"; }')  # fmt: skip
    yield ('    location @broken { return 502 "502 Bad Gateway: '
           'service $minik8s_service closed the connection without an answer\\n"; }')  # fmt: skip
    yield "  }"


def _server_name(host: str) -> str:
    """nginx' own wildcards take any number of labels, those of Ingresses one."""
    if not host:
        return "_"
    if host.startswith("*."):
        return _quoted(f"~^[^.]+{re.escape(host[1:])}$")
    return _quoted(host)


def _locations(route: Route, exact: Iterable[str]) -> Iterator[str]:
    """Prefixes go by whole elements: `/a` is `/a` and what is below `/a/`."""
    body = " ".join(_body(route))
    if route.type == EXACT:
        yield f"    location = {_quoted(route.path)} {{ {body} }}"
        return
    if route.path and route.path not in exact:
        yield f"    location = {_quoted(route.path)} {{ {body} }}"
    yield f"    location {_quoted(route.path + '/')} {{ {body} }}"


def _body(route: Route) -> Iterator[str]:
    backend = route.backend
    yield f"set $minik8s_service {_literal(backend.service or '-')};"
    if backend.fault:
        yield f"return 503 {_quoted(_text('503 Service Unavailable: ' + backend.fault) + chr(10))};"
        return
    target = _upstream(backend.address, backend.port)
    if backend.named:
        yield f"set $minik8s_target {_literal(backend.address)}:{backend.port};"
        target = "$minik8s_target"
    if route.strip and route.path:
        prefix = _text(route.path)
        yield f"set $minik8s_prefix {_quoted(prefix)};"
        yield f'rewrite {_quoted("(?s)^" + re.escape(route.path) + "/?(.*)$")} "/$1" break;'
        # The service knows nothing of the prefix: where it sends the client must have it.
        yield f'proxy_redirect "~^/(?!/)(.*)$" {_quoted(prefix + "/$1")};'
        yield f'proxy_redirect "http://$minik8s_host/" {_quoted("$scheme://$minik8s_host" + prefix + "/")};'
    yield f"proxy_pass http://{target};"


# -- writing what others have said

_LITERAL = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9_./]*|-")


def _literal(text: str) -> str:
    """A word that needs no quotes: addresses, names of services. ValueError for what is none."""
    if not _LITERAL.fullmatch(text):
        raise ValueError(f"{text!r} is not a word for nginx")
    return text


def _quoted(text: str) -> str:
    """One argument, whatever is in it (nginx: ngx_conf_read_token). Where variables count, use `_text` inside."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _text(text: str) -> str:
    """Text for an argument that takes variables: a dollar sign in it is one."""
    return text.replace("$", "${minik8s_dollar}")
