"""Who is it? A client certificate signed by the cluster's CA, a ServiceAccount token, or a bootstrap token."""

from __future__ import annotations

from collections.abc import Sequence

from minik8s.api.kinds.secret import Secret
from minik8s.apiserver.auth import API_AUDIENCE, AUTHENTICATED, User
from minik8s.apiserver.tokens import ServiceAccountTokens, check_bootstrap_token
from minik8s.client.informer import Informers
from minik8s.clock import Clock, system_clock


class ClusterAuthenticator:
    """TLS has verified the certificate's chain before; here its subject becomes a user."""

    def __init__(self, tokens: ServiceAccountTokens, informers: Informers, *, clock: Clock = system_clock) -> None:
        self.tokens = tokens
        self._secrets = informers.of(Secret)
        self._clock = clock
        self._secrets.add_index("bootstrap", lambda secret: [secret.metadata.name] if _is_bootstrap(secret) else [])

    async def authenticate(
        self, *, common_name: str, organizations: Sequence[str], token: str, audience: str = API_AUDIENCE
    ) -> User | None:
        """See `auth.Authenticator`. A token counts more than a certificate, as with Kubernetes' union of both."""
        if token and audience != API_AUDIENCE:
            return self.tokens.check(token, (audience,))
        if token.count(".") == 1:  # the other kind, a JWT, has two
            found = token.partition(".")[0]
            held = {s.metadata.name: s for s in self._secrets.by_index("bootstrap", f"bootstrap-token-{found}")}
            return check_bootstrap_token(token, held, self._clock()) or self.tokens.check(token)
        if token:
            return self.tokens.check(token)
        if common_name:
            return User(common_name, (*organizations, AUTHENTICATED))
        return None


def _is_bootstrap(secret: Secret) -> bool:
    return secret.metadata.namespace == "kube-system" and secret.metadata.name.startswith("bootstrap-token-")
