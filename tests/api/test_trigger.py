"""Triggers: what is one, and what is refused with the field and the remedy."""

from __future__ import annotations

from typing import Any

import pytest

from minik8s.api.kinds.trigger import RESOURCE

Json = dict[str, Any]


def faults(spec: Json) -> list[str]:
    trigger = {"metadata": {"name": "t"}, "spec": spec}
    RESOURCE.default(trigger)
    return [f"{cause.field}: {cause.message}" for cause in RESOURCE.validate(trigger, None)]


@pytest.mark.parametrize(
    "spec",
    [
        {"function": "f", "http": {"path": "/hello"}},
        {"function": "f", "http": {"path": "/"}},
        {"function": "f", "http": {"path": "/*", "method": "get"}},
        {"function": "f", "http": {"path": "/shop/a%20b/*", "method": "POST"}},
        {"function": "f", "http": {"path": "/functions"}},
        {"function": "f", "cron": {"schedule": "*/5 * * * *"}},
        {"function": "f", "cron": {"schedule": "@daily", "timeZone": "Europe/Berlin", "payload": [1]}},
    ],
)
def test_good_ones(spec: Json) -> None:
    assert faults(spec) == []


@pytest.mark.parametrize(
    ("spec", "field", "words"),
    [
        ({"http": {"path": "/a"}}, "spec.function", "Required"),
        ({"function": "f"}, "spec", "exactly one of"),
        ({"function": "f", "http": {"path": "/a"}, "cron": {"schedule": "@daily"}}, "spec", "exactly one of"),
        ({"function": "F_f", "http": {"path": "/a"}}, "spec.function", "RFC 1123"),
        ({"function": "f", "http": {"path": "a"}}, "spec.http.path", "must begin with '/'"),
        ({"function": "f", "http": {"path": "/a*"}}, "spec.http.path", "may end in"),
        ({"function": "f", "http": {"path": "/a/../b"}}, "spec.http.path", "must begin"),
        ({"function": "f", "http": {"path": "/function/x"}}, "spec.http.path", "the gateway's own"),
        ({"function": "f", "http": {"path": "/healthz"}}, "spec.http.path", "the gateway's own"),
        ({"function": "f", "http": {"path": "/a", "method": "FETCH"}}, "spec.http.method", "supported values"),
        ({"function": "f", "cron": {"schedule": "x"}}, "spec.cron.schedule", "five fields"),
        ({"function": "f", "cron": {"schedule": "@daily", "timeZone": "a b"}}, "spec.cron.timeZone", "Europe/Berlin"),
    ],
)
def test_bad_ones(spec: Json, field: str, words: str) -> None:
    found = faults(spec)
    assert any(text.startswith(f"{field}: ") and words in text for text in found), found
