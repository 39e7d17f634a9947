"""One agent and one browser for all pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.web.browsing import DESK, XSS, chromium, watched
from tests.web.served import Served, served


@pytest.fixture(scope="package")
def site() -> Iterator[Served]:
    with served("--dashboard-write") as one:
        one.deployment("web", 3)
        ports = {"selector": {"app": "web"}, "ports": [{"port": 80}]}
        one.api("POST", "/api/v1/namespaces/default/services", {"metadata": {"name": "web"}, "spec": ports})
        one.api("POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"name": "evil"}, "data": {"a": XSS}})
        one.api("POST", "/api/v1/namespaces/default/secrets", {"metadata": {"name": "hush"}, "stringData": {"a": XSS}})
        yield one


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    with chromium() as one:
        yield one


@pytest.fixture(scope="package")
def admin(site: Served) -> str:
    return site.admin()


@pytest.fixture(scope="package")
def inside(browser: Any, site: Served, admin: str) -> Iterator[Any]:
    """A context in which the administrator has logged in."""
    context = browser.new_context(viewport=DESK)
    context.request.post(f"{site.url}session", data={"credentials": admin})
    yield context
    context.close()


@pytest.fixture
def page(inside: Any, site: Served) -> Iterator[Any]:
    with watched(inside) as one:
        one.goto(site.url)
        one.wait_for_selector(".frame")
        yield one
