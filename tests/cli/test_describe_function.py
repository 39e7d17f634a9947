"""What `describe function` tells: revisions and their traffic, replicas and why so many, the last error."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from minik8s.api.errors import Forbidden
from minik8s.cli.describe_function import function
from minik8s.cli.describe_text import Lines, align

Json = dict[str, Any]
META = {"name": "f", "namespace": "default"}


def ready(status: str, reason: str, message: str = "") -> Json:
    return {"conditions": [{"type": "Ready", "status": status, "reason": reason, "message": message}]}


FUNCTION: Json = {
    "kind": "Function",
    "metadata": META,
    "spec": {
        "code": {"inline": "def main(:"},
        "concurrency": 10,
        "workers": 1,
        "timeoutSeconds": 30,
        "scale": {"minReplicas": 0, "maxReplicas": 10, "targetUtilization": 70, "idleSeconds": 60},
    },
    "status": {
        "url": "/function/default/f",
        "replicas": 1,
        "desiredReplicas": 2,
        "reason": "12.0 calls on average (7 are meant for one replica) in flight over the last 60s",
        "traffic": [{"revision": "f-00001", "percent": 100}],
        **ready("False", "LoadError", "f-00002: Traceback\n  SyntaxError: invalid syntax"),
    },
}
ANSWERS: dict[str, Json] = {
    "functionrevisions.faas.minik8s.io": {
        "items": [
            {"metadata": {"name": "f-00001"}, "status": {"contract": "main", **ready("True", "Loaded")}},
            {"metadata": {"name": "f-00002"}, "status": ready("False", "LoadError")},
        ]
    },
    "pods": {"items": [{"metadata": {"name": "f-abcde"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}]},
    "functions.faas.minik8s.io/f/calls": {
        "items": [
            {"id": "c2", "status": 200},
            {"id": "c1", "status": 500, "error": "ValueError: no", "revision": "f-00001", "time": "T"},
        ]
    },
}


def described(answers: dict[str, Json]) -> str:
    def get(path: str, query: Json) -> Json:
        if path not in answers:
            raise Forbidden("no")
        return answers[path]

    cluster = SimpleNamespace(
        kinds=SimpleNamespace(find=lambda kind: SimpleNamespace(path=lambda namespace: kind)),
        wire=SimpleNamespace(get=get),
    )
    lines = Lines()
    function(lines, FUNCTION, cluster, 0.0)
    return align(lines.texts)


def test_all_of_it() -> None:
    text = " ".join(described(ANSWERS).split())
    for part in (
        "URL: /function/default/f",
        "Replicas: 1 ready / 2 desired Reason: 12.0 calls on average",
        "Ready: False LoadError Message: f-00002: Traceback SyntaxError: invalid syntax",
        "f-00002 0% False LoadError",
        "f-00001 100% True Loaded main",
        "f-abcde n1 Running",
        "Last Error: 500 ValueError: no Call: c1 of f-00001 at T",
    ):
        assert part in text


def test_for_somebody_who_may_see_no_more_than_the_function() -> None:
    text = " ".join(described({}).split())
    assert "Revisions: <none>" in text
    assert "Last Error" not in text
