"""Pages of workflows, jobs on supercomputers and functions: what goes on is drawn as it goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.agent import until
from tests.web.browsing import CHROMIUM, XSS, go, opened
from tests.web.served import Served

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Debian's chromium")
FAAS = "/apis/faas.minik8s.io/v1/namespaces/default"
HPC = "/apis/hpc.minik8s.io/v1/namespaces/default"
STATES = {
    "Make": {"Type": "Pass", "Result": {"n": 3}, "ResultPath": "$.made", "Next": "Both"},
    "Both": {"Type": "Parallel", "Next": "Ask", "Branches": [
        {"StartAt": "Left", "States": {"Left": {"Type": "Pass", "Result": XSS, "End": True}}},
        {"StartAt": "Right", "States": {"Right": {"Type": "Pass", "End": True}}},
    ]},
    "Ask": {"Type": "Task", "Resource": "activity:ask", "End": True},
}  # fmt: skip


def workflow(site: Served, name: str, states: Any = STATES, start: str = "Make") -> None:
    spec = {"definition": {"StartAt": start, "States": states}}
    site.api("POST", f"{FAAS}/workflows", {"metadata": {"name": name}, "spec": spec})


def answer(site: Served, activity: str, status: Any) -> None:
    """Be a worker for one task."""
    task = site.api("POST", f"{FAAS}/workflowtasks", {"spec": {"activity": activity, "waitSeconds": 20}})
    site.api("PUT", f"{FAAS}/workflowtasks/{task['status']['token']}", {"status": status})


def test_a_run_is_started_and_followed_state_by_state(page: Any, site: Served) -> None:
    workflow(site, "asks")
    go(page, "workflows", "default", "asks")
    for state in ("Make", "Both", "Left", "Right", "Ask"):
        page.wait_for_selector(f"g[data-state={state}][data-status='']")
    page.click(".actions button:text-is('Start a run')")
    page.fill("dialog[open] textarea", "{no json")
    page.click("dialog[open] button.primary")
    page.wait_for_selector("dialog[open] .notice:has-text('no JSON')")
    page.fill("dialog[open] textarea", '{"who": "me"}')
    page.click("dialog[open] button.primary")
    page.wait_for_selector("g[data-state=Both][data-status=succeeded]")
    page.wait_for_selector("g[data-state=Ask][data-status=running]")
    answer(site, "ask", {"phase": "Succeeded", "output": {"said": XSS}})
    page.wait_for_selector("g[data-state=Ask][data-status=succeeded]")
    page.wait_for_selector(".fields dd:has-text('Succeeded')")
    page.click("g[data-state=Make]")
    page.wait_for_selector('.passages pre:has-text(\'"who": "me"\')')
    page.wait_for_selector(".passages pre:has-text('\"n\": 3')")
    page.focus("g[data-state=Left]")
    page.keyboard.press("Enter")
    page.wait_for_selector(f".passages pre:has-text('{XSS}')")
    page.click(".tabs a:has-text('History')")
    page.wait_for_selector(".row:has-text('ExecutionSucceeded')")
    assert page.locator("img[src=x]").count() == 0
    go(page, "workflows", "default", "asks")
    page.wait_for_selector("[aria-label=runs] .row:has-text('Succeeded')")


def test_a_run_that_fails_says_why_and_goes_on_where_it_broke_off(page: Any, site: Served) -> None:
    workflow(site, "fails", {"Ask": {"Type": "Task", "Resource": "activity:risk", "End": True}}, "Ask")
    run = {"metadata": {"name": "fails-1"}, "spec": {"workflowRef": {"name": "fails"}}}
    site.api("POST", f"{FAAS}/workflowruns", run)
    go(page, "workflowruns", "default", "fails-1")
    answer(site, "risk", {"phase": "Failed", "error": "Bad", "cause": XSS})
    page.wait_for_selector("g[data-state=Ask][data-status=failed]")
    page.wait_for_selector(f".notice.bad:has-text('Bad: {XSS}')")
    page.click("g[data-state=Ask]")
    page.wait_for_selector(".passages .notice:has-text('Bad')")
    page.click(".actions button:text-is('Redrive')")
    page.click("dialog[open] button.primary")
    page.wait_for_selector("g[data-state=Ask][data-status=running]")
    page.click(".actions button:text-is('Stop')")
    page.click("dialog[open] button.primary")
    page.wait_for_selector(".fields dd:has-text('Aborted')")


def test_who_may_only_look_is_offered_nothing(browser: Any, site: Served) -> None:
    workflow(site, "watched")
    with opened(browser, site, site.token("onlooker", role="view")) as page:
        page.fill(".namespace", "default")
        page.press(".namespace", "Enter")
        go(page, "workflows", "default", "watched")
        page.wait_for_selector("g[data-state=Ask]")
        page.wait_for_load_state("networkidle")
        assert page.locator(".actions button").count() == 0


def function(site: Served, name: str, *invokes: str) -> None:
    code = {"inline": "def main(): return 1"}
    site.api(
        "POST", f"{FAAS}/functions", {"metadata": {"name": name}, "spec": {"code": code, "invokes": list(invokes)}}
    )


def test_a_function_tells_its_replicas_and_why_and_who_calls_whom(page: Any, site: Served) -> None:
    function(site, "first", "second", "third")
    function(site, "second", "third")
    function(site, "third")
    function(site, "alone")
    until(lambda: site.api("GET", f"{FAAS}/functions/first").get("status", {}).get("latestRevision"))
    go(page, "functions")
    page.click(".row a:has-text('first')")
    page.wait_for_selector(".fields dd:has-text('/function/default/first')")
    page.wait_for_selector("[aria-label=Revisions] .row:has-text('first-00001')")
    page.wait_for_selector(".fields dd:has-text('(0 to 10)')")
    counted = [{"from": "first", "to": "third", "count": 41}]
    record = {"id": "c1", "time": "2026-01-01T00:00:00.000Z", "function": "first", "revision": "first-00001",
              "status": 500, "seconds": 0.25, "cold": True, "traceId": "t", "parent": "", "error": XSS}  # fmt: skip
    # Calls are made by gateways, which need real pods: tests/e2e has them; here it is what the page makes of them.
    body = json.dumps({"items": [record], "edges": counted})
    page.route("**/functions/*/calls", lambda route: route.fulfill(body=body, content_type="application/json"))
    page.click(".tabs a:has-text('Calls')")
    page.wait_for_selector(f".row:has-text('500'):has-text('250 ms'):has-text('{XSS}')")
    page.wait_for_selector(".drawing text:text-is('41')")
    assert page.locator(".drawing [data-state]").evaluate_all("(all) => all.map((g) => g.dataset.state)") == [
        "first", "second", "third",
    ]  # fmt: skip
    page.click(".drawing [data-state=second]")
    page.wait_for_selector("h1:has-text('second')")
    go(page, "functions", "default", "alone", "calls")
    page.wait_for_selector("[aria-label=calls]")
    assert page.locator(".drawing").count() == 0
