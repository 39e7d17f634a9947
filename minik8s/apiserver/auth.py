"""Who asks and may they: the words that authentication and authorization share with the request path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

ANONYMOUS = "system:anonymous"
AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
MASTERS = "system:masters"  # may do everything, whatever RBAC says
NODES = "system:nodes"
NODE_PREFIX = "system:node:"
SERVICE_ACCOUNTS = "system:serviceaccounts"
SERVICE_ACCOUNT_PREFIX = "system:serviceaccount:"
BOOTSTRAPPERS = "system:bootstrappers"


class User(NamedTuple):
    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, Sequence[str]] = {}


class Attributes(NamedTuple):
    """What a request wants to do, as SubjectAccessReview words it. `path` only for non-resource requests."""

    user: User
    verb: str  # get list watch create update patch delete deletecollection | the HTTP method in lower case
    group: str = ""
    version: str = ""
    resource: str = ""  # plural
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


class Decision(NamedTuple):
    allowed: bool
    reason: str = ""


API_AUDIENCE = "https://kubernetes.default.svc"  # for whom tokens are that say nothing else: the API server itself


class Authenticator(Protocol):
    async def authenticate(
        self, *, common_name: str, organizations: Sequence[str], token: str, audience: str = API_AUDIENCE
    ) -> User | None:
        """The user of a verified client certificate (its subject) or a bearer token; None = no credentials given.

        Raises Unauthorized for credentials that are wrong, expired, or meant for others than `audience`.
        """


class Authorizer(Protocol):
    def authorize(self, attributes: Attributes) -> Decision:
        """May it? From local copies only, no I/O."""
