"""The pages in a real Chromium: what is there is shown and lives, what is refused is told, no object runs."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.agent import until
from tests.web.browsing import CHROMIUM, DESK, PHONE, XSS, go, opened
from tests.web.served import NODES, Served, served

PAGES = (
    "overview", "search", "nodes", "namespaces", "events", "deployments", "replicasets", "daemonsets", "jobs", "pods",
    "horizontalpodautoscalers", "services", "ingresses", "configmaps", "secrets", "engine", "volumes",
    "functions", "functionrevisions", "triggers", "environments", "workflows", "workflowruns", "gpujobs", "hpcclusters",
)  # fmt: skip
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Debian's chromium")


def test_credentials_that_nobody_has_are_refused_in_words(browser: Any, site: Served) -> None:
    page = browser.new_page()
    page.goto(site.url)
    page.fill("#credentials", "a.b.c")
    page.click("text=Log in")
    page.wait_for_selector(".login .notice[role=alert]")
    page.close()


def test_the_overview_counts_what_is_there(page: Any) -> None:
    page.wait_for_selector(f".tile:has-text('Nodes') b:text-is('{NODES}/{NODES}')")
    page.wait_for_selector(".tile:has-text('Deployments') b:text-is('1/1')")
    page.wait_for_selector("[aria-label='newest events'] [role=row] >> nth=1")


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_each_page_shows_its_objects_in_the_width_there_is(browser: Any, site: Served, admin: str, size: Any) -> None:
    full = {"nodes", "deployments", "replicasets", "pods", "services", "configmaps", "secrets", "events", "search"}
    with opened(browser, site, admin, size=size) as page:
        for name in PAGES:
            go(page, name)
            page.wait_for_selector("main h1")
            if name in full:
                page.wait_for_selector("[role=row].row")
            assert page.locator(".notice.bad").count() == 0, name
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        for kind, name in (("deployments", "web"), ("services", "web"), ("configmaps", "evil")):
            for tab in ("overview", "events", "yaml"):
                go(page, kind, "default", name, tab)
                page.wait_for_selector(f".tabs [aria-current=page]:has-text('{tab}')")
                assert page.locator(".notice.bad").count() == 0
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (kind, tab)


def test_pods_come_change_and_go_while_they_are_looked_at(page: Any, site: Served) -> None:
    go(page, "pods")
    page.wait_for_selector("[role=row].row")
    site.pod("visitor")
    page.wait_for_selector(".row:has-text('visitor'):has-text('Running')")
    site.api("DELETE", "/api/v1/namespaces/default/pods/visitor")
    page.wait_for_selector(".row:has-text('visitor')", state="detached")


def test_what_objects_say_is_text(page: Any, site: Served) -> None:
    site.pod("evil", annotations={"a": XSS}, labels={"kind": "x"})
    go(page, "pods", "default", "evil")
    page.wait_for_selector(f".annotations:has-text('{XSS}')")
    go(page, "configmaps", "default", "evil")
    page.wait_for_selector(f".data pre:has-text('{XSS}')")
    go(page, "pods", "default", XSS.replace("/", "%2F"))
    page.wait_for_selector(".notice")
    assert page.locator("img[src=x]").count() == 0


def test_a_deployment_is_scaled_and_its_yaml_changed(page: Any, site: Served) -> None:
    path = "/apis/apps/v1/namespaces/default/deployments/web"
    go(page, "deployments", "default", "web")
    page.click(".actions button:text-is('Scale')")
    page.fill("dialog input", "5")
    page.click("dialog button.primary")
    page.wait_for_selector(".fields div:has(dt:text-is('Available')) dd:text-is('5')")
    assert site.api("GET", path)["spec"]["replicas"] == 5
    go(page, "deployments", "default", "web", "yaml")
    area = page.locator("textarea")
    area.wait_for()
    text = area.input_value()
    area.fill(text.replace("replicas: 5", "replicas: -5", 1))
    page.click("button:text-is('Check')")
    page.wait_for_selector(".notice:has-text('spec.replicas')")
    site.api("PATCH", path, {"metadata": {"labels": {"meanwhile": "yes"}}})
    area.fill(text.replace("replicas: 5", "replicas: 4", 1))
    page.click("button:text-is('Save')")
    page.wait_for_selector(".notice:has-text('modified')")
    page.click("text=Discard, load the newest")
    until(lambda: "meanwhile" in area.input_value(), pause=0.05)
    area.fill(re.sub("replicas: 5", "replicas: 3", area.input_value(), count=1))
    page.click("button:text-is('Save')")
    page.wait_for_selector("text=Saved.")
    assert site.api("GET", path)["spec"]["replicas"] == 3


def test_a_service_shows_who_answers(page: Any, site: Served) -> None:
    go(page, "services", "default", "web")
    page.wait_for_selector("[aria-label=endpoints] .row:has-text('Ready') >> nth=2")


def test_keys_do(page: Any) -> None:
    page.keyboard.press("g")
    page.keyboard.press("d")
    page.wait_for_selector("h1:text-is('Deployments')")
    page.wait_for_selector(".row:has-text('web')")
    page.keyboard.press("/")
    page.keyboard.type("no such thing")
    page.wait_for_selector("text=Nothing fits the filter.")
    page.fill(".filter", "web")
    page.keyboard.press("Tab")
    page.focus(".rows")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('web')")
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open]")


def test_colours_follow_the_system_or_the_switch(page: Any) -> None:
    def ground() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = ground()
    page.emulate_media(color_scheme="dark")
    dark = ground()
    page.click("[aria-label='Colours: auto']")
    assert (light != dark, ground()) == (True, light)
    page.click("[aria-label='Colours: light']")
    page.emulate_media(color_scheme="light")
    assert ground() == dark
    page.click("[aria-label='Colours: dark']")


def test_only_rows_that_are_seen_are_made(page: Any, site: Served) -> None:
    site.deployment("many", 240)
    go(page, "pods")
    page.wait_for_selector(".count:text-matches('^2[4-9][0-9]$')", timeout=30_000)
    assert page.locator(".row").count() < 80
    page.focus(".rows")
    page.keyboard.press("End")
    page.wait_for_selector(".row:has-text('web-') >> nth=2")
    assert page.locator(".row").count() < 80
    site.api("DELETE", "/apis/apps/v1/namespaces/default/deployments/many")


def test_search_finds_by_name_and_label_over_kinds(page: Any) -> None:
    go(page, "search")
    page.fill(".filter", "web")
    for kind in ("Deployment", "Service", "Pod", "ReplicaSet"):
        page.wait_for_selector(f".row:has([role=cell]:text-is('{kind}'))")


def test_a_user_sees_and_may_what_rbac_says(browser: Any, site: Served) -> None:
    token = site.token("reader", role="view")
    with opened(browser, site, token) as page:
        go(page, "pods")
        page.wait_for_selector(".notice:has-text('reader'):has-text('forbidden')")
        page.fill(".namespace", "default")
        page.press(".namespace", "Enter")
        page.wait_for_selector(".row:has-text('web-')")
        go(page, "deployments", "default", "web")
        page.wait_for_selector(".fields dd:has-text('RollingUpdate')")
        page.wait_for_load_state("networkidle")
        assert page.locator(".actions button").count() == 0


def test_an_api_that_is_lost_is_told_and_a_new_one_asks_who_you_are(browser: Any) -> None:
    with served() as site, opened(browser, site, site.admin()) as page:
        page.wait_for_selector("text=read-only")
        go(page, "pods")
        page.wait_for_selector("text=There are no Pods.")
        site.agent.stop()
        page.wait_for_selector("text=The connection is lost")
        site.agent.start(ready=False)
        page.wait_for_selector("#credentials", timeout=30_000)


def test_measured_usage_is_drawn(page: Any) -> None:
    times = [1_700_000_000 + 15 * n for n in range(20)]
    shown = {"times": times, "cpu": [0.1 * n for n in range(20)], "memory": [None] * 10 + [2.0**20] * 10}
    page.route("**/history/**", lambda route: route.fulfill(body=json.dumps(shown), content_type="application/json"))
    go(page, "nodes")
    page.click(".row a >> nth=0")
    page.wait_for_selector(".chart:has-text('CPU') b:text-is('1.90')")
    page.wait_for_selector(".chart:has-text('Memory') b:text-is('1 MiB')")
    assert page.locator(".chart path.line[d^=M]").count() == 2


def test_a_nodes_engine_is_shown_and_its_containers_stopped(page: Any, site: Served) -> None:
    node = site.pod("engaged")["metadata"]["name"] and until(
        lambda: site.api("GET", "/api/v1/namespaces/default/pods/engaged")["spec"].get("nodeName")
    )
    go(page, "engine", node)
    page.click(".row:has-text('default/engaged') a >> nth=0")
    page.wait_for_selector(".fields dd:has-text('i:1')")
    page.click(".actions button:text-is('Stop')")
    page.click("dialog[open] button.primary")
    until(lambda: restarts(site, "engaged") == 1)  # its kubelet has started another
    page.click("text=Containers >> nth=1")
    go(page, "engine", node)
    page.click(".row:has-text('default/engaged'):has-text('exited') a >> nth=0")
    page.click(".actions button:text-is('Remove')")
    page.click("dialog[open] button.primary")
    page.wait_for_selector(".row:has-text('default/engaged'):has-text('running')")
    page.wait_for_selector(".row:has-text('exited')", state="detached")
    for kind, text in (("Images", "i:1"), ("Volumes", "There are none."), ("Networks", "host")):
        page.click(f".tabs a:has-text('{kind}')")
        page.wait_for_selector(f".grid:has-text('{text}')")
    site.api("DELETE", "/api/v1/namespaces/default/pods/engaged")


def restarts(site: Served, name: str) -> int:
    statuses = site.api("GET", f"/api/v1/namespaces/default/pods/{name}")["status"].get("containerStatuses")
    return int(statuses[0]["restartCount"]) if statuses else 0


def test_the_engine_is_shown_to_those_who_may_reach_the_kubelet(browser: Any, site: Served) -> None:
    with opened(browser, site, site.token("looker", role="view")) as page:
        go(page, "engine", f"{site.api('GET', '/api/v1/nodes')['items'][0]['metadata']['name']}")
        page.wait_for_selector(".notice:has-text('nodes/proxy'):has-text('forbidden')")


def test_volumes_of_pods_tell_what_they_are_made_of(page: Any, site: Served) -> None:
    volumes = [
        {"name": "scratch", "emptyDir": {"medium": "Memory"}},
        {"name": "logs", "hostPath": {"path": "/var/log"}},
    ]
    mounts = [{"name": "scratch", "mountPath": "/tmp"}, {"name": "logs", "mountPath": "/logs", "readOnly": True}]
    spec = {"volumes": volumes, "containers": [{"name": "c", "image": "i:1", "volumeMounts": mounts}]}
    site.api("POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": "stores"}, "spec": spec})
    go(page, "volumes")
    page.wait_for_selector(".row:has-text('scratch'):has-text('in memory'):has-text('c:/tmp')")
    page.wait_for_selector(".row:has-text('/var/log'):has-text('c:/logs (read-only)')")
    assert page.locator(".row:has-text('kube-api-access')").count() == 0
    node = until(lambda: site.api("GET", "/api/v1/namespaces/default/pods/stores")["spec"].get("nodeName"))
    page.select_option("[aria-label=Node]", node)
    page.wait_for_selector("a:has-text('Volumes of its engine')")
    site.api("DELETE", "/api/v1/namespaces/default/pods/stores")
    page.wait_for_selector(".row:has-text('scratch')", state="detached")
