"""Tokens: forged, expired, for others, of accounts and pods that are gone; and those with which machines join."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import jwt
import msgspec
import pytest
from api_harness import Api, pod
from hypothesis import given, settings
from hypothesis import strategies as st

from minik8s import pki
from minik8s.aio import background
from minik8s.api.errors import Unauthorized
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.secret import Secret
from minik8s.api.kinds.serviceaccount import ServiceAccount
from minik8s.apiserver.assembly import build_handler
from minik8s.apiserver.authn import ClusterAuthenticator
from minik8s.apiserver.handler import AllowAll
from minik8s.apiserver.tokens import (
    BOOTSTRAP_GROUP,
    ISSUER,
    MIN_EXPIRATION,
    ServiceAccountTokens,
    bootstrap_secret,
    check_bootstrap_token,
    new_bootstrap_token,
)
from minik8s.client.base import Client
from minik8s.client.informer import Informers
from minik8s.clock import ManualClock

KEY = pki.new_key()
NOW = 1_700_000_000.0


class Desk:
    """Tokens over the copies of an API server in memory."""

    def __init__(self, api: Api, informers: Informers) -> None:
        self.client: Client = api.client
        self.clock = ManualClock(NOW)
        self.informers = informers
        self.tokens = ServiceAccountTokens(KEY, informers, clock=self.clock)
        self.authenticator = ClusterAuthenticator(self.tokens, informers, clock=self.clock)

    async def account(self, name: str = "robot") -> ServiceAccount:
        made = await self.client.create(ServiceAccount, {"metadata": {"name": name}}, "default")
        await self.informers.of(ServiceAccount).caught_up(made.metadata.resourceVersion)
        return made

    async def forget(self, kind: type, name: str) -> None:
        informer = self.informers.of(kind)
        await self.client.delete(kind, name, "default", grace=0)
        marker = await self.client.create(kind, MARKERS[kind], "default")
        await informer.caught_up(marker.metadata.resourceVersion)


MARKERS: dict[type, dict[str, Any]] = {
    ServiceAccount: {"metadata": {"name": "marker"}},
    Pod: pod("marker"),
    Secret: {"metadata": {"name": "marker"}},
}


@pytest.fixture
async def desk(api: Api) -> AsyncIterator[Desk]:
    informers = Informers(api.client)
    desk = Desk(api, informers)
    async with background(informers.run()):
        await informers.synced()
        yield desk


async def test_a_good_token_is_its_account(desk: Desk) -> None:
    account = await desk.account()
    token, ends = desk.tokens.issue(account, seconds=3600)
    assert ends == NOW + 3600
    user = await desk.authenticator.authenticate(common_name="", organizations=(), token=token)
    assert user is not None
    assert user.name == "system:serviceaccount:default:robot"
    assert user.groups == ("system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated")
    assert user.uid == account.metadata.uid
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["iss"], claims["aud"]) == (ISSUER, [ISSUER])
    assert claims["kubernetes.io"]["serviceaccount"] == {"name": "robot", "uid": account.metadata.uid}


async def test_lives_are_neither_too_short_nor_endless(desk: Desk) -> None:
    account = await desk.account()
    assert desk.tokens.issue(account, seconds=1)[1] == NOW + MIN_EXPIRATION
    assert desk.tokens.issue(account, seconds=2**40)[1] == NOW + 2**32


async def test_an_expired_token_is_refused_even_when_it_was_good_a_moment_ago(desk: Desk) -> None:
    token, ends = desk.tokens.issue(await desk.account(), seconds=600)
    desk.tokens.check(token)
    desk.clock.now = ends
    for _ in range(2):
        with pytest.raises(Unauthorized, match="expired"):
            desk.tokens.check(token)


def forge(key: bytes = KEY, algorithm: str = "ES256", **claims: Any) -> str:
    about = {"namespace": "default", "serviceaccount": {"name": "robot", "uid": "u"}}
    whole = {"iss": ISSUER, "aud": [ISSUER], "exp": NOW + 600, "sub": "x", "kubernetes.io": about} | claims
    return jwt.encode({k: v for k, v in whole.items() if v is not None}, key, algorithm=algorithm)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(forge(pki.new_key()), id="another key"),
        pytest.param(forge(b"0" * 32, "HS256"), id="another algorithm"),
        pytest.param(jwt.encode({"iss": ISSUER}, None, algorithm="none"), id="no signature"),
        pytest.param(forge(iss="https://elsewhere"), id="another issuer"),
        pytest.param(forge(aud=["vault"]), id="another audience"),
        pytest.param(forge(**{"kubernetes.io": None}), id="no account"),
        pytest.param(forge(**{"kubernetes.io": []}), id="an odd account"),
        pytest.param(forge(**{"kubernetes.io": {"namespace": "default", "serviceaccount": 7}}), id="a number"),
        pytest.param(forge(exp=None), id="no end"),
        pytest.param("nonsense", id="nonsense"),
        pytest.param("a.b.c", id="three parts"),
        pytest.param("é.ü.ß", id="not ASCII"),
        pytest.param(base64.urlsafe_b64encode(b"[" * 6000).decode() + ".e30.e30", id="nested deeply"),
    ],
)
async def test_a_forged_token_is_refused(desk: Desk, token: str) -> None:
    await desk.account()
    with pytest.raises(Unauthorized):
        await desk.authenticator.authenticate(common_name="", organizations=(), token=token)


NOBODY: Any = None  # a transport that is not asked
TOKENS = ServiceAccountTokens(KEY, Informers(Client(NOBODY)), clock=lambda: NOW)


@given(parts=st.lists(st.one_of(st.binary(max_size=40), st.just(b'{"alg":"ES256"}')), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_no_token_does_more_than_be_refused(parts: list[bytes]) -> None:
    token = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    with pytest.raises(Unauthorized):
        TOKENS.check(token)


async def test_a_token_for_others_is_good_there_and_only_there(desk: Desk) -> None:
    token, _ = desk.tokens.issue(await desk.account(), audiences=["vault"])
    assert desk.tokens.check(token, ["vault"]).name.endswith(":robot")
    for audiences in ((), ["other"]):
        with pytest.raises(Unauthorized):
            desk.tokens.check(token, audiences)


async def test_a_token_ends_with_its_account_also_one_of_the_same_name(desk: Desk) -> None:
    token, _ = desk.tokens.issue(await desk.account())
    desk.tokens.check(token)
    await desk.forget(ServiceAccount, "robot")
    with pytest.raises(Unauthorized, match="service account default/robot is gone"):
        desk.tokens.check(token)
    await desk.account()
    with pytest.raises(Unauthorized, match="is gone"):
        desk.tokens.check(token)


async def test_a_token_ends_with_its_pod(desk: Desk) -> None:
    account = await desk.account()
    made = await desk.client.create(Pod, pod("web"), "default")
    await desk.informers.of(Pod).caught_up(made.metadata.resourceVersion)
    token, _ = desk.tokens.issue(account, bound=("Pod", "web", made.metadata.uid))
    assert desk.tokens.check(token).extra == {
        "authentication.kubernetes.io/pod-name": ["web"],
        "authentication.kubernetes.io/pod-uid": [made.metadata.uid],
    }
    await desk.forget(Pod, "web")
    with pytest.raises(Unauthorized, match="pod web is gone"):
        desk.tokens.check(token)


REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"


async def test_a_review_tells_for_whom_a_token_is(api: Api, desk: Desk) -> None:
    handler = build_handler(api.cache, authenticator=desk.authenticator, authorizer=AllowAll(), clock=api.clock)
    api = Api(handler, api.clock, api.cache)
    account = await desk.account()

    async def review(token: str, *audiences: str) -> dict[str, Any]:
        answer = await api.post(REVIEWS, {"spec": {"token": token, "audiences": list(audiences)}})
        assert answer.code == 201, answer.body
        return dict(answer["status"])

    plain, _ = desk.tokens.issue(account)
    vault, _ = desk.tokens.issue(account, audiences=("vault", "more"))
    told = await review(plain)
    assert (told["authenticated"], told["audiences"]) == (True, [ISSUER])
    assert told["user"]["username"] == "system:serviceaccount:default:robot"
    told = await review(vault, "vault", "elsewhere")
    assert (told["authenticated"], told["audiences"]) == (True, ["vault"])
    for token, audiences in ((vault, ()), (plain, ("vault",)), (GOOD, ("vault",)), ("forged", (ISSUER,))):
        told = await review(token, *audiences)
        assert told["authenticated"] is False
        assert told["error"]
        assert "audiences" not in told


async def test_a_certificate_is_a_user_and_no_credentials_are_nobody(desk: Desk) -> None:
    user = await desk.authenticator.authenticate(common_name="ann", organizations=("team",), token="")
    assert user is not None
    assert (user.name, user.groups) == ("ann", ("team", "system:authenticated"))
    assert await desk.authenticator.authenticate(common_name="", organizations=(), token="") is None


# -- joining

ID, SECRET = new_bootstrap_token()
GOOD = f"{ID}.{SECRET}"


def held(type: str = "bootstrap.kubernetes.io/token", **changes: str | None) -> dict[str, Secret]:
    """The secret of the token GOOD, with some of its data changed (None: left out)."""
    made = bootstrap_secret(ID, SECRET, expires=NOW + 60)
    for key, value in changes.items():
        name = key.replace("_", "-")
        made["data"].pop(name, None)
        if value is not None:
            made["data"][name] = base64.b64encode(value.encode("latin-1")).decode()
    return {made["metadata"]["name"]: msgspec.convert({**made, "type": type}, Secret)}


def test_a_bootstrap_token_is_a_bootstrapper() -> None:
    user = check_bootstrap_token(GOOD, held(), NOW)
    assert user is not None
    assert user.name == f"system:bootstrap:{ID}"
    assert user.groups == ("system:bootstrappers", BOOTSTRAP_GROUP, "system:authenticated")


def test_what_has_another_form_is_for_others_to_judge() -> None:
    for text in ("", "a.b.c", GOOD.upper(), GOOD + "x", f"{GOOD}\n"):
        assert check_bootstrap_token(text, held(), NOW) is None


@pytest.mark.parametrize(
    ("secrets", "words"),
    [
        ({}, "unknown or was deleted"),
        (held(type="Opaque"), "unknown or was deleted"),
        (held(token_secret="0" * 16), "its secret is wrong"),
        (held(token_secret="\xff\xfe"), "its secret is wrong"),
        (held(token_secret=None), "its secret is wrong"),
        (held(token_id="zzzzzz"), "its secret is wrong"),
        (held(expiration="2001-01-01T00:00:00Z"), "expired at 2001-01-01T00:00:00Z"),
        (held(expiration="soon"), "'soon' is not a time"),
        (held(usage_bootstrap_authentication=None), "not meant for joining"),
        (held(auth_extra_groups="system:masters"), "'system:masters' does not begin with system:bootstrappers:"),
    ],
)
def test_a_faulty_bootstrap_token_says_what_is_wrong(secrets: dict[str, Secret], words: str) -> None:
    with pytest.raises(Unauthorized, match=words):
        check_bootstrap_token(GOOD, secrets, NOW)


def test_a_bootstrap_token_may_live_for_ever() -> None:
    assert check_bootstrap_token(GOOD, held(expiration=None), NOW * 2) is not None


async def test_a_deleted_bootstrap_token_is_refused(desk: Desk) -> None:
    made = await desk.client.create(Secret, bootstrap_secret(ID, SECRET))
    await desk.informers.of(Secret).caught_up(made.metadata.resourceVersion)
    user = await desk.authenticator.authenticate(common_name="", organizations=(), token=GOOD)
    assert user is not None
    await desk.client.delete(Secret, made.metadata.name, "kube-system")
    marker = await desk.client.create(Secret, MARKERS[Secret], "default")
    await desk.informers.of(Secret).caught_up(marker.metadata.resourceVersion)
    with pytest.raises(Unauthorized, match="unknown"):
        await desk.authenticator.authenticate(common_name="", organizations=(), token=GOOD)


async def test_a_secret_elsewhere_is_no_bootstrap_token(desk: Desk) -> None:
    elsewhere = bootstrap_secret(ID, SECRET)
    elsewhere["metadata"]["namespace"] = "default"
    made = await desk.client.create(Secret, elsewhere)
    await desk.informers.of(Secret).caught_up(made.metadata.resourceVersion)
    with pytest.raises(Unauthorized, match="unknown"):
        await desk.authenticator.authenticate(common_name="", organizations=(), token=GOOD)


def test_tokens_do_not_repeat() -> None:
    made = {new_bootstrap_token() for _ in range(100)}
    assert len({id for id, _ in made}) == 100
    assert json.dumps(bootstrap_secret(*made.pop()))
