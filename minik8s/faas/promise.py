"""What the scaler answers a gateway that holds calls: pods that they may go to before the claim is written (ADR 7)."""

from __future__ import annotations

import msgspec


class Promise(msgspec.Struct, frozen=True):
    """A pod of a pool, for held calls of a crowd, whose label it does not carry yet."""

    crowd: str  # namespace/name
    shape: str
    pod: str  # namespace/name
    address: str
    node: str


class Promises(msgspec.Struct, frozen=True):
    promises: tuple[Promise, ...] = ()
