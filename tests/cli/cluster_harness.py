"""A real API server (memory store, TLS, RBAC) in a thread, and the command line run against it as people run it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web
from click.testing import CliRunner

from minik8s.api.scheme import SCHEME
from minik8s.apiserver import routes
from minik8s.apiserver.app import ApiServer
from minik8s.apiserver.assembly import build_handler
from minik8s.apiserver.auth import MASTERS, User
from minik8s.apiserver.authn import ClusterAuthenticator
from minik8s.apiserver.backend import Backend, hand_over
from minik8s.apiserver.bootstrap import bootstrap
from minik8s.apiserver.http_request import Request
from minik8s.apiserver.loopback import LoopbackTransport
from minik8s.apiserver.openapi import OpenAPI
from minik8s.apiserver.rbac import RBACAuthorizer
from minik8s.apiserver.routes import RequestInfo
from minik8s.apiserver.tokens import ServiceAccountTokens
from minik8s.cli import cli as minik8s
from minik8s.client.base import Client
from minik8s.client.informer import Informers
from minik8s.config import Config
from minik8s.pki import issue
from minik8s.roles.identity import master_identity, server_context, write_kubeconfig
from minik8s.store.memory import MemoryStore
from minik8s.store.watch_cache import WatchCache

ROOT = Path(__file__).parents[2]
ADMIN = User("admin", (MASTERS, "system:authenticated"))
Stream = Callable[[RequestInfo, web.BaseRequest], Coroutine[Any, Any, web.StreamResponse]]


class Streams:
    """Serves log, exec, attach and portforward by what a test puts into `answers`, from a server like a kubelet's."""

    def __init__(self) -> None:
        self.answers: dict[str, Stream] = {}

    async def serve(self, info: RequestInfo, user: User, request: Request) -> None:
        await hand_over(request, self._backend, f"{request.path}?{request.query}")

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        info = routes.parse(request.method, request.raw_path.partition("?")[0], {})
        return await self.answers[info.subresource](info, request)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self._backend = Backend("127.0.0.1", runner.addresses[0][1], None, "the node")
            yield
        finally:
            await runner.cleanup()


class _Late:
    target: LoopbackTransport

    async def request(self, method: str, path: str, **more: Any) -> bytes:
        return await self.target.request(method, path, **more)

    def stream(self, path: str, **more: Any) -> Any:
        return self.target.stream(path, **more)


class TestServer:
    """Started by `start`; `ask` runs a coroutine function of a client on its loop, as an administrator."""

    __test__ = False

    def __init__(self, folder: Path) -> None:
        self.config = Config(data_dir=folder, listen="127.0.0.1:0", node_ip="127.0.0.1", node_name="n1")
        self.streams = Streams()
        self.loop = asyncio.new_event_loop()
        self.address = ""
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(20), "the API server did not start"
        if self._failed:
            raise self._failed

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def ask(self, request: Callable[[Client], Coroutine[Any, Any, Any]]) -> Any:
        return asyncio.run_coroutine_threadsafe(request(self.client), self.loop).result(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._serve())
        except BaseException as error:
            self._failed = error
            self._ready.set()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        identity = master_identity(self.config)
        async with MemoryStore() as store, WatchCache(store) as cache:
            late = _Late()
            informers = Informers(Client(late))
            tokens = ServiceAccountTokens(identity.service_account_key, informers)
            authorizer = RBACAuthorizer(informers)
            handler = build_handler(
                cache, authenticator=ClusterAuthenticator(tokens, informers), authorizer=authorizer,
                service_cidr="10.96.0.0/12", rules=authorizer, tokens=tokens,
                openapi=OpenAPI(SCHEME.resources),
            )  # fmt: skip
            late.target = LoopbackTransport(handler, ADMIN)
            self.client = Client(late.target)
            await bootstrap(
                self.client, ca=identity.ca.certificate.decode(), service_ip="10.96.0.1", address="127.0.0.1", port=6443
            )
            context = server_context(identity.serving, identity.ca_file)
            server = ApiServer(handler, streams=self.streams)
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(informers.run())
                async with self.streams.listening(), server.listening("127.0.0.1", 0, context) as (host, port):
                    self.address = f"https://{host}:{port}"
                    self.identity = identity
                    self._kubeconfig("admin", "admin.kubeconfig", (MASTERS,))
                    await informers.synced()
                    self._ready.set()
                    await self._stop.wait()
                running.cancel()

    def _kubeconfig(self, user: str, file: str, groups: tuple[str, ...]) -> Path:
        pair = issue(self.identity.ca, user, organizations=groups)
        path = self.config.data_dir / file
        write_kubeconfig(path, self.address, self.identity.ca.certificate, pair, user=user)
        return path

    def kubeconfig_of(self, user: str, *groups: str) -> Path:
        """A kubeconfig of another user, who has no rights but those of `groups`."""
        return self._kubeconfig(user, f"{user}.kubeconfig", groups)


class Result(NamedTuple):
    """What a command said."""

    code: int
    out: str
    err: str

    def __repr__(self) -> str:
        return f"exit code {self.code}\n{self.out}{self.err}"


class Cli:
    """`cli("get", "pods")` runs minik8s, `kubectl(...)` a real kubectl, both as the administrator in a namespace."""

    def __init__(self, server: TestServer, home: Path, namespace: str) -> None:
        self.server, self.home, self.namespace = server, home, namespace
        self.kubeconfig = server.config.data_dir / "admin.kubeconfig"

    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "KUBECONFIG": str(self.kubeconfig),
            "EDITOR": "/bin/false",
            "VISUAL": "",
            "KUBE_EDITOR": "",
        }

    def args(self, *args: str) -> list[str]:
        """With the test's namespace put in, unless there is one."""
        before = args[: args.index("--")] if "--" in args else args
        named = any(a in ("-n", "-A", "--kubeconfig", "--server") or a.startswith("--namespace") for a in before)
        at = 1 + (args[:1] == ("rollout",))
        return [*args[:at], *(() if named else ("-n", self.namespace)), *args[at:]]

    def __call__(self, *args: str, stdin: str = "", env: dict[str, str] | None = None) -> Result:
        """Within this process, since starting one for each line would take longer than the tests."""
        environment = {**self.environment(), **(env or {})}
        done = CliRunner().invoke(minik8s, self.args(*args), input=stdin, env=environment, prog_name="minik8s")
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Result(done.exit_code, done.stdout, done.stderr)

    def process(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "minik8s", *self.args(*args)]

    def run(self, *args: str, stdin: str = "") -> Result:
        """As a process of its own, as people run it."""
        environment = {"PATH": os.environ["PATH"], **self.environment()}
        done = subprocess.run(
            self.process(*args), input=stdin, capture_output=True, text=True, env=environment, timeout=60, cwd=self.home
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def ok(self, *args: str, stdin: str = "", env: dict[str, str] | None = None) -> str:
        done = self(*args, stdin=stdin, env=env)
        assert done.code == 0, done
        return done.out

    def fails(self, *args: str, stdin: str = "", env: dict[str, str] | None = None) -> str:
        """The one line that a mistake is answered with."""
        done = self(*args, stdin=stdin, env=env)
        assert done.code == 1, done
        assert "Traceback" not in done.err, done
        lines = done.err.strip().splitlines()
        assert len(lines) == 1, done
        return lines[0]

    def kubectl(self, binary: Path, *args: str, stdin: str = "") -> str:
        done = subprocess.run(
            [str(binary), *self.args(*args)], input=stdin, capture_output=True, text=True,
            env={"PATH": os.environ["PATH"], **self.environment()}, timeout=60, cwd=self.home,
        )  # fmt: skip
        assert done.returncode == 0, done
        return done.stdout

    def file(self, name: str, text: str) -> str:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return name
