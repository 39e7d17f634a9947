"""How long is too long, on a machine where others may keep the processors busy."""

from __future__ import annotations

import os


def patience(seconds: float) -> float:
    """`seconds` on an idle machine; as many times more as there are programs that want each processor."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
