"""The wire: one kept-alive HTTP connection to the API server, errors as the tree of `api/errors.py`.

The standard library's client, because it costs 20 ms to import where a full one costs 400, and a verb sends a handful
of requests. The few verbs that need sockets both ways (exec, attach, port-forward) bring their own client.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import click

from minik8s import __version__
from minik8s.api.errors import from_status

Json = dict[str, Any]
JSON = "application/json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
MERGE, STRATEGIC, JSON_PATCH = (
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/json-patch+json",
)
CONNECT_TIMEOUT = 10.0  # seconds
ANSWER_TIMEOUT = 60.0  # seconds; a plain request, not a stream


class Unreachable(click.ClickException):
    """No server, or none that we trust, at the address."""


class Credentials(NamedTuple):
    """Whom we trust and who we are. `tls` is None for plain http."""

    server: str  # https://127.0.0.1:6443
    tls: ssl.SSLContext | None
    headers: Mapping[str, str]


class Wire:
    """`call` sends a request; a failed one raises the StatusError that the server's Status stands for."""

    def __init__(self, credentials: Credentials, *, timeout: float = ANSWER_TIMEOUT) -> None:
        self.credentials = credentials
        self._timeout = timeout
        self._prefix = urlsplit(credentials.server).path.rstrip("/")
        self._kept: http.client.HTTPConnection | None = None

    def get(self, path: str, query: Mapping[str, str] | None = None, *, accept: str = JSON) -> Json:
        answer: Json = json.loads(self.call("GET", path, query, accept=accept))
        return answer

    def send(
        self, method: str, path: str, body: Any, query: Mapping[str, str] | None = None, *, content_type: str = JSON
    ) -> Json:
        """Send a JSON body, return the JSON answer."""
        answer: Json = json.loads(self.call(method, path, query, body=body, content_type=content_type))
        return answer

    def call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Any = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> bytes:
        data = body if body is None or isinstance(body, bytes) else (
            json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())  # fmt: skip
        headers = self._headers(accept) | ({"Content-Type": content_type} if data is not None else {})
        reused = self._kept is not None
        connection = self._kept or self._connect()
        self._kept = None
        try:
            connection.request(method, self._target(path, query), data, headers)
            response = connection.getresponse()
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
            connection.close()
            if reused:  # the server closed an idle connection: it has not seen this request
                return self.call(method, path, query, body=body, content_type=content_type, accept=accept)
            raise self._unreachable(error) from None
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None
        answer = response.read()
        if response.will_close:
            connection.close()
        else:
            self._kept = connection
        _warn(response)
        if response.status >= 400:
            raise _failure(response.status, answer)
        return answer

    def stream(
        self, path: str, query: Mapping[str, str] | None = None, *, accept: str = JSON, timeout: float | None = None
    ) -> http.client.HTTPResponse:
        """An open response on a connection of its own; the caller closes it. `timeout`: seconds of silence."""
        connection = self._connect()
        try:
            connection.request("GET", self._target(path, query), headers=self._headers(accept))
            connection.sock.settimeout(timeout)
            response = connection.getresponse()
        except TimeoutError:
            connection.close()
            raise
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None
        _warn(response)
        if response.status >= 400:
            raise _failure(response.status, response.read())
        return response

    def events(
        self, path: str, query: Mapping[str, str], *, accept: str = JSON, timeout: float | None = None
    ) -> Iterator[Json]:
        """The events of a watch until the server ends it; TimeoutError after `timeout` seconds of silence."""
        with self.stream(path, {**query, "watch": "true"}, accept=accept, timeout=timeout) as response:
            try:
                for line in response:
                    event: Json = json.loads(line)
                    if event["type"] == "ERROR":
                        raise from_status(event["object"])
                    yield event
            except (http.client.IncompleteRead, ConnectionResetError):
                return

    def _headers(self, accept: str) -> dict[str, str]:
        return {"Accept": accept, "User-Agent": f"minik8s/{__version__}", **self.credentials.headers}

    def _target(self, path: str, query: Mapping[str, str] | None) -> str:
        return f"{self._prefix}{path}" + (f"?{urlencode(query)}" if query else "")

    def _connect(self) -> http.client.HTTPConnection:
        address = urlsplit(self.credentials.server)
        host, port = address.hostname or "", address.port
        connection: http.client.HTTPConnection
        if self.credentials.tls is not None:
            tls = self.credentials.tls
            connection = http.client.HTTPSConnection(host, port or 443, timeout=CONNECT_TIMEOUT, context=tls)
        else:
            connection = http.client.HTTPConnection(host, port or 80, timeout=CONNECT_TIMEOUT)
        try:
            connection.connect()
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None
        connection.sock.settimeout(self._timeout)
        return connection

    def _unreachable(self, error: Exception) -> Unreachable:
        server = self.credentials.server
        if isinstance(error, ssl.SSLCertVerificationError):
            return Unreachable(
                f"the server {server} shows a certificate that is not trusted ({error.verify_message}): "
                "is this kubeconfig of another cluster?"
            )
        if isinstance(error, ConnectionRefusedError):
            return Unreachable(
                f'the connection to the server {server} was refused: is it running? "minik8s start" starts it'
            )
        why = str(error) or type(error).__name__
        return Unreachable(f'unable to reach the server {server}: {why}; "minik8s start" starts one here')


def _failure(code: int, answer: bytes) -> Exception:
    try:
        status = json.loads(answer)
    except ValueError:
        text = answer.decode(errors="replace").strip()
        return from_status({"message": text[:500]} if text else {}, code=code)
    return from_status(status if isinstance(status, dict) else {}, code=code)


def _warn(response: http.client.HTTPResponse) -> None:
    """Print what the server warns of (RFC 7234: `299 - "text"`)."""
    for value in response.headers.get_all("Warning", []):
        for quoted in re.findall(r'299 \S+ "((?:\\.|[^"\\])*)"', value):
            text = re.sub(r"\\(.)", r"\1", quoted)
            click.echo(f"{click.style('Warning:', fg='yellow')} {text}", err=True)
