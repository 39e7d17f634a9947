"""The dashboard's own answers, over HTTP: who may come in, what forged requests get, what is read-only."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any, NamedTuple

import pytest

from tests.agent import free_port, until
from tests.web.served import Served, served

PODS = "/api/v1/namespaces/default/pods"


class Answer(NamedTuple):
    status: int
    headers: Any
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Browser:
    """As much of one as a forger has: a cookie, and headers of its choice."""

    def __init__(self, site: Served) -> None:
        self.host = site.url.split("/")[2]
        self.cookie = self.csrf = ""

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        connection = HTTPConnection(self.host, timeout=20)
        given = {key.replace("_", "-"): value for key, value in headers.items()}
        if self.cookie:
            given["Cookie"] = self.cookie
        data = body if isinstance(body, str) or body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json", **given})
        answer: HTTPResponse = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return Answer(answer.status, answer.headers, text)

    def login(self, credentials: str) -> Answer:
        answer = self.ask("POST", "/session", {"credentials": credentials})
        if answer.status == 200:
            self.cookie = answer.headers["Set-Cookie"].split(";")[0]
            self.csrf = answer.json["csrf"]
        return answer

    def write(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        return self.ask(method, path, body, **{"X_CSRF_Token": self.csrf, **headers})


@pytest.fixture(scope="module")
def site() -> Iterator[Served]:
    with served("--dashboard-write") as one:
        yield one


@pytest.fixture(scope="module")
def admin(site: Served) -> Browser:
    browser = Browser(site)
    assert browser.login(site.admin()).status == 200
    return browser


def test_logging_in_and_out(site: Served) -> None:
    browser = Browser(site)
    assert browser.ask("GET", "/session").json == {"user": ""}
    assert browser.ask("GET", PODS).status == 401
    for wrong in ("nonsense", "a.b.c"):
        assert browser.login(wrong).status == 401
    assert browser.login("").status == 400
    answer = browser.login(site.agent.kubeconfig.read_text())
    assert answer.json["user"] == "kubernetes-admin"
    assert "system:masters" in answer.json["groups"]
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert answer.json["csrf"] not in cookie
    assert browser.ask("GET", PODS).status == 200
    assert browser.write("DELETE", "/session").status == 200
    assert browser.ask("GET", PODS).status == 401


def test_a_forged_change_is_refused(site: Served, admin: Browser) -> None:
    pod = {"metadata": {"name": "forged"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    assert admin.ask("POST", PODS, pod).status == 403
    assert admin.write("POST", PODS, pod, X_CSRF_Token="wrong").status == 403
    assert admin.write("POST", PODS, pod, X_CSRF_Token="ü").status in (400, 403)
    foreign = {"Origin": "http://evil.example"}
    assert admin.write("POST", PODS, pod, **foreign).status == 403
    assert admin.ask("GET", PODS, **foreign).status == 403
    assert admin.ask("DELETE", "/session").status == 403
    assert admin.ask("PUT", f"/yaml{PODS}/forged", "a: 1").status == 403
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": "A" * 22 + "==",
    }
    for path in ("/live", "/exec/default/forged"):
        assert admin.ask("GET", path, **upgrade).status == 403
        assert admin.ask("GET", path, **upgrade, **foreign).status == 403
    assert admin.ask("POST", "/session", "credentials=x", Content_Type="text/plain").status == 400
    own = {"Origin": site.url.rstrip("/")}
    assert admin.write("POST", PODS, pod, **own).status == 200
    assert admin.write("DELETE", f"{PODS}/forged", **own).status == 200


def test_answers_can_never_be_a_page_with_scripts(site: Served, admin: Browser) -> None:
    page = admin.ask("GET", "/")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert admin.ask("GET", "/").headers["Content-Security-Policy"] != policy  # a nonce is used once
    site.pod("hostile", annotations={"a": "<script>alert(1)</script>"})
    for path in (f"{PODS}/hostile", f"/yaml{PODS}/hostile", f"{PODS}/<script>", "/nothing/<script>", "/static/app.js"):
        answer = admin.ask("GET", path)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "html" not in answer.headers["Content-Type"]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../site.py",
        "/static/..%2fsite.py",
        "/static/%2e%2e/site.py",
        "/static//etc/passwd",
        "/static/vendor",
        "/static/",
    ],
)
def test_only_its_own_files_are_given(admin: Browser, path: str) -> None:
    assert admin.ask("GET", path).status == 404


def test_what_the_gate_closes_is_closed(admin: Browser) -> None:
    for path in (f"{PODS}/x/proxy/", f"{PODS}/x/exec", f"{PODS}/x/%65xec", "/api/v1/nodes/n/proxy/metrics"):
        assert admin.ask("GET", path).status == 403
    assert admin.ask("GET", f"{PODS}?watch=true").status == 400
    assert admin.ask("GET", "/metrics").status == 404


def test_secrets_keep_their_values(site: Served, admin: Browser) -> None:
    secrets = "/api/v1/namespaces/default/secrets"
    site.api("POST", secrets, {"metadata": {"name": "hush"}, "stringData": {"key": "geheim"}})
    for path in (
        secrets,
        f"{secrets}/hush",
        f"/yaml{secrets}/hush",
        "/api/v1/secrets",
        "/api/v1/namespaces/default/%73ecrets/hush",
    ):
        answer = admin.ask("GET", path)
        assert answer.status == 200, path
        assert "key" in answer.text, path
        assert "Z2VoZWlt" not in answer.text, path
    assert admin.write("PATCH", f"{secrets}/hush", {"data": {}}).status == 403
    assert "Z2VoZWlt" not in admin.write("DELETE", f"{secrets}/hush").text


def test_a_user_may_what_rbac_allows(site: Served) -> None:
    browser = Browser(site)
    assert browser.login(site.token("reader", role="view")).status == 200
    assert browser.ask("GET", PODS).status == 200
    refused = browser.ask("GET", "/api/v1/nodes")
    assert refused.status == 403
    assert "reader" in refused.json["message"]
    assert browser.write("DELETE", f"{PODS}/hostile").status == 403
    assert browser.ask("GET", "/history/nodes").status == 403
    stranger = Browser(site)
    stranger.login(site.token("stranger"))
    assert stranger.ask("GET", "/history/pods?namespace=default&name=x").status == 403
    assert stranger.ask("GET", PODS).status == 403


def test_yaml_is_read_checked_and_written(site: Served, admin: Browser) -> None:
    maps = "/api/v1/namespaces/default/configmaps"
    site.api("POST", maps, {"metadata": {"name": "m"}, "data": {"a": "1"}})
    text = admin.ask("GET", f"/yaml{maps}/m").text
    assert text.startswith("apiVersion: v1\nkind: ConfigMap\n")
    new = text.replace("a: '1'", "a: '2'")
    assert "a: '2'" in admin.write("PUT", f"/yaml{maps}/m?dryRun=All", new).text
    assert site.api("GET", f"{maps}/m")["data"] == {"a": "1"}
    assert admin.write("PUT", f"/yaml{maps}/m", new).status == 200
    assert admin.write("PUT", f"/yaml{maps}/m", new.replace("'2'", "'3'")).status == 409
    broken = admin.write("PUT", f"/yaml{maps}/m", "a: [")
    assert broken.status == 400
    assert "line" in broken.json["message"]
    assert site.api("GET", f"{maps}/m")["data"] == {"a": "2"}


def test_read_only_is_read_only_for_everybody() -> None:
    with served() as site:
        browser = Browser(site)
        assert browser.login(site.admin()).json["write"] is False
        site.pod("kept")
        for method, path in (
            ("DELETE", f"{PODS}/kept"),
            ("PATCH", f"{PODS}/kept"),
            ("POST", PODS),
            ("PUT", f"/yaml{PODS}/kept"),
        ):
            answer = browser.write(method, path, {})
            assert answer.status == 403
            assert "--dashboard-write" in answer.json["message"]
        assert browser.ask("GET", "/exec/default/kept", Origin=site.url.rstrip("/")).status == 403
        assert browser.ask("GET", f"{PODS}/kept").status == 200


def test_beyond_loopback_it_speaks_tls_with_the_clusters_ca() -> None:
    port = free_port()
    with served("--dashboard-listen", f"0.0.0.0:{port}") as other:
        context = ssl.create_default_context(cafile=str(other.agent.data / "pki" / "ca.crt"))
        connection = HTTPSConnection("127.0.0.1", port, timeout=20, context=context)
        body = json.dumps({"credentials": other.agent.kubeconfig.read_text()})
        connection.request("POST", "/session", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200
        cookie = answer.headers["Set-Cookie"]
        assert cookie.startswith("__Host-minik8s=")
        assert "Secure" in cookie
        connection.close()


def test_a_taken_port_stops_no_cluster_and_addresses_are_told_as_urls(site: Served) -> None:
    taken = site.url.split("/")[2]
    with served("--dashboard-listen", taken) as other:
        until(lambda: "the dashboard cannot listen" in other.agent.log, what=lambda: other.agent.log)
    from minik8s.config import Config
    from minik8s.roles.dashboard import dashboard_url

    assert dashboard_url(Config()) == "http://127.0.0.1:8080/"
    assert dashboard_url(Config(dashboard_listen="0.0.0.0:8443", node_ip="10.1.2.3")) == "https://10.1.2.3:8443/"
    assert dashboard_url(Config(dashboard_listen="[::1]:1")) == "http://[::1]:1/"
