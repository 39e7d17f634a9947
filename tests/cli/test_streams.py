"""Bytes to and from containers, against a server that speaks the real protocols and a container that the test plays."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import urllib.request
from collections.abc import Iterator

import click
import pytest
from aiohttp import WSMsgType, web
from cluster_harness import Cli, TestServer
from manifests_text import POD, WEB

from minik8s.apiserver.routes import RequestInfo
from minik8s.cli.streams import parse_ports

SUCCESS = {"kind": "Status", "status": "Success"}


@pytest.fixture(autouse=True)
def _pod(cli: Cli) -> Iterator[None]:
    cli.ok("apply", "-f", "-", stdin=POD)
    yield
    cli.server.streams.answers.clear()


async def log(info: RequestInfo, request: web.BaseRequest) -> web.StreamResponse:
    """Says what it was asked, then two lines."""
    answer = web.StreamResponse()
    await answer.prepare(request)
    asked = "&".join(f"{key}={value}" for key, value in sorted(request.query.items()))
    await answer.write(f"{info.name} {asked}\nlast line\n".encode())
    await answer.write_eof()
    return answer


def test_logs(cli: Cli) -> None:
    cli.server.streams.answers["log"] = log
    done = cli.run("logs", "p1")
    assert (done.code, done.out) == (0, "p1 container=main\nlast line\n")
    assert done.err == 'Defaulted container "main" out of: main, side\n'
    flags = ("--tail=5", "--since=2m", "--timestamps", "-p", "--limit-bytes=100", "-c", "side")
    asked = cli.run("logs", "pod/p1", *flags).out.splitlines()[0]
    assert asked == "p1 container=side&limitBytes=100&previous=true&sinceSeconds=120&tailLines=5&timestamps=true"
    both = cli.run("logs", "-l", "app=p", "--all-containers", "--prefix").out.splitlines()
    assert both == [
        "[pod/p1/main] p1 container=main&tailLines=10", "[pod/p1/main] last line",
        "[pod/p1/side] p1 container=side&tailLines=10", "[pod/p1/side] last line",
    ]  # fmt: skip
    followed = cli.run("logs", "p1", "-f", "--all-containers").out.splitlines()
    assert sorted(followed) == sorted(
        ["p1 container=main&follow=true", "p1 container=side&follow=true", "last line", "last line"]
    )


def test_which_pod_and_container(cli: Cli) -> None:
    assert 'unknown container "mian", did you mean "main"?; pod p1 has: main, side' in cli.fails(
        "logs", "p1", "-c", "mian"
    )
    assert 'pods "nope" not found' in cli.fails("logs", "nope")
    cli.ok("apply", "-f", "-", stdin=WEB)
    assert "has no pods yet" in cli.fails("logs", "deploy/web")
    cli.ok("label", "pod", "p1", "app=web", "--overwrite")
    cli.server.streams.answers["log"] = log
    assert cli.run("logs", "svc/web", "-c", "main").out.startswith("p1 container=main")


async def container(info: RequestInfo, request: web.BaseRequest) -> web.StreamResponse:
    """Prints its command, echoes standard input until its end, and exits with the code it is told to."""
    channel = web.WebSocketResponse(protocols=("v5.channel.k8s.io",))
    await channel.prepare(request)
    command = request.query.getall("command", [])
    await channel.send_bytes(b"\x01ran " + " ".join(command).encode() + b"\n")
    await channel.send_bytes(b"\x02to stderr\n")
    if request.query.get("stdin") == "true":
        async for message in channel:
            if message.type is WSMsgType.BINARY and message.data[0] == 0:
                await channel.send_bytes(b"\x01" + message.data[1:].upper())
            elif message.type is WSMsgType.BINARY and message.data[:2] == b"\xff\x00":
                break
    code = int(command[-1]) if command and command[-1].isdigit() else 0
    status = SUCCESS
    if code:
        status = {"status": "Failure", "reason": "NonZeroExitCode", "message": f"exit code {code}",
                  "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]}}  # fmt: skip
    await channel.send_bytes(b"\x03" + json.dumps(status).encode())
    await channel.close()
    return channel


def test_exec(cli: Cli) -> None:
    cli.server.streams.answers["exec"] = container
    done = cli.run("exec", "p1", "-c", "main", "--", "ls", "-l", "--all")
    assert done == (0, "ran ls -l --all\n", "to stderr\n")
    failed = cli.run("exec", "p1", "-q", "--", "exit", "7")
    assert (failed.code, failed.err) == (7, "to stderr\n")
    assert "command terminated with exit code 3" in cli.run("exec", "p1", "-c", "side", "--", "exit", "3").err
    sent = cli.run("exec", "-i", "p1", "-c", "main", "--", "cat", stdin="hello\n" * 20_000)
    assert sent.out == "ran cat\n" + "HELLO\n" * 20_000


def test_exec_that_cannot_begin(cli: Cli) -> None:
    async def refuse(info: RequestInfo, request: web.BaseRequest) -> web.StreamResponse:
        body = {
            "kind": "Status",
            "status": "Failure",
            "message": "container main is not running",
            "reason": "BadRequest",
            "code": 400,
        }
        return web.json_response(body, status=400)

    async def no_such_command(info: RequestInfo, request: web.BaseRequest) -> web.StreamResponse:
        channel = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
        await channel.prepare(request)
        await channel.send_bytes(
            b'\x03{"status": "Failure", "message": "nope: no such file", "reason": "InternalError"}'
        )
        await channel.close()
        return channel

    cli.server.streams.answers["exec"] = refuse
    assert (
        cli.run("exec", "p1", "-c", "main", "--", "ls").err
        == "Error from server (BadRequest): container main is not running\n"
    )
    cli.server.streams.answers["exec"] = no_such_command
    assert cli.run("exec", "p1", "-c", "main", "--", "nope").err == "error: nope: no such file\n"
    line = cli.run("exec", "p1", "-c", "main").err
    assert "Missing argument" in line


def test_attach(cli: Cli) -> None:
    cli.server.streams.answers["attach"] = container
    assert cli.run("attach", "p1", "-c", "main", "-i", stdin="x").out == "ran \nX"


async def web_page(info: RequestInfo, request: web.BaseRequest) -> web.StreamResponse:
    """A pod's port 80 behind the WebSocket: an HTTP/1.0 server of one page."""
    channel = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
    await channel.prepare(request)
    port = int(request.query["ports"]).to_bytes(2, "little")
    await channel.send_bytes(b"\x00" + port)
    await channel.send_bytes(b"\x01" + port)
    asked = b""
    while b"\r\n\r\n" not in asked:
        asked += (await channel.receive_bytes())[1:]
    body = b"x" * 200_000
    await channel.send_bytes(b"\x00HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
    await channel.send_bytes(b"\x00" + body)
    await asyncio.sleep(0)
    await channel.close()
    return channel


def test_port_forward(cli: Cli, server: TestServer) -> None:
    server.streams.answers["portforward"] = web_page
    environment = {"PATH": "/usr/bin:/bin", **cli.environment()}
    command = cli.process("port-forward", "p1", ":80", "--address=127.0.0.1")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as forwarding:
        assert forwarding.stdout is not None
        line = forwarding.stdout.readline()
        local = line.removeprefix("Forwarding from 127.0.0.1:").split(" -> ")[0]
        assert line.endswith(" -> 80\n")
        for _ in range(3):
            with urllib.request.urlopen(f"http://127.0.0.1:{local}/", timeout=10) as page:
                assert len(page.read()) == 200_000
        forwarding.terminate()


def test_port_forward_to_a_port_in_use(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = cli.run("port-forward", "p1", f"{port}:80", "--address=127.0.0.1")
    assert done.code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.err


def test_ports() -> None:
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]}}
    service = {"metadata": {"name": "s"}, "spec": {"ports": [{"name": "web", "port": 80, "targetPort": "http"}]}}
    assert parse_ports("80", pod, None) == (80, 80)
    assert parse_ports("9000:80", pod, None) == (9000, 80)
    assert parse_ports(":80", pod, None) == (0, 80)
    assert parse_ports("http", pod, None) == (8080, 8080)
    assert parse_ports("80", pod, service) == (80, 8080)
    assert parse_ports("9000:web", pod, service) == (9000, 8080)
    for wrong, message in (("81", "has no port 81"), ("x:80", "LOCAL:REMOTE"), ("nope", "has no port nope")):
        with pytest.raises(click.ClickException, match=message):
            parse_ports(wrong, pod, service if "port" in message else None)
