"""What the engine refuses, as errors of the API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from minik8s.api.errors import Conflict, InternalError, NotFound, ServiceUnavailable
from minik8s.runtime.base import EngineConflict, EngineUnavailable, NoSuchContainer, RuntimeFailure


@contextmanager
def engine_trouble() -> Iterator[None]:
    try:
        yield
    except EngineUnavailable as error:
        raise ServiceUnavailable(f"the container engine does not answer: {error}") from None
    except NoSuchContainer as error:
        raise NotFound(str(error)) from None
    except EngineConflict as error:
        raise Conflict(str(error)) from None
    except RuntimeFailure as error:
        raise InternalError(str(error)) from None
