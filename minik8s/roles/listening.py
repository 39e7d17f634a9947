"""Ports that somebody else has: told with the option that chooses another."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

REASONS = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)


class CannotListen(Exception):
    """The message names the address, why it cannot be had, and the option."""


@contextmanager
def listening_at(host: str, port: int, what: str, option: str) -> Iterator[None]:
    """Translates the error of a server that is started in the body."""
    try:
        yield
    except OSError as error:
        if error.errno not in REASONS:
            raise
        reason = os.strerror(error.errno)
        raise CannotListen(
            f"the {what} cannot listen on {host or '0.0.0.0'}:{port}: {reason}; "
            f"end the program that has it ('ss -ltnp' tells which) or choose another with {option}"
        ) from error
