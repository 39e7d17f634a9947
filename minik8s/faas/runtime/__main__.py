"""`python -m minik8s.faas.runtime`: FUNCTION_PORT (8080), FUNCTION_TOKEN_SHA256 or FUNCTION_TOKEN.

It listens before it has imported what it consists of: who connects meanwhile waits, and need not come again.
"""

from __future__ import annotations

import os
import socket
import sys


def listen(port: int) -> socket.socket:
    """Raises OSError."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", port))
    listener.listen(1024)
    listener.setblocking(False)
    return listener


def main() -> None:
    listener = listen(int(os.environ.pop("FUNCTION_PORT", "8080")))
    from minik8s.faas.runtime import supervisor

    supervisor.main(listener, os.environ, sys.path)


main()
