"""Tokens and kubeconfigs as people paste them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from minik8s import pki
from minik8s.api.errors import BadRequest
from minik8s.web import login

PEM = base64.b64encode(b"pem").decode()


def kubeconfig(user: Any, **more: Any) -> str:
    return json.dumps({
        "users": [{"name": "other", "user": {}}, {"name": "me", "user": user}],
        "contexts": [{"name": "c", "context": {"user": "me", "cluster": "x"}}], "current-context": "c", **more,
    })  # fmt: skip


def test_a_token() -> None:
    assert login.read("  abc.def-_\n") == login.Login(token="abc.def-_")


def test_a_kubeconfig_with_a_token_or_a_certificate_as_json_or_yaml() -> None:
    assert login.read(kubeconfig({"token": "t"})) == login.Login(token="t")
    made = login.read(kubeconfig({"client-certificate-data": PEM, "client-key-data": PEM}))
    assert made == login.Login(certificate=b"pem", key=b"pem")
    assert login.read("users:\n- name: a\n  user:\n    token: t\n").token == "t"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "paste"), ("two words", "neither"), ("[1", "neither"), ("a: [", "not YAML"), ("{", "not YAML"),
        ("a: 1", "no user"),
        (kubeconfig({"exec": {"command": "rm"}}), "has exec"),
        (kubeconfig({"client-key": "/etc/shadow", "token": "t"}), "client-key"),
        (kubeconfig({"tokenFile": "/etc/shadow"}), "tokenFile"),
        (kubeconfig({"a": 1}), "neither a token nor a certificate"),
        (kubeconfig({"client-certificate-data": "%%", "client-key-data": PEM}), "neither"),
        (kubeconfig({"client-certificate-data": 7, "client-key-data": PEM}), "neither"),
        (kubeconfig({"token": "a\r\nHost: b"}), "broken"), (kubeconfig({}, users=7), "no user"),
        (kubeconfig({"token": "t"}, **{"current-context": "gone"}), "no user"), ("x: " + "[" * 50, "neither"),
        ("x: " + "[" * 5000, "sensible size"), ("- {}\n" * 200, "sensible size"), ("a: b\n" * 5000, "sensible size"),
    ],
)  # fmt: skip
def test_what_cannot_log_in_is_told_why(text: str, why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        login.read(text)


def test_a_broken_pair_is_told(tmp_path: Path) -> None:
    ca = tmp_path / "ca.crt"
    ca.write_bytes(pki.new_ca("x").certificate)
    with pytest.raises(BadRequest, match="broken"):
        login.context(login.Login(certificate=b"x", key=b"y"), str(ca))
