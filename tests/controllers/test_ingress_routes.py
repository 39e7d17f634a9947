"""Who gets which host and path, what is told to the others, and what nginx reads of it."""

from __future__ import annotations

import datetime
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minik8s import pki
from minik8s.api.kinds.endpointslice import EndpointSlice
from minik8s.api.kinds.ingress import Ingress
from minik8s.api.kinds.ingressclass import IngressClass
from minik8s.api.kinds.service import Service
from minik8s.clock import rfc3339
from minik8s.controllers.ingress_certificates import fault_of, self_signed
from minik8s.controllers.ingress_nginx import Options, Rendered, render
from minik8s.controllers.ingress_routes import (
    EXACT,
    PREFIX,
    STRIP_PREFIX,
    Backend,
    Cluster,
    Host,
    Pair,
    Route,
    Table,
    compile_routes,
    is_ours,
)

from .objects import NOW

GOLDENS = Path(__file__).parent / "goldens"
PAIR = Pair(b"certificate", b"key")


def ingress(name: str, *rules: Any, age: float = 0, annotations: dict[str, str] | None = None, **spec: Any) -> Ingress:
    """`rules` are (host, path, type, service) each."""
    found = [
        {"host": host, "http": {"paths": [{"path": path, "pathType": type, "backend": backend(to)}]}}
        for host, path, type, to in rules
    ]
    meta = {
        "name": name, "namespace": "default", "uid": f"uid-{name}", "annotations": annotations or {},
        "creationTimestamp": rfc3339(NOW - age),
    }  # fmt: skip
    return msgspec.convert({"metadata": meta, "spec": {"rules": found, **spec}}, Ingress)


def backend(to: str) -> dict[str, Any]:
    name, _, port = to.partition(":")
    number_or_name = {"number": int(port or 80)} if (port or "80").isdigit() else {"name": port}
    return {"service": {"name": name, "port": number_or_name}}


def service(name: str, **spec: Any) -> Service:
    wanted = {"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80, "targetPort": 8000}], **spec}
    return msgspec.convert({"metadata": {"name": name, "namespace": "default"}, "spec": wanted}, Service)


SERVICES = {
    each.metadata.name: each
    for each in (
        service("a"),
        service("b", clusterIP="10.96.0.8"),
        service("headless", clusterIP="None"),
        service("named", clusterIP="None", ports=[{"name": "http", "port": 80, "targetPort": "web"}]),
        service("outside", type="ExternalName", externalName="Example.test.", clusterIP="", ports=[]),
        service("udp", ports=[{"name": "http", "port": 80, "protocol": "UDP"}]),
    )
}
SLICE = msgspec.convert({"ports": [{"name": "http", "port": 8080}]}, EndpointSlice)


def world(**certificates: Pair | str) -> Cluster:
    return Cluster(
        lambda space, name: SERVICES.get(name) if space == "default" else None,
        lambda space, name: [SLICE],
        lambda space, name: certificates.get(name, "absent"),
    )


def table(*ingresses: Ingress, **certificates: Pair | str) -> Table:
    return compile_routes(ingresses, world(**certificates))


def routes(found: Table) -> dict[str, list[tuple[str, str, str]]]:
    return {h.name: [(r.type, r.path, r.backend.service) for r in h.routes] for h in found.hosts}


# -- who gets what


def test_the_oldest_holds_a_path_and_the_younger_is_told() -> None:
    old = ingress("z", ("x.test", "/p", PREFIX, "a"), age=10)
    new = ingress("a", ("x.test", "/p/", PREFIX, "b"), ("x.test", "/q", EXACT, "b"), ("x.test", "/p", EXACT, "b"))
    found = table(new, old)
    assert routes(found)["x.test"] == [
        (EXACT, "/p", "default/b"), (PREFIX, "/p", "default/a"), (EXACT, "/q", "default/b"),
    ]  # fmt: skip
    assert list(found.problems) == ["default/a"]
    (problem,) = found.problems["default/a"]
    assert problem.reason == "PathConflict"
    assert "x.test/p (Prefix) belongs to the older Ingress default/z" in problem.message


def test_at_the_same_age_the_name_decides() -> None:
    both = [ingress(name, ("x.test", "/", PREFIX, name)) for name in ("b", "a")]
    assert routes(table(*both)) == {"x.test": [(PREFIX, "", "default/a")]}


def test_a_default_backend_takes_what_nobody_names() -> None:
    with_rules = ingress("a", ("x.test", "/p", PREFIX, "a"), defaultBackend=backend("b"), age=10)
    others = ingress("b", ("x.test", "/", PREFIX, "a"))
    everything = ingress("c", defaultBackend=backend("b"))
    found = table(with_rules, others, everything)
    assert routes(found) == {
        "": [(PREFIX, "", "default/b")],
        "x.test": [(PREFIX, "", "default/a"), (PREFIX, "/p", "default/a")],
    }
    assert [p.reason for p in found.problems["default/a"]] == ["PathConflict"]  # its default gave way to a rule


@pytest.mark.parametrize(
    ("to", "wanted"),
    [
        ("a", Backend("default/a", "10.96.0.7", 80)),
        ("a:http", Backend("default/a", "10.96.0.7", 80)),
        ("headless", Backend("default/headless", "headless.default.svc.cluster.local", 8000, named=True)),
        ("named:http", Backend("default/named", "named.default.svc.cluster.local", 8080, named=True)),
        ("outside:8443", Backend("default/outside", "example.test", 8443, named=True)),
        ("outside:http", Backend("default/outside", fault="service default/outside has no port 'http'")),
        ("absent", Backend("default/absent", fault="there is no service default/absent")),
        ("a:81", Backend("default/a", fault="service default/a has no TCP port 81")),
        ("udp", Backend("default/udp", fault="service default/udp has no TCP port 80")),
    ],
)
def test_how_services_are_reached(to: str, wanted: Backend) -> None:
    found = table(ingress("i", ("x.test", "/", PREFIX, to)))
    assert found.hosts[0].routes[0].backend == wanted
    assert [p.reason for p in found.problems.get("default/i", ())] == (["ServiceNotFound"] if wanted.fault else [])
    assert found.services == {f"default/{to.partition(':')[0]}"}


def test_certificates_are_of_the_oldest_and_a_bad_one_is_told() -> None:
    tls = [{"hosts": ["x.test"], "secretName": "one"}]
    first = ingress("a", ("x.test", "/", PREFIX, "a"), tls=tls, age=9)
    second = ingress("b", ("x.test", "/b", PREFIX, "a"), tls=[{"secretName": "two"}], age=5)
    bad = ingress("c", ("y.test", "/", PREFIX, "a"), tls=[{"hosts": ["y.test"], "secretName": "none"}])
    found = table(first, second, bad, one=PAIR, two=PAIR)
    assert {h.name: h.certificate for h in found.hosts} == {"x.test": "default.one", "y.test": "default"}
    assert found.certificates == {"default.one": PAIR}
    assert {k: [p.reason for p in ps] for k, ps in found.problems.items()} == {
        "default/b": ["HostConflict"], "default/c": ["BadCertificate"],
    }  # fmt: skip
    assert found.secrets == {"default/one", "default/two", "default/none"}


def test_classes() -> None:
    def cls(name: str, controller: str = "net.minik8s.io/ingress-nginx", default: str = "") -> IngressClass:
        annotations = {"ingressclass.kubernetes.io/is-default-class": default}
        return msgspec.convert(
            {"metadata": {"name": name, "annotations": annotations}, "spec": {"controller": controller}}, IngressClass
        )

    ours, others = cls("minik8s", default="true"), cls("other", "k8s.io/ingress-nginx")
    both = {"minik8s": ours, "other": others}
    assert is_ours(ingress("i"), both)
    assert not is_ours(ingress("i"), {"other": others})
    assert not is_ours(ingress("i"), {"minik8s": cls("minik8s")})
    assert not is_ours(ingress("i", ingressClassName="other"), both)
    assert is_ours(ingress("i", ingressClassName="minik8s"), {})
    assert not is_ours(ingress("i", annotations={"kubernetes.io/ingress.class": "other"}), both)
    assert not is_ours(ingress("i", ingressClassName="absent"), both)


# -- what nginx reads

GOLDEN_TABLE = (
    ingress("shop", ("shop.example", "/", PREFIX, "a"), ("shop.example", "/cart", EXACT, "b:http"), age=9,
            tls=[{"hosts": ["shop.example"], "secretName": "shop"}]),
    ingress("dns", ("*.nginx", "/ngin\u00e9x/", PREFIX, "b"), ("*.nginx", "/gone", PREFIX, "absent"), age=8,
            annotations={STRIP_PREFIX: "true"}),
    ingress("far", ("", "/far", PREFIX, "outside:81"), ("", "/all", "ImplementationSpecific", "headless"), age=7),
)  # fmt: skip


def test_golden(pytestconfig: pytest.Config) -> None:
    text = render(table(*GOLDEN_TABLE, shop=PAIR), PAIR, Options(extra="gzip on;")).conf
    golden = GOLDENS / "nginx.conf"
    if pytestconfig.getoption("--update-goldens"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_versions_tell_what_changed_and_whose_it_was() -> None:
    one = render(table(*GOLDEN_TABLE, shop=PAIR), PAIR, Options())
    assert render(table(*reversed(GOLDEN_TABLE), shop=PAIR), PAIR, Options()).version == one.version
    renewed = render(table(*GOLDEN_TABLE, shop=Pair(b"new", b"key")), PAIR, Options())
    assert renewed.version != one.version
    assert {key for key in one.fragments if one.fragments[key] != renewed.fragments[key]} == {"default/shop"}
    assert set(one.fragments) == {"default/shop", "default/dns", "default/far"}


# -- hostile values

TOKEN = re.compile(
    r"""\s+|\#[^\n]*|"((?:\\.|[^"\\])*)"|'[^']*'|([{};])|([^\s"';{}][^\s;{}]*(?:\{[^}]*\}[^\s;{}]*)*)""", re.S
)


def shape(conf: str) -> list[str]:
    """The configuration's tokens by nginx' rules, arguments that are quoted replaced by "": its structure."""
    found, at = [], 0
    while at < len(conf):
        match = TOKEN.match(conf, at)
        assert match, conf[at : at + 80]
        at = match.end()
        if match[1] is not None:
            found.append('""')
        elif match[2] or match[3]:
            found.append(match[2] or match[3])
    return found


hostile = st.text(st.sampled_from("/a.\"'\\{};$ \n\t#~^*=é@%0A2fF|()[]") | st.characters(codec="utf-8"), max_size=30)


@given(path=hostile, type=st.sampled_from([EXACT, PREFIX, "ImplementationSpecific"]), strip=st.booleans())
@settings(max_examples=300, deadline=None)
def test_no_path_can_leave_its_argument(path: str, type: str, strip: bool) -> None:
    annotations = {STRIP_PREFIX: "true"} if strip else {}
    found = table(ingress("i", ("x.test", "/" + path, type, "a"), annotations=annotations))
    plain = table(ingress("i", ("x.test", "/" + "x", type, "a"), annotations=annotations))
    if found.problems:
        assert [p.reason for p in found.problems["default/i"]] == ["InvalidPath"]
        return
    if found.hosts[0].routes[0].path == "":
        plain = table(ingress("i", ("x.test", "/", type, "a"), annotations=annotations))
    assert shape(render(found, PAIR, Options()).conf) == shape(render(plain, PAIR, Options()).conf)


@given(host=hostile)
@settings(max_examples=200, deadline=None)
def test_what_is_no_host_name_is_left_out(host: str) -> None:
    found = table(ingress("i", (host, "/", PREFIX, "a")))
    assert [h.name for h in found.hosts] == ([host] if not found.problems else [])
    assert found.problems or re.fullmatch(r"(\*\.)?[a-z0-9.-]+|", host)


@pytest.mark.skipif(shutil.which("nginx", path="/usr/sbin:/usr/bin") is None, reason="needs nginx")
@given(paths=st.lists(hostile, min_size=20, max_size=20), strip=st.booleans())
@settings(max_examples=8, deadline=None)
def test_nginx_takes_whatever_comes_out(
    paths: list[str], strip: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    annotations = {STRIP_PREFIX: "true"} if strip else {}
    rules = [("x.test", f"/{path}", type, "a") for path in paths for type in (EXACT, PREFIX)]
    rendered = render(table(ingress("i", *rules, annotations=annotations)), self_signed(), Options(18080, 18443))
    ended = nginx_test(tmp_path_factory.mktemp("nginx"), rendered)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.skipif(shutil.which("nginx", path="/usr/sbin:/usr/bin") is None, reason="needs nginx")
def test_nginx_takes_the_golden_one(tmp_path: Path) -> None:
    pair = self_signed()
    ended = nginx_test(tmp_path, render(table(*GOLDEN_TABLE, shop=pair), pair, Options(18080, 18443)))
    assert ended.returncode == 0, ended.stderr
    assert "warn" not in ended.stderr


def nginx_test(folder: Path, rendered: Rendered) -> subprocess.CompletedProcess[str]:
    for name, data in rendered.files.items():
        folder.joinpath(name).write_bytes(data)
    folder.joinpath("nginx.conf").write_text(rendered.conf.replace(" /tmp/", f" {folder}/"))
    command = ["nginx", "-t", "-c", str(folder / "nginx.conf")]
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", env={"PATH": "/usr/sbin:/usr/bin:/bin"}
    )


def test_thousands_of_hosts_and_paths_are_compiled_in_no_time() -> None:
    many = [ingress(f"i{n}", *((f"h{n}.test", f"/p{m}", PREFIX, "a") for m in range(10))) for n in range(500)]
    began = time.process_time()
    rendered = render(table(*many), PAIR, Options())
    seconds = time.process_time() - began
    print(
        f"5000 paths: {seconds:.2f} s, {len(rendered.conf)} bytes, {sum(map(len, rendered.files.values()))} in a Secret"
    )
    assert seconds < 2  # of CPU; 0.2 measured


# -- certificates


def test_certificates_are_looked_at_before_nginx_is() -> None:
    pair, other = self_signed(), self_signed()
    assert fault_of(pair) == ""
    assert "not the key of" in fault_of(Pair(pair.certificate, other.key))
    assert "no PEM certificate" in fault_of(Pair(b"", pair.key))
    assert "no PEM key" in fault_of(Pair(pair.certificate, b"-----BEGIN PRIVATE KEY-----\nx\n"))
    chain = Pair(pair.certificate + pki.new_ca("x").certificate, pair.key)
    assert fault_of(chain) == ""


def test_a_key_that_openssl_finds_too_short_is_told() -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(1))
    pem = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert "1024 bits" in fault_of(Pair(pem, private))


def test_a_host_alone_answers_nothing() -> None:
    """A rule without paths still makes its host known: to the rest of the world it is 404, not another host."""
    only = msgspec.convert(
        {"metadata": {"name": "i", "namespace": "default"}, "spec": {"rules": [{"host": "x.test"}]}}, Ingress
    )
    assert table(only).hosts == (Host("x.test", ()),)


def test_words_that_are_no_words_are_refused() -> None:
    bad = Table(
        (Host("x", (Route("k", PREFIX, "", Backend("default/a", "10.0.0.1; evil", 80)),)),),
        {},
        {},
        frozenset(),
        frozenset(),
    )
    with pytest.raises(ValueError, match="not a word"):
        render(bad, PAIR, Options())
