from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from .cluster import Cluster, control_plane


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with control_plane() as running:
        yield running
