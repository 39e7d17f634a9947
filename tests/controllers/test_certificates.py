"""Which certificates a cluster gives to whom, on whose word, and when it forgets that it was asked."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from minik8s import pki
from minik8s.aio import background
from minik8s.api.errors import NotFound
from minik8s.api.kinds.certificatesigningrequest import CertificateSigningRequest, CertificateSigningRequestSpec
from minik8s.api.kinds.node import Node
from minik8s.api.meta import condition
from minik8s.apiserver.auth import User
from minik8s.client.informer import Informers
from minik8s.clock import ManualClock
from minik8s.controllers.certificates import (
    CLIENT_SIGNER,
    GENERAL_CLIENT_SIGNER,
    KEEP,
    KEEP_PENDING,
    SERVING_SIGNER,
    CertificateController,
    Holder,
    judge,
)
from tests.client.wire import Wired, wired

CA = pki.new_ca("test")
KEY = pki.new_key()
N1 = "system:node:n1"
ITSELF = User(N1, ("system:nodes", "system:authenticated"))
JOINING = User("system:bootstrap:abcdef", ("system:bootstrappers", "system:authenticated"))
SOMEBODY = User("ann", ("team", "system:authenticated"))
RESERVED = {"kubernetes", "kubernetes.default.svc", "10.96.0.1"}


def wanted(name: str = N1, groups: tuple[str, ...] = ("system:nodes",), *names: str) -> pki.Request:
    return pki.read_request(pki.new_request(KEY, name, groups, names))


ME = pki.key_id(KEY)
NOBODY, MYSELF, SOMEONE = None, Holder(ME, True), Holder("other", True)
UNCLAIMED, UNKNOWN, GONE = Holder("", False), Holder("", True), Holder("other", False)
NAMED = (N1, ("system:nodes",), "n1", "192.0.2.1")


@pytest.mark.parametrize(
    ("signer", "user", "request_", "holder", "approve"),
    [
        (CLIENT_SIGNER, ITSELF, wanted(), MYSELF, True),
        (CLIENT_SIGNER, ITSELF, wanted(), NOBODY, True),
        (CLIENT_SIGNER, ITSELF, wanted(), SOMEONE, False),
        (CLIENT_SIGNER, JOINING, wanted(), NOBODY, True),
        (CLIENT_SIGNER, JOINING, wanted(), MYSELF, True),  # the same machine may join again
        (CLIENT_SIGNER, JOINING, wanted(), UNCLAIMED, True),  # registered by a manifest
        (CLIENT_SIGNER, JOINING, wanted(), SOMEONE, False),
        (CLIENT_SIGNER, JOINING, wanted(), UNKNOWN, False),
        (CLIENT_SIGNER, JOINING, wanted(), GONE, False),
        (CLIENT_SIGNER, SOMEBODY, wanted(), NOBODY, None),
        (CLIENT_SIGNER, ITSELF, wanted("system:node:n2"), NOBODY, None),
        (CLIENT_SIGNER, JOINING, wanted("root"), NOBODY, False),
        (CLIENT_SIGNER, JOINING, wanted(N1, ("system:masters",)), NOBODY, False),
        (CLIENT_SIGNER, JOINING, wanted(N1, ("system:nodes", "system:masters")), NOBODY, False),
        (CLIENT_SIGNER, User(N1, ("system:authenticated",)), wanted(), NOBODY, None),
        (SERVING_SIGNER, ITSELF, wanted(*NAMED), MYSELF, True),
        (SERVING_SIGNER, JOINING, wanted(*NAMED), NOBODY, False),
        (SERVING_SIGNER, SOMEBODY, wanted(*NAMED), NOBODY, None),
        (SERVING_SIGNER, ITSELF, wanted(N1, ("system:nodes",), "kubernetes.default.svc"), MYSELF, False),
        (SERVING_SIGNER, ITSELF, wanted(N1, ("system:nodes",), "10.96.0.1"), NOBODY, False),
        (GENERAL_CLIENT_SIGNER, SOMEBODY, wanted("ann", ()), NOBODY, None),
        ("example.com/x", ITSELF, wanted(), NOBODY, None),
    ],
)
def test_who_gets_what_without_anybodys_word(
    signer: str, user: User, request_: pki.Request, holder: Holder | None, approve: bool | None
) -> None:
    spec = CertificateSigningRequestSpec(signerName=signer, username=user.name, groups=user.groups)
    verdict = judge(spec, request_, holder, RESERVED)
    assert verdict.approve is approve
    assert bool(verdict.message) is (approve is not None)


class Office:
    def __init__(self, it: Wired, informers: Informers, clock: ManualClock) -> None:
        self.it = it
        self.clock = clock
        self._requests = informers.of(CertificateSigningRequest)
        self.nodes = informers.of(Node)

    async def ask(self, user: User, signer: str, request: bytes, **spec: object) -> str:
        whole = {"request": pki.b64(request), "signerName": signer, "usages": ["client auth"], **spec}
        body = {"metadata": {"generateName": "r-"}, "spec": whole}
        return (await self.it.acting_as(user).create(CertificateSigningRequest, body)).metadata.name

    async def until(self, name: str, test: Callable[[CertificateSigningRequest], object]) -> CertificateSigningRequest:
        async with asyncio.timeout(10):
            while True:
                found = self._requests.get(None, name)
                if found is not None and test(found):
                    return found
                await asyncio.sleep(0)

    async def approve(self, name: str) -> None:
        held = await self.it.direct.raw(self.it.direct.resource(CertificateSigningRequest), name)
        held["status"] = {"conditions": [{"type": "Approved", "status": "True", "reason": "ByHand"}]}
        await self.it.direct.update(CertificateSigningRequest, held, subresource="approval")

    async def gone(self, name: str) -> None:
        async with asyncio.timeout(10):
            while True:
                try:
                    await self.it.direct.get(CertificateSigningRequest, name)
                except NotFound:
                    return
                await asyncio.sleep(0)


@asynccontextmanager
async def office(*, later: float = 0) -> AsyncIterator[Office]:
    """A controller at work, on a clock that is `later` seconds ahead of the server's."""
    async with wired() as it:
        informers, clock = Informers(it.direct), ManualClock(time.time() + later)
        controller = CertificateController(it.direct, informers, CA, reserved=RESERVED, clock=clock)
        async with background(informers.run(), controller.run()):
            await informers.synced()
            yield Office(it, informers, clock)


def is_signed(request: CertificateSigningRequest) -> object:
    return request.status.certificate


def has(type: str) -> Callable[[CertificateSigningRequest], object]:
    return lambda request: condition(request.status.conditions, type)


async def test_a_node_gets_its_certificates() -> None:
    async with office() as it:
        name = await it.ask(JOINING, CLIENT_SIGNER, pki.new_request(KEY, N1, ("system:nodes",)))
        made = base64.b64decode((await it.until(name, is_signed)).status.certificate)
        assert pki.fits(pki.Pair(made, KEY), CA)
        assert pki.names_of(made) == set()
        serving = pki.new_request(KEY, N1, ("system:nodes",), ("n1", "192.0.2.1"))
        name = await it.ask(ITSELF, SERVING_SIGNER, serving)
        made = base64.b64decode((await it.until(name, is_signed)).status.certificate)
        assert pki.names_of(made) == {"n1", "192.0.2.1"}
        begin, end = pki.lifetime(made)
        assert end - begin == pytest.approx(365 * 86400, abs=3600)


async def test_a_shorter_life_may_be_asked_for_and_no_longer_one() -> None:
    async with office() as it:
        for seconds, days in ((7200, 7200 / 86400), (10 * 365 * 86400, 365)):
            request = pki.new_request(KEY, N1, ("system:nodes",))
            name = await it.ask(ITSELF, CLIENT_SIGNER, request, expirationSeconds=seconds)
            begin, end = pki.lifetime(base64.b64decode((await it.until(name, is_signed)).status.certificate))
            assert end - begin == pytest.approx(days * 86400, abs=3600)


async def test_a_living_nodes_name_is_not_given_away() -> None:
    async with office() as it:
        await it.it.direct.create(Node, {"metadata": {"name": "n1"}})
        ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        node = await it.it.direct.patch(Node, "n1", None, ready, subresource="status")
        await it.nodes.caught_up(node.metadata.resourceVersion)
        name = await it.ask(JOINING, CLIENT_SIGNER, pki.new_request(KEY, N1, ("system:nodes",)))
        denied = await it.until(name, has("Denied"))
        assert 'already called "n1"' in condition(denied.status.conditions, "Denied").message
        assert not denied.status.certificate


async def test_what_people_ask_for_waits_for_somebodys_word() -> None:
    async with office() as it:
        name = await it.ask(SOMEBODY, GENERAL_CLIENT_SIGNER, pki.new_request(KEY, "ann", ("team",)))
        other = await it.ask(ITSELF, CLIENT_SIGNER, pki.new_request(KEY, N1, ("system:nodes",)))
        await it.until(other, is_signed)
        assert (await it.until(name, lambda _: True)).status.conditions == ()
        await it.approve(name)
        assert is_signed(await it.until(name, is_signed))


async def test_nobody_becomes_an_administrator_even_with_somebodys_word() -> None:
    async with office() as it:
        name = await it.ask(SOMEBODY, GENERAL_CLIENT_SIGNER, pki.new_request(KEY, "ann", ("system:masters",)))
        await it.approve(name)
        failed = await it.until(name, has("Failed"))
        assert "system:masters" in condition(failed.status.conditions, "Failed").message


async def test_requests_to_other_signers_are_left_alone() -> None:
    async with office() as it:
        name = await it.ask(SOMEBODY, "example.com/x", pki.new_request(KEY, "ann"))
        await it.approve(name)
        other = await it.ask(ITSELF, CLIENT_SIGNER, pki.new_request(KEY, N1, ("system:nodes",)))
        await it.until(other, is_signed)
        assert not (await it.until(name, has("Approved"))).status.certificate


async def test_a_request_that_is_none_fails_and_is_not_tried_again() -> None:
    async with office() as it:
        broken = b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"
        name = await it.ask(SOMEBODY, CLIENT_SIGNER, broken)
        assert condition((await it.until(name, has("Failed"))).status.conditions, "Failed").reason == "InvalidRequest"


@pytest.mark.parametrize("later", [KEEP + 60, KEEP_PENDING + 60])
async def test_old_requests_are_forgotten(later: float) -> None:
    async with office(later=later) as it:
        mine = await it.ask(SOMEBODY, GENERAL_CLIENT_SIGNER, pki.new_request(KEY, "ann"))
        if later > KEEP_PENDING:
            await it.gone(mine)
            return
        own = await it.ask(ITSELF, CLIENT_SIGNER, pki.new_request(KEY, N1, ("system:nodes",)))
        await it.gone(own)
        assert (await it.it.direct.get(CertificateSigningRequest, mine)).metadata.name == mine
