"""Bearer tokens: bound ServiceAccount tokens (JWT, ES256) and bootstrap tokens that let a new node in.

A ServiceAccount token says which account, and mostly which pod, it stands for; it dies with either. A bootstrap token
is `ID.SECRET`, kept as a Secret `bootstrap-token-ID` in kube-system as kubeadm keeps it; the form given to people adds
the hash of the cluster's CA, `ID.SECRET.HASH`, so that a joining machine knows the master before it says a secret.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from minik8s.api.errors import Unauthorized
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.secret import Secret
from minik8s.api.kinds.serviceaccount import ServiceAccount
from minik8s.apiserver.auth import (
    API_AUDIENCE,
    AUTHENTICATED,
    BOOTSTRAPPERS,
    SERVICE_ACCOUNT_PREFIX,
    SERVICE_ACCOUNTS,
    User,
)
from minik8s.client.informer import Informer, Informers
from minik8s.clock import Clock, parse_time, rfc3339, system_clock

ISSUER = API_AUDIENCE
DEFAULT_EXPIRATION = 3600  # seconds
MIN_EXPIRATION = 600  # seconds; validation of TokenRequest
MAX_EXPIRATION = 2**32  # seconds
BOOTSTRAP_TYPE = "bootstrap.kubernetes.io/token"
BOOTSTRAP_GROUP = BOOTSTRAPPERS + ":minik8s:default-node-token"
CACHE_SIZE = 4096  # verified tokens; verifying costs 0.1 ms, looking up nothing
_EXTRA_GROUP = re.compile(re.escape(BOOTSTRAPPERS) + r":[a-z0-9:-]{0,255}[a-z0-9]")
_BOOTSTRAP = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")


class Claims(NamedTuple):
    namespace: str
    account: str
    account_uid: str
    bound_kind: str  # "" | Pod | Node | Secret
    bound_name: str
    bound_uid: str
    expires: float


class ServiceAccountTokens:
    """Issues and checks the tokens of service accounts; `key` is a PEM private key that only masters have."""

    def __init__(self, key: bytes, informers: Informers, *, clock: Clock = system_clock) -> None:
        self._key = key
        self._clock = clock
        self._accounts = informers.of(ServiceAccount)
        self._bound: dict[str, Informer[Any]] = {
            "Pod": informers.of(Pod),
            "Node": informers.of(Node),
            "Secret": informers.of(Secret),
        }
        self._public: bytes = b""
        self._verified: dict[str, Claims] = {}

    def issue(
        self,
        account: ServiceAccount,
        *,
        audiences: Sequence[str] = (),
        seconds: int = DEFAULT_EXPIRATION,
        bound: tuple[str, str, str] = ("", "", ""),
    ) -> tuple[str, float]:
        """A token and its expiry (Unix seconds). `bound` is (kind, name, uid) of the object that it dies with."""
        import jwt

        now = self._clock()
        seconds = min(max(seconds, MIN_EXPIRATION), MAX_EXPIRATION)
        meta = account.metadata
        about: dict[str, Any] = {
            "namespace": meta.namespace,
            "serviceaccount": {"name": meta.name, "uid": meta.uid},
        }
        kind, name, uid = bound
        if kind:
            about[kind.lower()] = {"name": name, "uid": uid}
        payload = {
            "iss": ISSUER,
            "sub": f"{SERVICE_ACCOUNT_PREFIX}{meta.namespace}:{meta.name}",
            "aud": list(audiences) or [ISSUER],
            "iat": int(now),
            "nbf": int(now),
            "exp": int(now) + seconds,
            "jti": secrets.token_hex(16),
            "kubernetes.io": about,
        }
        return jwt.encode(payload, self._key, algorithm="ES256"), float(payload["exp"])  # type: ignore[arg-type]

    def check(self, token: str, audiences: Sequence[str] = ()) -> User:
        """The user of a token. Raises Unauthorized: forged, expired, for others, or its account or pod is gone."""
        claims = None if audiences else self._verified.get(token)
        if claims is None:
            claims = self._verify(token, audiences)
            if not audiences:
                if len(self._verified) >= CACHE_SIZE:
                    self._verified.clear()
                self._verified[token] = claims
        if claims.expires <= self._clock():
            self._verified.pop(token, None)
            raise Unauthorized("the token has expired")
        account = self._accounts.get(claims.namespace, claims.account)
        if self._accounts.has_synced and (account is None or account.metadata.uid != claims.account_uid):
            raise Unauthorized(f"the token's service account {claims.namespace}/{claims.account} is gone")
        extra: dict[str, Sequence[str]] = {}
        if claims.bound_kind:
            informer = self._bound[claims.bound_kind]
            namespace = None if claims.bound_kind == "Node" else claims.namespace
            held = informer.get(namespace, claims.bound_name)
            if informer.has_synced and (held is None or held.metadata.uid != claims.bound_uid):
                raise Unauthorized(f"the token's {claims.bound_kind.lower()} {claims.bound_name} is gone")
            prefix = f"authentication.kubernetes.io/{claims.bound_kind.lower()}"
            extra = {f"{prefix}-name": [claims.bound_name], f"{prefix}-uid": [claims.bound_uid]}
        return User(
            f"{SERVICE_ACCOUNT_PREFIX}{claims.namespace}:{claims.account}",
            (SERVICE_ACCOUNTS, f"{SERVICE_ACCOUNTS}:{claims.namespace}", AUTHENTICATED),
            claims.account_uid,
            extra,
        )

    def _verify(self, token: str, audiences: Sequence[str]) -> Claims:
        import jwt

        if not self._public:
            self._public = _public_pem(self._key)
        try:
            # Time is checked by `check`, on our clock and again at every use.
            payload = jwt.decode(
                token,
                self._public,
                algorithms=["ES256"],
                audience=list(audiences) or ISSUER,
                issuer=ISSUER,
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
            about = payload["kubernetes.io"]
            account = about["serviceaccount"]
            kind = next((k for k in self._bound if k.lower() in about), "")
            bound = about.get(kind.lower(), {})
            return Claims(
                about["namespace"], account["name"], account["uid"],
                kind, bound.get("name", ""), bound.get("uid", ""), float(payload["exp"]),
            )  # fmt: skip
        except (jwt.PyJWTError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise Unauthorized(f"invalid bearer token: {error}") from None


def _public_pem(private_pem: bytes) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    public = load_pem_private_key(private_pem, None).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def new_bootstrap_token() -> tuple[str, str]:
    """A fresh (id, secret)."""
    alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
    return "".join(secrets.choice(alphabet) for _ in range(6)), "".join(secrets.choice(alphabet) for _ in range(16))


def bootstrap_secret(id: str, secret: str, *, expires: float = 0, description: str = "") -> dict[str, Any]:
    """The Secret that makes a bootstrap token valid; `expires` in Unix seconds, 0 = never."""
    data = {
        "token-id": id,
        "token-secret": secret,
        "usage-bootstrap-authentication": "true",
        "auth-extra-groups": BOOTSTRAP_GROUP,
        "description": description,
        "expiration": rfc3339(expires) if expires else "",
    }
    return {
        "metadata": {"name": f"bootstrap-token-{id}", "namespace": "kube-system"},
        "type": BOOTSTRAP_TYPE,
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items() if value},
    }


def check_bootstrap_token(token: str, secret_of: Mapping[str, Secret], now: float) -> User | None:
    """The user of a bootstrap token, None if it has not a bootstrap token's form.

    `secret_of` maps the names of kube-system's secrets to them. Raises Unauthorized: unknown, wrong, expired.
    """
    match = _BOOTSTRAP.fullmatch(token)
    if match is None:
        return None
    id, secret = match.groups()
    held = secret_of.get(f"bootstrap-token-{id}")
    if held is None or held.type != BOOTSTRAP_TYPE:
        raise Unauthorized(f"token {id!r} is unknown or was deleted; make one with 'minik8s token create'")
    data = {key: base64.b64decode(value).decode(errors="replace") for key, value in held.data.items()}
    if data.get("token-id") != id or not hmac.compare_digest(data.get("token-secret", "").encode(), secret.encode()):
        raise Unauthorized(f"token {id!r}: its secret is wrong")
    expiration = data.get("expiration", "")
    try:
        expires = parse_time(expiration)
    except ValueError:
        raise Unauthorized(f"token {id!r}: its expiration {expiration!r} is not a time") from None
    if expires and expires <= now:
        raise Unauthorized(f"token {id!r} expired at {expiration}; make one with 'minik8s token create'")
    if data.get("usage-bootstrap-authentication") != "true":
        raise Unauthorized(f"token {id!r} is not meant for joining")
    groups = tuple(g for g in data.get("auth-extra-groups", "").split(",") if g)
    # Or whoever may write a Secret there could call itself an administrator.
    if strange := next((group for group in groups if not _EXTRA_GROUP.fullmatch(group)), None):
        raise Unauthorized(f"token {id!r}: its group {strange!r} does not begin with {BOOTSTRAPPERS}:")
    return User(f"system:bootstrap:{id}", (BOOTSTRAPPERS, *groups, AUTHENTICATED))
