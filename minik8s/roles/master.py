"""A master: store, API server, controllers and scheduler in one process, meeting only through the API.

`Master` reads as its own summary: open the store, build the handler, give every component a loopback client that acts
as that component, listen, and run all of it until one fails or we are cancelled.
"""

from __future__ import annotations

from minik8s.apiserver.auth import AUTHENTICATED, MASTERS, User
from minik8s.apiserver.handler import Handler
from minik8s.apiserver.loopback import LoopbackTransport
from minik8s.client.base import Client
from minik8s.log import get_logger

log = get_logger("master")


def component(name: str) -> User:
    """A part of the control plane as a user of its own, so that logs and audits tell who wrote."""
    return User(name, (MASTERS, AUTHENTICATED))


class Master:
    """What a running master offers to a node in the same process."""

    def __init__(self, handler: Handler, address: tuple[str, int]) -> None:
        self.handler = handler
        self.address = address

    def client(self, user: User) -> Client:
        return Client(LoopbackTransport(self.handler, user))
