"""Hosts and paths through a real nginx: rules, TLS, changes under load, and what goes wrong."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import threading
import time
from http.client import HTTPConnection, HTTPException
from typing import Any

import pytest

from minik8s import pki
from tests.agent import run, until
from tests.e2e.space import HTTP, HTTPS, Space, config_map, pod, service
from tests.images import PYTHON

NGINX = ("-n", "minik8s-ingress")
Json = dict[str, Any]

# Answers with what it was asked; /upload counts, /slow says a word every half second, /ws takes over the connection.
ECHO = r"""
import http.server, json, socketserver, time
class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, text, code=200, **more):
        self.send_response(code)
        for name, value in more.items(): self.send_header(name, value)
        self.send_header("Content-Length", str(len(text))); self.end_headers(); self.wfile.write(text.encode())
    def do_GET(self):
        if self.headers.get("Upgrade"):
            self.send_response(101); self.send_header("Upgrade", "echo"); self.send_header("Connection", "Upgrade")
            self.end_headers(); self.wfile.flush()
            while data := self.rfile.readline(): self.wfile.write(data.upper()); self.wfile.flush()
        elif self.path == "/slow":
            self.send_response(200); self.send_header("Connection", "close"); self.end_headers()
            for word in ("one", "two"): self.wfile.write(word.encode() + b"\n"); self.wfile.flush(); time.sleep(0.5)
        elif self.path == "/away": self.answer("", 302, Location="/login")
        else: self.answer(json.dumps({"path": self.path, "headers": dict(self.headers)}))
    def do_POST(self):
        left = total = int(self.headers["Content-Length"])
        while left: left -= len(self.rfile.read(min(left, 1 << 16)))
        self.answer(str(total))
    def log_message(self, *args): pass
class Server(socketserver.ThreadingTCPServer):  # http.server's own asks DNS for its name first
    allow_reuse_address, daemon_threads = True, True
Server(("", 8000), Echo).serve_forever()
"""


def ingress(name: str, host: str, *paths: tuple[str, str, str], **spec: Any) -> Json:
    """`paths` are (path, type, service) each; services answer on port 80."""
    rules = [
        {"path": path, "pathType": type, "backend": {"service": {"name": to, "port": {"number": 80}}}}
        for path, type, to in paths
    ]
    rule: Json = {"host": host} if host else {}
    return {
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name},
        "spec": {"rules": [rule | {"http": {"paths": rules}}] if rules else [], **spec},
    }  # fmt: skip


def dns(name: str, host: str, to: str, path: str = "/", **spec: Any) -> Json:
    paths = [{"path": path, "service": {"name": to, "port": 80}}]
    return {
        "apiVersion": "net.minik8s.io/v1", "kind": "DNS", "metadata": {"name": name},
        "spec": {"host": host, "paths": paths, **spec},
    }  # fmt: skip


def says(name: str) -> list[Json]:
    """A pod that answers every path below / with its name, and its service."""
    script = f"mkdir -p /w/deep; echo {name} | tee /w/index.html >/w/deep/index.html; exec httpd -f -p 8000 -h /w"
    probe = {"readinessProbe": {"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1}}
    return [
        pod(name, "sh", "-c", script, more=probe),
        service(name, {"name": "http", "port": 80, "targetPort": 8000}),
    ]


def ask(host: str, path: str = "/", *flags: str, port: int = HTTP) -> str:
    scheme = "https" if port == HTTPS else "http"
    command = ["curl", "-sS", "--max-time", "5", "-H", f"Host: {host}", *flags, f"{scheme}://127.0.0.1:{port}{path}"]
    return run(command, check=False).both.strip()


@pytest.fixture
def echo(space: Space) -> Space:
    """A namespace with `a` and `b`, which say so, and `echo`, which says what it was asked."""
    more = {"readinessProbe": {"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1}}
    echoing = pod("echo", "python3", "-c", ECHO, image=PYTHON, more=more)
    space.apply(*says("a"), *says("b"), echoing, service("echo", {"name": "http", "port": 80, "targetPort": 8000}))
    space.wait("condition=Ready", "pod/a", "pod/b", "pod/echo")
    return space


def test_rules(echo: Space) -> None:
    space, n = echo, echo.name
    space.apply(
        ingress("rules", f"one.{n}", ("/", "Prefix", "a"), ("/deep", "Prefix", "b"), ("/only", "Exact", "echo")),
        ingress("wild", f"*.wild.{n}", ("/", "ImplementationSpecific", "b")),
        ingress("half", f"half.{n}", ("/deep/", "Prefix", "a"), defaultBackend={
            "service": {"name": "b", "port": {"name": "http"}}}),
        service("outside", {"port": 80}, type="ExternalName", externalName=f"a.{n}.svc.cluster.local", selector={}),
        service("headless", {"name": "http", "port": 80, "targetPort": 8000}, selector={"app": "b"}, clusterIP="None"),
        ingress("far", f"far.{n}", ("/", "Prefix", "headless")),
    )  # fmt: skip
    until(lambda: ask(f"one.{n}") == "a" and ask(f"far.{n}") == "b")
    assert ask(f"one.{n}", "/deep/") == "b"
    assert ask(f"ONE.{n}:80", "/deep/index.html") == "b"
    assert "404" in ask(f"one.{n}", "/deeper")  # of a, which has none: not b's
    assert json.loads(ask(f"one.{n}", "/only?x=1"))["path"] == "/only?x=1"
    assert "404" in ask(f"one.{n}", "/only/")
    assert ask(f"any.wild.{n}") == "b"
    assert "no Ingress or DNS object names the host" in ask(f"a.b.wild.{n}")
    assert ask(f"half.{n}", "/deep/") == "a"
    assert ask(f"half.{n}", "/") == "b"
    assert f"no Ingress or DNS object names the host nobody.{n}" in ask(f"nobody.{n}")
    # The same from a pod, at the node's address, which the status tells.
    address = until(lambda: space.path("ingress/rules", ".status.loadBalancer.ingress[0].ip"))
    assert address == space.path("pod/a", ".status.hostIP")
    header = f"Host: one.{n}"
    assert space.exec("b", "wget", "-qO-", "--header", header, f"http://{address}:{HTTP}/") == "a"
    described = space.agent.minik8s("-n", n, "describe", "ingress", "rules").out
    assert f"a:80 ({space.path('pod/a', '.status.podIP')}:8000)" in described


def test_what_services_see(echo: Space) -> None:
    n = echo.name
    echo.apply(
        ingress("i", f"echo.{n}", ("/", "Prefix", "echo")),
        dns("d", f"dns.{n}", "echo", "/shop/"),
        dns("whole", f"whole.{n}", "echo", "/shop", stripPrefix=False),
    )
    until(lambda: "Host" in ask(f"echo.{n}") and "Host" in ask(f"whole.{n}", "/shop"))
    seen = json.loads(
        ask(f"echo.{n}", "/a%2Fb?c=%20", "-H", "X-Forwarded-For: 6.6.6.6", "-H", "X-Forwarded-Prefix: /x")
    )
    assert seen["path"] == "/a%2Fb?c=%20"
    headers = seen["headers"]
    assert headers["Host"] == headers["X-Forwarded-Host"] == f"echo.{n}"
    assert (headers["X-Forwarded-For"], headers["X-Real-IP"]) == ("127.0.0.1", "127.0.0.1")
    assert (headers["X-Forwarded-Proto"], headers["X-Forwarded-Port"]) == ("http", str(HTTP))
    assert "X-Forwarded-Prefix" not in headers
    # Below a path of a DNS object, services see what follows it, and their redirects stay below it.
    stripped = json.loads(ask(f"dns.{n}", "/shop/cart?x=1"))
    assert (stripped["path"], stripped["headers"]["X-Forwarded-Prefix"]) == ("/cart?x=1", "/shop")
    assert json.loads(ask(f"dns.{n}", "/shop"))["path"] == "/"
    assert "Location: http://127.0.0.1" not in ask(f"dns.{n}", "/shop/away", "-i")
    assert "/shop/login" in ask(f"dns.{n}", "/shop/away", "-i")
    assert json.loads(ask(f"whole.{n}", "/shop/cart"))["path"] == "/shop/cart"
    # Bodies of any size, streams as they come, upgraded connections.
    connection = HTTPConnection("127.0.0.1", HTTP, timeout=20)
    connection.request("POST", "/upload", body=bytes(100_000_000), headers={"Host": f"echo.{n}"})
    assert connection.getresponse().read() == b"100000000"
    connection.close()
    with socket.create_connection(("127.0.0.1", HTTP), timeout=5) as stream:
        stream.sendall(f"GET /slow HTTP/1.1\r\nHost: echo.{n}\r\n\r\n".encode())
        heard = b""
        while b"one" not in heard:
            heard += stream.recv(4096)
        assert b"two" not in heard
    with socket.create_connection(("127.0.0.1", HTTP), timeout=5) as stream:
        stream.sendall(f"GET /ws HTTP/1.1\r\nHost: echo.{n}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n".encode())
        lines = stream.makefile("rb")
        assert b"101" in lines.readline()
        while lines.readline().strip():
            pass
        stream.sendall(b"hello\n")
        assert lines.readline() == b"HELLO\n"


def test_tls(echo: Space) -> None:
    n = echo.name
    ca = pki.new_ca("test")
    for host in ("one", "two"):
        pair = pki.issue(ca, host, names=[f"{host}.{n}"], server=True)
        data = {"tls.crt": pair.certificate + ca.certificate, "tls.key": pair.key}
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": host}, "type": "kubernetes.io/tls"}
        echo.apply({**secret, "data": encoded})
    tls = [{"hosts": [f"{host}.{n}"], "secretName": host} for host in ("one", "two")]
    backend = {"service": {"name": "a", "port": {"number": 80}}}
    paths = {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}
    rules = [{"host": f"{host}.{n}", "http": paths} for host in ("one", "two", "three")]
    echo.apply(ingress("tls", "", tls=[*tls, {"hosts": [f"three.{n}"], "secretName": "absent"}], rules=rules))
    until(lambda: ask(f"one.{n}", "/", "-k", port=HTTPS) == "a" and served_as(f"one.{n}") == [f"one.{n}"])
    assert served_as(f"two.{n}") == [f"two.{n}"]
    assert served_as(f"three.{n}") == ["minik8s-ingress.invalid"]
    assert ask(f"one.{n}", "/", "-k", port=HTTPS) == "a"
    assert ask(f"one.{n}") == "a"  # plain as well
    (event,) = until(lambda: echo.events("BadCertificate"))
    assert "there is no Secret" in event["message"]
    # A renewed one is served without a restart of anything.
    pair = pki.issue(ca, "new", names=[f"one.{n}", f"new.{n}"], server=True)
    data = {"tls.crt": base64.b64encode(pair.certificate).decode(), "tls.key": base64.b64encode(pair.key).decode()}
    echo.k("patch", "secret", "one", "-p", json.dumps({"data": data}))
    until(lambda: f"new.{n}" in served_as(f"one.{n}"))


def served_as(host: str) -> list[str]:
    """The names in the certificate that is shown to who asks for `host`."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", HTTPS), timeout=5) as plain:
        with context.wrap_socket(plain, server_hostname=host) as stream:
            certificate = stream.getpeercert(binary_form=True)
    assert certificate is not None
    return sorted(pki.names_of(ssl.DER_cert_to_PEM_cert(certificate).encode()))


class Load:
    """`with Load(host) as load:` asks http://host/ from several threads, each time on a new connection."""

    def __init__(self, host: str, threads: int = 4, pause: float = 0.012) -> None:
        self.host, self.pause = host, pause
        self.good = 0
        self.failures: list[str] = []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def _run(self) -> None:
        while not self._end.wait(self.pause):
            connection = HTTPConnection("127.0.0.1", HTTP, timeout=10)
            try:
                connection.request("GET", "/", headers={"Host": self.host, "Connection": "close"})
                response = connection.getresponse()
                text = response.read().decode().strip()
                if response.status == 200 and text == "a":
                    self.good += 1
                else:
                    self.failures.append(f"{response.status} {text}")
            except (OSError, HTTPException) as error:
                self.failures.append(repr(error))
            finally:
                connection.close()

    def __enter__(self) -> Load:
        self.began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(15)
        self.rate = self.good / (time.monotonic() - self.began)


def test_changes_lose_no_request(echo: Space) -> None:
    n = echo.name
    echo.apply(ingress("steady", f"steady.{n}", ("/", "Prefix", "a")))
    until(lambda: ask(f"steady.{n}") == "a")
    with Load(f"steady.{n}") as load:
        for number in range(3):
            echo.apply(ingress("more", f"more.{n}", (f"/{number}", "Exact", "b"), ("/deep", "Prefix", "b")))
            until(lambda number=number: "404 Not Found: no Ingress" not in ask(f"more.{n}", f"/{number}"))  # type: ignore[misc]
        echo.k("delete", "ingress", "more")
        until(lambda: "no Ingress or DNS object names the host" in ask(f"more.{n}"))
    print(f"{load.good} requests at {load.rate:.0f}/s through 4 reloads")
    assert load.failures == []
    assert load.good > 200


def test_what_nginx_refuses_leaves_the_old_one_live(echo: Space) -> None:
    n = echo.name
    echo.apply(dns("good", f"good.{n}", "a"))
    until(lambda: ask(f"good.{n}") == "a")
    try:
        bad = config_map("nginx", http="gizp on;")
        bad["metadata"]["namespace"] = "minik8s-ingress"
        echo.agent.kubectl("apply", "-f", "-", stdin=json.dumps(bad))
        echo.apply(dns("late", f"late.{n}", "b"))
        told = echo.until("dns late", lambda d: conditions(d).get("Programmed", ("", ""))[0] == "ConfigurationRefused")
        assert '[emerg] unknown directive "gizp"' in conditions(told)["Programmed"][1]
        (event,) = until(lambda: echo.events("ConfigurationRefused", kind="DNS", name="late"))
        assert '[emerg] unknown directive "gizp"' in event["message"]
        assert ask(f"good.{n}") == "a"
        assert "no Ingress or DNS object names the host" in ask(f"late.{n}")
        # What is live survives the death of nginx meanwhile.
        kill_nginx(echo)
        until(lambda: ask(f"good.{n}") == "a")
    finally:
        echo.agent.kubectl("delete", "configmap", "nginx", *NGINX)
    until(lambda: ask(f"late.{n}") == "b")


def conditions(obj: Json) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["reason"], c["message"]) for c in obj.get("status", {}).get("conditions", ())}


def kill_nginx(space: Space) -> None:
    """Its container, by SIGKILL; returns when it is back and ready."""
    chosen = ("pods", "-l", "app.kubernetes.io/name=nginx", "-o", "json")
    (found,) = space.agent.kubectl("get", *NGINX, *chosen).json["items"]
    before = found["status"]["containerStatuses"][0]
    run(["docker", "kill", before["containerID"].removeprefix("docker://")])

    def is_back() -> bool:
        (now,) = space.agent.kubectl("get", *NGINX, *chosen).json["items"]
        status = now["status"]["containerStatuses"][0]
        return status["ready"] and status["restartCount"] > before["restartCount"]

    until(is_back)


def test_services_that_cannot_answer(echo: Space) -> None:
    n = echo.name
    echo.apply(
        service("empty", {"port": 80}),
        ingress("i", f"e.{n}", ("/empty", "Prefix", "empty"), ("/absent", "Prefix", "absent"), ("/", "Prefix", "a")),
    )
    until(lambda: ask(f"e.{n}") == "a")
    assert ask(f"e.{n}", "/empty", "-w", " %{http_code}") == (
        f"503 Service Unavailable: no endpoint of service {n}/empty accepts connections\n 503"
    )
    assert f"503 Service Unavailable: there is no service {n}/absent" in ask(f"e.{n}", "/absent")
    (event,) = until(lambda: echo.events("ServiceNotFound", kind="Ingress"))
    assert f"there is no service {n}/absent" in event["message"]
    echo.apply(*says("absent"))
    echo.wait("condition=Ready", "pod/absent")
    until(lambda: ask(f"e.{n}", "/absent") != "" and "no service" not in ask(f"e.{n}", "/absent"))


def test_conflicts_and_classes(echo: Space) -> None:
    n = echo.name
    echo.apply(ingress("old", f"c.{n}", ("/", "Prefix", "a")))
    until(lambda: ask(f"c.{n}") == "a")
    echo.apply(dns("young", f"c.{n}", "b"), ingress("theirs", f"t.{n}", ("/", "Prefix", "b"), ingressClassName="other"))
    told = echo.until("dns young", lambda d: conditions(d).get("Accepted", ("", ""))[0] == "PathConflict")
    assert f"belongs to the older Ingress {n}/old" in conditions(told)["Accepted"][1]
    assert ask(f"c.{n}") == "a"
    assert "no Ingress or DNS object names the host" in ask(f"t.{n}")
    assert echo.path("ingress/old", ".spec.ingressClassName") == "minik8s"
    echo.k("delete", "ingress", "old")
    until(lambda: ask(f"c.{n}") == "b")
    assert conditions(echo.until("dns young", lambda d: conditions(d)["Accepted"][0] == "Accepted"))


def test_classic_manifests(echo: Space) -> None:
    n = echo.name
    listed = {"kind": "DNS", "apiVersion": "v1", "metadata": {"name": "listed"},
              "spec": {"host": f"l.{n}", "paths": [{"subPath": "/x", "svcName": "a", "svcPort": 80}]}}  # fmt: skip
    applied = echo.k("apply", "-f", "-", stdin=json.dumps(listed))
    assert "older dialect" in applied.err
    uid = echo.path("svc/b", ".metadata.uid")
    paths = {"/y": {"serviceUID": uid, "servicePort": 80}}
    mapped = {"kind": "Dns", "metadata": {"name": "mapped"}, "spec": {"host": f"m.{n}", "paths": paths}}
    assert "older dialect" in echo.agent.minik8s("-n", n, "apply", "-f", "-", stdin=json.dumps(mapped)).err
    until(lambda: ask(f"l.{n}", "/x/") == "a" and ask(f"m.{n}", "/y") == "b")
    assert echo.path("dns/mapped", ".spec.paths[0].service.uid") == uid


def test_a_port_that_somebody_has_stays_theirs(echo: Space) -> None:
    n = echo.name
    gone = ("get", "ds", "nginx", *NGINX, "--ignore-not-found", "-o", "name")
    others = echo.agent.kubectl("get", "ingress", "-A", "-o", "json").json["items"]
    assert [o["metadata"]["namespace"] for o in others if not o["metadata"].get("deletionTimestamp")] == []
    until(lambda: not echo.agent.kubectl(*gone).out and not ask("x", "/").startswith("404"))
    with socket.create_server(("", HTTP)):
        echo.apply(dns("d", f"p.{n}", "a"))
        why = "[emerg] bind() to 0.0.0.0:18080 failed (98: Address already in use)"
        told = echo.until("dns d", lambda d: why in conditions(d).get("Programmed", ("", ""))[1])
        assert conditions(told)["Programmed"][0] == "NginxNotReady"
        assert not told["status"].get("addresses")
        assert until(lambda: echo.events("NginxNotReady", kind="DNS"))
