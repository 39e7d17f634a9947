"""How the dashboard is served, and for which API server."""

from __future__ import annotations

from typing import NamedTuple


class Settings(NamedTuple):
    server: str  # https://host:port of the API server
    ca: str  # file with its CA
    write: bool = False  # may the page change anything
    secure: bool = False  # is it served over TLS
