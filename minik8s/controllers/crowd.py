"""How long to wait for more of the same before looking: a crowd of pods that change together deserves one look.

A look costs time in proportion to the pods that it goes through. For few it is made at once; for many the wait is
about what a few looks would cost, so that events never cost more than that and nobody waits longer than `LONGEST`.
"""

from __future__ import annotations

FEW = 100  # pods; below, a look costs less than a millisecond
PER_POD = 50e-6  # seconds
LONGEST = 0.25  # seconds
AGAIN = 0.1  # seconds; what has just been looked at and written is written again ten times a second at most


def patience(pods: int) -> float:
    """Seconds from the first event to the look."""
    return 0.0 if pods < FEW else min(pods * PER_POD, LONGEST)


def pause(pods: int, since: float) -> float:
    """Seconds to the next look, `since` seconds after the last one, at what is a write for others to follow.

    The first event in a while counts at once; what comes close behind it is gathered.
    """
    return max(0.0, max(AGAIN, patience(pods)) - since)
