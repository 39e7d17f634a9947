"""What a Task's `Resource` names, and what may stand there. Pure.

    add, function:add, function:NS/add     a function of the cluster
    invoke:NAME                            one hop of a chain: a function that may hand over (faas/chain.py)
    http://…, https://…                    an HTTP endpoint
    activity:NAME                          work that a worker fetches
    workflow:NAME[.sync]                   another workflow; .sync waits for its end
    k8s:KIND[.sync], gpujob[.sync]         an object that is made; .sync waits until it says that it is done
    manual.waitForTaskToken                nothing: somebody reports with the task's token

`.waitForTaskToken` behind any of them (but activities): its answer is no result, which is reported with the token.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

WAITING, SYNC = ".waitForTaskToken", ".sync"
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
FUNCTION = re.compile(r"([a-z0-9]([-a-z0-9]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
ACTIVITY = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,78}[A-Za-z0-9])?")

Kind = Literal["function", "invoke", "http", "activity", "workflow", "k8s", "manual"]


class InvalidResource(ValueError):
    """The message says what would be right."""


class Resource(NamedTuple):
    """`name`: of the function, activity, workflow or kind; the URL."""

    kind: Kind
    name: str
    sync: bool = False
    waits: bool = False


def parse(text: str) -> Resource:
    """Raises InvalidResource."""
    waits = text.endswith(WAITING)
    rest = text.removesuffix(WAITING)
    if rest.startswith(("http://", "https://")):
        return Resource("http", rest, waits=waits)
    sync = rest.endswith(SYNC)
    rest = rest.removesuffix(SYNC)
    kind, colon, name = rest.partition(":")
    if not colon:
        if rest == "manual" and waits:
            return Resource("manual", "", waits=True)
        kind, name = ("k8s", rest) if rest == "gpujob" else ("function", rest)
    if sync and (waits or kind not in ("workflow", "k8s")):
        raise InvalidResource(".sync is for workflow:NAME and k8s:KIND alone, and not with .waitForTaskToken")
    if kind == "invoke" and waits:
        raise InvalidResource("invoke: makes a hop, which has its answer at once: leave .waitForTaskToken out")
    if kind == "activity" and waits:
        raise InvalidResource("an activity has a token anyway: leave .waitForTaskToken out")
    rules = {"function": FUNCTION, "invoke": NAME, "activity": ACTIVITY, "workflow": NAME, "k8s": NAME}
    if kind not in rules:
        raise InvalidResource(
            f"{kind}: is nothing that is known here: name a function, or write http(s)://…, invoke:NAME, "
            "activity:NAME, workflow:NAME.sync, k8s:KIND.sync or manual.waitForTaskToken"
        )
    if not rules[kind].fullmatch(name):
        raise InvalidResource(f"{name!r} cannot be the name of a {kind if kind != 'k8s' else 'kind'}")
    return Resource(kind, name, sync, waits)  # type: ignore[arg-type]


def fault(text: str) -> str:
    """What is wrong with a Resource; "" if nothing is."""
    try:
        parse(text)
    except InvalidResource as error:
        return str(error)
    return ""
