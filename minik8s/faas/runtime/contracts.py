"""Which programming model a piece of code follows, by its signature; pure but for the import."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from minik8s.faas.runtime import serverless

MODULES: Final = ("func", "main", "handler", "app", "index", "function", "lambda_function")  # looked for in this order
NAMES: Final = (
    "main", "action", "handler", "run", "lambda_handler", "handle", "app", "application", "asgi", "wsgi",
)  # fmt: skip


class LoadError(Exception):
    """The code cannot be used; the text says why, and what is expected."""


@dataclass(frozen=True)
class Contract:
    """`name`: main | action | handler | cloudevent | asgi | wsgi. `takes`: how many positional arguments it is given;
    None means the parameters by keyword. `asynchronous`: it must run on an event loop."""

    name: str
    target: Callable[..., Any]
    takes: int | None
    asynchronous: bool


def load(folder: Path, handler: str) -> Contract:
    """Import the code below `folder`. Raises LoadError, and whatever the code raises."""
    module_name, _, name = handler.partition(":")
    module = importlib.import_module(module_name or find_module(folder))
    return contract_of(find_callable(module, name))


def find_module(folder: Path) -> str:
    """The module's name. Raises LoadError."""
    files = sorted(path.stem for path in folder.glob("*.py"))
    files += sorted(path.name for path in folder.iterdir() if (path / "__init__.py").is_file())
    for name in MODULES:
        if name in files:
            return name
    if len(files) == 1:
        return files[0]
    there = ", ".join(f"{name}.py" for name in files[:8]) or "none"
    raise LoadError(f"no handler is given, and of the code's modules ({there}) none is called func, main, handler, app "
                    "or index: set spec.handler to module:name")  # fmt: skip


def find_callable(module: ModuleType, name: str) -> Any:
    """Raises LoadError."""
    if name:
        found: Any = module
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is None:
            raise LoadError(f"module {module.__name__} has no {name!r}")
        if not callable(found):
            raise LoadError(f"{module.__name__}:{name} is a {type(found).__name__}, and cannot be called")
        return found
    for each in NAMES:
        if callable(getattr(module, each, None)):
            return getattr(module, each)
    own = [
        value for key, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not key.startswith("_")
    ]  # fmt: skip
    if len(own) == 1:
        return own[0]
    raise LoadError(f"module {module.__name__} has no main, action, handler, run or app, and not one function only: "
                    "set spec.handler to module:name")  # fmt: skip


def contract_of(target: Any) -> Contract:
    """Raises LoadError for a signature that fits no model."""
    asynchronous = _asynchronous(target)
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        return Contract("main", target, 1, asynchronous)
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    names = [p.name.lower() for p in required]
    if len(required) == 3 and (asynchronous or names[1:] == ["receive", "send"]):
        return Contract("asgi", target, 3, True)
    if len(required) == 2 and (names[1].startswith("start_resp") or not _plain(target)):
        return Contract("wsgi", target, 2, False)
    kind = _kind(target, parameters, required)
    takes: int | None = len(required)
    if kind == "main" and ((any(p.kind is p.VAR_KEYWORD for p in parameters) and not required) or len(required) > 1):
        takes = None
    elif not required and positional:
        takes = 1  # main(params=None)
    if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
        takes = None
    if kind == "main" and getattr(target, "__name__", "") == "run" and [p.name for p in positional] != ["params"]:
        takes = None  # `run` is called as run(**params), whatever it takes
    return Contract(kind, target, takes, asynchronous)


def _kind(target: Any, parameters: list[inspect.Parameter], required: list[inspect.Parameter]) -> str:
    names = [p.name.lower() for p in required or parameters[:1]]
    meant = str(getattr(parameters[0].annotation, "__name__", parameters[0].annotation)) if parameters else ""
    if meant.endswith("CloudEvent") or names[:1] in (["cloudevent"], ["cloud_event"]):
        return "cloudevent"
    if meant.endswith("Request") or names[:1] in (["req"], ["request"]):
        return "action"
    own = getattr(target, "__name__", "")
    if len(required) <= 1 and own == "action":
        return "action"
    if len(required) == 2 and (names[1] in ("context", "ctx", "_context", "_", "__") or own.endswith("handler")):
        return "handler"
    if len(required) <= 1 and (names == ["event"] or own in ("handler", "lambda_handler")):
        return "handler"
    return "main"


def _plain(target: Any) -> bool:
    """Written as a function or a method, not an object that can be called, as WSGI applications are."""
    while isinstance(target, functools.partial):
        target = target.func
    return inspect.isroutine(target)


def _asynchronous(target: Any) -> bool:
    while isinstance(target, functools.partial):
        target = target.func
    for each in (target, getattr(target, "__call__", None)):  # noqa: B004  # the bound method itself is wanted
        if inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each):
            return True
    return False


def prepare(folder: Path, env: Mapping[str, str]) -> None:
    """What the code finds when it is imported: its folder first on the path and below its feet, its environment."""
    import os
    import time

    os.environ.update(env)
    time.tzset()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.argv = [str(folder)]
    sys.modules["serverless"] = serverless
    sys.dont_write_bytecode = True
