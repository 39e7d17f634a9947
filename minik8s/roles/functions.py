"""Functions put together: their code, their controllers, their pods and environments, and the API's part."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from minik8s.apiserver.auth import AUTHENTICATED, MASTERS, User
from minik8s.apiserver.handler import Handler
from minik8s.apiserver.loopback import LoopbackTransport
from minik8s.client.base import Client
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.config import Config
from minik8s.faas.environments.controller import EnvironmentController
from minik8s.faas.functions.api import FunctionApi
from minik8s.faas.functions.codes import Codes
from minik8s.faas.functions.controller import FunctionController
from minik8s.faas.functions.pool import PoolController
from minik8s.faas.functions.scaler import Scaler
from minik8s.faas.functions.workshop import Workshop

FOLDER = "functions"  # of the data folder: the archives
ENVIRONMENTS = "environments"  # of each node's data folder
CONTROLLER = User("system:function-controller", (MASTERS, AUTHENTICATED))


def _image() -> str:
    from minik8s.faas.runtime_image import image_name  # what makes images is not needed until there is a function

    return image_name()


class Functions:
    def __init__(self, config: Config, handler: Handler, informers: Informers) -> None:
        client = Client(LoopbackTransport(handler, CONTROLLER))
        codes, environments = Codes(config.path(FOLDER)), config.path(ENVIRONMENTS)
        workshop = Workshop(client, image=_image, environments=str(environments))
        self._recorder = recorder = Recorder(client, "function-controller")
        functions = FunctionController(client, informers, recorder, codes)
        scaler = Scaler(client, informers, recorder, workshop)
        self._controllers = (
            functions,
            scaler,
            PoolController(client, informers, recorder, workshop, size=config.function_pool),
            EnvironmentController(client, informers, recorder, environments, _image),
        )
        api = FunctionApi(client, codes, arrived=functions.code_arrived, tell=scaler.tell)
        handler.extend(api.subresources(), api.virtuals())

    def activities(self) -> list[tuple[str, Coroutine[Any, Any, Any]]]:
        return [
            ("recorder function-controller", self._recorder.run()),
            *((each.name, each.run()) for each in self._controllers),
        ]


def open_functions(config: Config, handler: Handler, informers: Informers) -> Functions | None:
    """None where they are switched off."""
    return Functions(config, handler, informers) if config.functions else None
